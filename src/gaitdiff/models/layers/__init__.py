"""Layers that gait models share."""
