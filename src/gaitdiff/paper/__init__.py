"""The paper's evidence: its tables and figures as grids of runs, and its claims."""
