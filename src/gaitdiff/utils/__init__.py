"""Helpers of all other rooms: files, locks, processes, progress, text, counts."""
