"""The one training loop: every stage of every family goes through it, as a `Task`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from duologue import config as configs
from duologue.errors import ConfigError, TrainError
from duologue.train import report
from duologue.train.distributed import Processes, multiplies_bf16, to_device
from duologue.train.feed import feed
from duologue.train.host import machine, peak_memory, stop_signals
from duologue.train.optim import Ema, OptimizerConfig, factor, make_optimizer, scale_and_clip, set_rate
from duologue.train.progress import Bar, Log, span
from duologue.train.state import (
    Best,
    TrainState,
    checkpoint_path,
    checkpoints,
    load_weights,
    put,
    read,
    save_weights,
    seed_all,
    weights,
)

MAY_CHANGE = {"steps", "eval_every", "save_every", "log_every", "keep", "out", "device", "loaders"}  # in a resumed run


class Task(Protocol):
    """What is trained, on what, and how it is judged. A task knows nothing of steps, rates, files or processes.

    It may have one more, `begin(module)`: what a new run does to the module once, and one that goes on does not.
    """

    def build(self) -> nn.Module:
        """The module, frozen parts with `requires_grad` off. The same weights at each call (the loop seeds torch)."""
        ...

    def prepare(self) -> None:
        """Works out what is kept for all steps, such as what a frozen part makes of the data. It may be stopped at any
        time; begun again, it goes on."""
        ...

    def batches(self, seed: int, position: int) -> Iterator[Any]:
        """An endless stream of micro-batches that depends on the seed alone, from micro-batch `position` on.

        A batch is tensors in tuples, lists, dicts or dataclasses; or a function of no arguments that makes it, called
        only in the process that trains on it.
        """
        ...

    def loss(self, module: nn.Module, batch: Any) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The mean loss of a batch and numbers to log, the same keys each time.

        The key "weight" says over how many things (tokens, rows) the mean goes; without it every batch counts 1.
        With it, accumulated batches give exactly the loss and the gradient of one big batch.
        """
        ...

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Held-out measures. Called without gradients, in evaluation mode."""
        ...

    def export(self, module: nn.Module, folder: Path) -> None:
        """Writes what later stages and people use: the chosen weights are in the module."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run of one task."""

    name: str
    task: Any  # a frozen dataclass: a Task, or a config whose `make()` gives one
    steps: int  # updates of the weights
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    accumulation: int = 1  # micro-batches in a step, over all processes
    precision: str = "fp32"  # bf16: autocast, weights stay in float32; auto: that where the machine multiplies in it
    eval_every: int = 0  # steps; 0: at the end only
    eval_first: bool = False  # also before the first step
    save_every: int = 500  # steps
    keep: int = 2  # checkpoints
    log_every: int = 20  # steps between lines where there is no terminal; the log file has them all
    best_metric: str = ""  # of evaluate(): the best weights by it are exported; empty: the last
    best_is: str = "min"  # or max
    ema: float = 0.0  # decay of the running mean of the weights, which is then evaluated and exported; 0: none
    seed: int = 0
    out: str = ""  # the folder of the run; empty: runs/<name>
    device: str = "auto"  # or cpu, cuda
    loaders: int = 0  # processes that make batches ahead of time, for a fast card; 0: made as they are needed
    shard: bool = False  # several processes: FSDP instead of DDP
    shard_layers: tuple[str, ...] = ("Block",)  # classes that FSDP gathers one at a time

    def __post_init__(self):
        _one_of("precision", self.precision, ("fp32", "bf16", "auto"))
        _one_of("best_is", self.best_is, ("min", "max"))
        _one_of("device", self.device, ("auto", "cpu", "cuda"))
        for name in ("steps", "accumulation", "save_every", "keep", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{self.name}: {name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.ema < 1 or min(self.eval_every, self.loaders) < 0:
            raise ConfigError(
                f"{self.name}: need 0 <= ema < 1, eval_every >= 0 and loaders >= 0, got {self.ema}, {self.eval_every} "
                f"and {self.loaders}"
            )

    @property
    def folder(self) -> Path:
        return Path(self.out or f"runs/{self.name}")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished run leaves, also as result.json in its folder."""

    name: str
    folder: str
    steps: int
    seconds: float  # of training, over all sessions
    peak_memory: int  # bytes, of one process
    exported_step: int
    evaluation: dict[str, float]  # of the exported weights
    machine: str
    date: str
    processes: int

    @property
    def export(self) -> Path:
        return Path(self.folder) / "export"


class _Step(nn.Module):
    """Loss and evaluation as a forward call, so that DDP and FSDP see all that a task does with its module."""

    def __init__(self, task: Task, module: nn.Module):
        super().__init__()
        self.task, self.module = task, module

    def forward(self, batch: Any = None, *, evaluate: bool = False) -> Any:
        return self.task.evaluate(self.module) if evaluate else self.task.loss(self.module, batch)


def train(config: TrainConfig, *, resume: bool = False) -> Result:
    """Runs a task to its last step, evaluates, exports and writes a report page.

    Args:
        resume: go on from the newest checkpoint in the folder, if there is one. The numbers are those of a run that was
            never stopped.
    Raises:
        TrainError: the folder holds a run and `resume` is off, the run cannot go on, or a loss is not a number.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM, after the step was finished and saved.
    """
    return Run(config, resume=resume).finish()


class Run:
    """One run on its way: built, maybe resumed, then driven by `finish`."""

    def __init__(self, config: TrainConfig, *, resume: bool):
        self.config, self.folder = config, config.folder
        self.processes = Processes(device=config.device, shard=config.shard, shard_layers=config.shard_layers)
        if config.accumulation % self.processes.count:
            raise ConfigError(
                f"{config.name}: {config.accumulation} micro-batches a step cannot be shared by "
                f"{self.processes.count} processes. Set accumulation to a multiple of {self.processes.count}."
            )
        self.task: Task = config.task.make() if hasattr(config.task, "make") else config.task
        found = checkpoints(self.folder / "checkpoints")
        if found and not resume:
            raise TrainError(
                f"{self.folder}: holds a run already ({found[-1].stem}). Go on with --resume, choose another --out, or "
                "delete the folder."
            )
        if found:
            self._check_same(read(found[-1])["config"])
        seed_all(config.seed, 0)
        built = self.task.build()
        if not found and hasattr(self.task, "begin"):
            self.task.begin(built)
        self.wrapped, optimizer = self.processes.prepare(
            _Step(self.task, built), lambda module: make_optimizer(_inner(module), config.optimizer)
        )
        module = _inner(self.wrapped)
        self.state = TrainState(module, optimizer, Ema(module, config.ema) if config.ema else None)
        if found:
            self.state.load(found[-1])
        self.saved = self.state.step if found else -1
        self._write_config()

    def finish(self) -> Result:
        config, state = self.config, self.state
        log = Log(self.folder / "log.jsonl", step=state.step) if self.processes.main else None
        bar = Bar(config.name, step=state.step, steps=config.steps, every=config.log_every) if log else None
        if bar and state.step:
            bar.say(f"goes on from step {state.step}")
        try:
            self._loop(log, bar)
            result = self._export()
            if bar and log:
                shown = ", ".join(f"{key} {value:.4g}" for key, value in result.evaluation.items())
                bar.say(
                    f"done in {span(result.seconds)}, exported to {result.export}" + (f": {shown}" if shown else "")
                )
        finally:
            if bar and log:
                bar.close()
                log.close()
        if self.processes.main:
            report.write(self.folder)
        self.processes.wait()
        return result

    def _loop(self, log: Log | None, bar: Bar | None) -> None:
        config, state = self.config, self.state
        self.task.prepare()  # before signals wait for the end of a step
        if config.eval_first and state.step == 0:
            self._evaluate(log, bar)
        batches = feed(
            self.task,
            seed=config.seed,
            position=state.position,
            loaders=config.loaders,
            rank=self.processes.rank,
            count=self.processes.count,
        )
        with stop_signals() as stop:
            while state.step < config.steps:
                begun = time.monotonic()
                line, stopped = self._step(batches, stop=stop.is_set())
                state.seconds += time.monotonic() - begun
                if log and bar:
                    log.write(line)
                    bar.step(line)
                begun = time.monotonic()
                last = state.step == config.steps
                if last or (config.eval_every and state.step % config.eval_every == 0):
                    self._evaluate(log, bar)
                state.seconds += time.monotonic() - begun
                if last or stopped or state.step % config.save_every == 0:
                    self._save()
                if stopped and not last:
                    if bar:
                        bar.say(f"stopped and saved at step {state.step}; --resume goes on from here")
                    raise KeyboardInterrupt

    def _step(self, batches: Iterator[Any], *, stop: bool) -> tuple[dict[str, float], bool]:
        """One update. Returns the line for the log, and whether any process was told to stop."""
        config, state, processes = self.config, self.state, self.processes
        self.wrapped.train()
        rate = factor(config.optimizer, state.step, config.steps)
        set_rate(state.optimizer, config.optimizer.lr * rate)
        state.optimizer.zero_grad(set_to_none=True)
        total, sums = 0.0, dict[str, float]()
        for index in range(config.accumulation):
            seed_all(config.seed, state.position)
            try:
                batch = next(batches)
            except StopIteration:
                raise TrainError(
                    f"{config.name}: the task's batches ended at {state.position}; they must go on for ever"
                ) from None
            state.position += 1
            if index % processes.count != processes.rank:
                continue
            more = index + processes.count < config.accumulation
            with processes.no_sync(self.wrapped) if more else nullcontext():
                values, weight = self._backward(batch)
            total += weight
            for key, value in values.items():
                sums[key] = sums.get(key, 0.0) + value * weight
        summed = processes.sum(torch.tensor([total, float(stop), *sums.values()], dtype=torch.float64)).tolist()
        total, stopped = summed[0], summed[1] > 0
        means = {key: value / total for key, value in zip(sums, summed[2:], strict=True)}
        if not math.isfinite(means["loss"]):
            raise self._not_a_number("loss", means["loss"])
        # DDP and FSDP give the mean over the processes of the weighted sums; a big batch has the sum over the weight.
        norm = scale_and_clip(state.module, scale=processes.count / total, clip=config.optimizer.clip)
        if not math.isfinite(norm):
            raise self._not_a_number("gradient", norm)
        state.optimizer.step()
        state.step += 1
        if state.ema is not None:
            state.ema.update(state.step)
        line = {"step": state.step, **means, "lr": config.optimizer.lr * rate, "norm": norm, "seconds": state.seconds}
        return line, stopped

    def _backward(self, batch: Any) -> tuple[dict[str, float], float]:
        """Adds one micro-batch's gradient, times its weight. Returns its numbers and its weight."""
        batch = to_device(batch() if callable(batch) else batch, self.processes.device)
        with self._autocast():
            loss, metrics = self.wrapped(batch)
        metrics = {key: float(value) for key, value in metrics.items()}
        weight = metrics.pop("weight", 1.0)
        if not weight > 0:
            raise TrainError(f"{self.config.name}: the task gave a batch of weight {weight}; it must be above 0")
        (loss.float() * weight).backward()
        return {"loss": float(loss.detach()), **metrics}, weight

    def _autocast(self) -> torch.autocast:
        device = self.processes.device.type
        half = self.config.precision == "bf16" or (self.config.precision == "auto" and multiplies_bf16(device))
        return torch.autocast(device, dtype=torch.bfloat16, enabled=half)

    def _not_a_number(self, what: str, value: float) -> TrainError:
        config, state = self.config, self.state
        first = state.position - config.accumulation
        saved = f"the newest checkpoint is of step {self.saved}" if self.saved >= 0 else "nothing is saved yet"
        return TrainError(
            f"{config.name}: the {what} of step {state.step + 1} is {value} (micro-batches {first} to "
            f"{state.position - 1} of seed {config.seed}); {saved}. Lower optimizer.lr, use precision=fp32, or look at "
            "these batches."
        )

    def _evaluate(self, log: Log | None, bar: Bar | None) -> None:
        config, state = self.config, self.state
        self.wrapped.eval()
        with state.ema.applied() if state.ema else nullcontext():
            with torch.no_grad(), self._autocast():
                values = {key: float(value) for key, value in self.wrapped(evaluate=True).items()}
            self.processes.settle(self.wrapped)
            state.evaluation = values
            if log and bar:
                log.write({"step": state.step, "evaluation": values})
                bar.evaluation(state.step, values)
            if config.best_metric and self._is_best(values):
                state.best = Best(state.step, values[config.best_metric], values)
                saved = weights(state.module)
                if self.processes.main:
                    save_weights(self.folder / "best.safetensors", saved, {"step": str(state.step)})
        self.wrapped.train()

    def _is_best(self, values: dict[str, float]) -> bool:
        name, best = self.config.best_metric, self.state.best
        if name not in values:
            raise TrainError(
                f"{self.config.name}: best_metric is {name!r}, but the task evaluates {', '.join(values) or 'nothing'}"
            )
        better = values[name] < best.value if self.config.best_is == "min" else values[name] > best.value
        return math.isfinite(values[name]) and (best.step < 0 or better)

    def _save(self) -> None:
        folder, state = self.folder / "checkpoints", self.state
        state.peak_memory = max(state.peak_memory, peak_memory())
        config = configs.to_dict(self.config)
        state.save(checkpoint_path(folder, state.step), config=config, main=self.processes.main)
        self.saved = state.step
        if self.processes.main:
            for old in checkpoints(folder)[: -self.config.keep]:
                old.unlink()
        self.processes.wait()

    def _export(self) -> Result:
        """Puts the chosen weights into the module and has the task write them."""
        config, state = self.config, self.state
        best = config.best_metric and state.best.step >= 0
        step, evaluation = (state.best.step, state.best.evaluation) if best else (state.step, state.evaluation)
        with state.ema.applied() if state.ema else nullcontext():
            chosen = weights(state.module)
        if best:
            chosen = load_weights(self.folder / "best.safetensors")
        result = Result(
            name=config.name,
            folder=str(self.folder),
            steps=state.step,
            seconds=round(state.seconds, 3),
            peak_memory=max(state.peak_memory, peak_memory()),
            exported_step=step,
            evaluation=evaluation,
            machine=machine(),
            date=time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC",
            processes=self.processes.count,
        )
        if self.processes.main:
            module = state.module
            if self.processes.shard:  # the other processes hold parts of it: make a whole one here
                seed_all(config.seed, 0)
                module = self.task.build()
                module.load_state_dict(chosen, strict=False)
            else:
                put(module, chosen)
            module.eval()
            result.export.mkdir(parents=True, exist_ok=True)
            with torch.no_grad():
                self.task.export(module, result.export)
            configs.save(result, self.folder / "result.json")
        self.processes.wait()
        return result

    def _check_same(self, saved: dict[str, Any]) -> None:
        now = report.flat(configs.to_dict(self.config))
        before = report.flat(saved)
        odd = [
            f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
            for key in sorted(now.keys() | before.keys())
            if now.get(key) != before.get(key) and key.split(".")[0] not in MAY_CHANGE
        ]
        if odd:
            raise TrainError(
                f"{self.folder}: the run was begun with other settings: {'; '.join(odd)}. "
                "Use those again, or begin a new run with another --out."
            )

    def _write_config(self) -> None:
        if self.processes.main:
            self.folder.mkdir(parents=True, exist_ok=True)
            configs.save(self.config, self.folder / "config.json")
        self.processes.wait()


def _inner(module: nn.Module) -> nn.Module:
    """The task's module inside `_Step` and DDP."""
    while not isinstance(module, _Step):
        module = module.module  # type: ignore[assignment]
    return module.module
