"""The verbs of the command line: what they take, and what they do beyond one call."""
