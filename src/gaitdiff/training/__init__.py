"""Both stages: the loop, checkpoints, run folders, the machine."""
