"""Gait recognition that learns from unlabelled walks."""

from __future__ import annotations

__version__ = "0.1.0"
