"""Training: one loop, recipes as Python functions, stages as tasks."""

from duologue.train.loop import Result, Task, TrainConfig, train
from duologue.train.optim import OptimizerConfig
from duologue.train.stages import run

__all__ = ["OptimizerConfig", "Result", "Task", "TrainConfig", "run", "train"]
