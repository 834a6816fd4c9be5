"""Training: the loop, objectives, optimizers, schedules, precision, checkpoints, callbacks, the run folder."""
