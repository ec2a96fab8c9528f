"""Helpers that know nothing of gait: files, locks, processes, progress, text, counts."""
