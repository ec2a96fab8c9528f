"""The report of a quick start: one HTML page with figures and pictures in it."""
