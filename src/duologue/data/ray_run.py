"""The tasks of a step through Ray Data: the same code on many machines that share a folder."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from duologue.config import to_dict
from duologue.data.steps.base import SynthesisConfig
from duologue.data.synthesis import Task, Worker
from duologue.errors import DataError


def run_with_ray(tasks: list[Task], config: SynthesisConfig) -> Iterator[None]:
    """Runs every task once, on `config.workers` actors.

    Raises:
        DataError: Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise DataError(f"--ray needs Ray ({error}): pip install duologue[ray]") from error
    if not tasks:
        return
    if not ray.is_initialized():
        ray.init(
            num_cpus=max(2, config.workers + 1),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    ray.data.DataContext.get_current().enable_progress_bars = False
    absolute = [
        {"step": task.step, "source": str(Path(task.source).absolute()), "target": str(Path(task.target).absolute())}
        for task in tasks
    ]
    done = ray.data.from_items(absolute, override_num_blocks=len(absolute)).map_batches(
        RayWorker,
        fn_constructor_args=(to_dict(config),),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(config.workers, len(tasks))),
    )
    for _ in done.iter_rows():
        yield


class RayWorker:
    """What Ray makes on a machine: a worker that takes tasks as batches of columns."""

    def __init__(self, config: dict[str, Any]):
        self._worker = Worker(config)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [field.name for field in dataclasses.fields(Task)]
        for values in zip(*(batch[name] for name in names), strict=True):
            self._worker.run(Task(**{name: str(value) for name, value in zip(names, values, strict=True)}))
        return {"done": np.ones(len(batch[names[0]]), np.int64)}
