"""Training: from two folders of chips to a run folder with a model bundle.

`config.TrainConfig` says what to train, `loop.train` does it. Everything that a step depends on is
a function of the seed and the step's number, or is saved in the checkpoint, so that a run that was
stopped or killed goes on as if nothing had happened.
"""
