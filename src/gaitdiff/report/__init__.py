"""Pages on runs, each one HTML file with figures and pictures in it, and the charts of ``gaitdiff.paper``."""
