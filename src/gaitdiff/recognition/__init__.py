"""Learning with labels: the losses and the objective of stage 2, as ``diffusion`` holds those of stage 1."""
