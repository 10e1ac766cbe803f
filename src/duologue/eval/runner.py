"""Runs tasks one after the other, keeps what each found, and writes the report.

What a task found is kept in results/NAME.json of the report's folder with what it was found with (the model's
fingerprint, quick or not); run again, it is skipped unless that has changed or everything is asked for again.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from duologue.checkpoints import Resolver, resolve_model
from duologue.data.recognisers import WhisperRecogniser
from duologue.data.recordings import Sound, recordings, sounds
from duologue.errors import ConfigError, DataError, DuologueError
from duologue.eval.bench import BENCH
from duologue.eval.bench_moshi import MIMI, MOSHI
from duologue.eval.codec import CODEC
from duologue.eval.context import Context, fingerprint
from duologue.eval.duplex import DUPLEX, DUPLEX_LIVE
from duologue.eval.judges import Dnsmos
from duologue.eval.metrics import Interval
from duologue.eval.remembering import RECALL
from duologue.eval.report import Entry, write_report
from duologue.eval.serving import SERVE
from duologue.eval.tasks import TASKS, Outcome, Task
from duologue.eval.voices import reserved_speakers
from duologue.pipeline import Pipeline

JUDGE = "whisper-base"  # artefact of duologue.checkpoints
EVALUATIONS: dict[str, tuple[Task, ...]] = {
    "mini": (*TASKS, RECALL, *BENCH),
    "bench": BENCH,
    "serve": SERVE,
    "mimi": CODEC,
    "bench-mimi": MIMI,
    "bench-moshi": MOSHI,
    "duplex": DUPLEX,
    "duplex-live": DUPLEX_LIVE,
}


def run(
    name: str = "mini",
    *,
    model: str = "mini",
    out: Path | None = None,
    settings: Sequence[str] = (),
    quick: bool = False,
    only: Sequence[str] | None = None,
    again: bool = False,
    data: Path = Path("recipes/data"),
    cache: Path | None = None,
    threads: int = 2,
    resolver: Resolver | None = None,
    before: Callable[[str], str] | None = None,
) -> Path:
    """Measures a model and writes a report: `duologue eval mini`.

    Args:
        name: which tasks: "mini", all that mini is held to, "bench", those of speed and size, "mimi", a codec's, or
            "duplex", those of a line that never closes ("duplex-live": in real time).
        model: a packaged model or a model folder.
        out: the report's folder; None: docs/reports/MODEL-DATE, or bench-mimi-DATE and bench-moshi-DATE.
        settings: changes to the model's config, such as "omega=20".
        quick: a few items of every task, to see that it works; the numbers mean little.
        only: names of tasks.
        again: run tasks that are kept too.
        data: the folder of the test questions.
        cache: where test sets are kept; None: the user's cache.
        before: answers of the language model before its tuning, for comparison.
    Returns:
        The HTML page.
    Raises:
        ConfigError: no such evaluation, task or setting.
        CheckpointError: the model cannot be loaded.
    """
    if name not in EVALUATIONS:
        raise ConfigError(f"eval {name}: there is no such evaluation; there are: {', '.join(EVALUATIONS)}")
    chosen = choose(EVALUATIONS[name], only)
    changes = parse_settings(settings)
    identity = fingerprint(resolve_model(model)) + "".join(f" {setting}" for setting in settings)
    torch.set_num_threads(threads)
    about = name if name.startswith("bench-") else Path(model).name
    out = Path(out) if out else Path("docs/reports") / f"{about}-{datetime.date.today().isoformat()}"
    find = resolver or Resolver()

    def load(more: Mapping[str, Any]) -> Pipeline:
        return Pipeline.from_pretrained(model, resolver=find, settings={**changes, **more})

    def recogniser(threads: int, beam: int) -> WhisperRecogniser:
        return WhisperRecogniser(find(JUDGE), threads=threads, beam=beam)

    def teacher() -> Callable[[str], tuple[np.ndarray, int]]:
        from duologue.data.teacher import HibariTeacher

        voice = HibariTeacher()
        return lambda text: (voice.speak(text).audio_N, voice.sample_rate)

    context = Context(
        name=model,
        model=identity,
        out=out,
        cache=Path(cache) if cache else Path.home() / ".cache" / "duologue" / "testsets",
        data=Path(data),
        load=load,
        open_judge=lambda: recogniser(threads, 5),
        open_quality=lambda: Dnsmos(threads=threads),
        open_teacher=teacher,
        open_fast=lambda: recogniser(threads, 1),
        speakers=reserved_speakers,
        real_speech=lambda: recordings("test"),
        real_sounds=_real_sounds,
        quick=quick,
        threads=threads,
        before=before,
    )
    title = command(name, model=model, settings=settings, quick=quick, only=only)
    return run_tasks(context, chosen, again=again, title=title)


def command(
    name: str, *, model: str = "mini", settings: Sequence[str] = (), quick: bool = False, only: Sequence[str] | None
) -> str:
    """What is typed for these numbers, wherever the model and the report lie."""
    evaluations = {each: ["eval", each] for each in ("mini", "mimi", "duplex", "duplex-live")}
    words = {**evaluations, "bench": ["bench"]}.get(name, ["bench", name.removeprefix("bench-")])
    named = Path(model).name
    words += ["--model", named] if named != "mini" else []
    words += [word for setting in settings for word in ("--set", setting)]
    words += ["--quick"] if quick else []
    words += [word for task in only or () for word in ("--only", task)]
    return shlex.join(["duologue", *words])


def _real_sounds() -> list[Sound]:
    try:
        return sounds("test")
    except DataError as error:  # the clips are then all made; the report tells their sources
        logging.getLogger(__name__).warning("no recorded sounds are tested: %s", error)
        return []


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """`a.b=c` to a dict; values are JSON where they parse as such.

    Raises:
        ConfigError: a setting without '='.
    """
    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: need key=value, for example omega=20")
        try:
            found[key.strip()] = json.loads(text)
        except ValueError:
            found[key.strip()] = text
    return found


def choose(tasks: Sequence[Task], only: Sequence[str] | None) -> list[Task]:
    """The tasks of these names, in the usual order.

    Raises:
        ConfigError: there is no such task.
    """
    names = [task.name for task in tasks]
    for name in only or ():
        if name not in names:
            raise ConfigError(f"--only {name}: there is no such task; the tasks are {', '.join(names)}")
    return [task for task in tasks if only is None or task.name in only]


def run_tasks(context: Context, tasks: Sequence[Task], *, again: bool = False, title: str = "duologue eval") -> Path:
    """Runs what is not kept yet, then writes the report of everything that the folder holds.

    A task that fails with one of our own errors is told and reported as failed; the others go on.
    """
    results = context.out / "results"
    results.mkdir(parents=True, exist_ok=True)
    with _Progress() as show:
        for task in tasks:
            path = results / f"{task.name}.json"
            if not again and _kept(path, context):
                show.say(f"{task.name}: kept from before")
                continue
            context.tell = show.start(task.name)
            _write(path, _run_one(context, task))
            show.say(summary(task, json.loads(path.read_text(encoding="utf-8"))))
    return write_report(
        context.out,
        entries(context, (*EVALUATIONS["mini"], *SERVE, *CODEC, *DUPLEX, *DUPLEX_LIVE, *MIMI, *MOSHI)),
        title=title,
        machine=machine(context),
    )


def _run_one(context: Context, task: Task) -> dict[str, Any]:
    start = time.perf_counter()
    found: dict[str, Any] = {"model": context.model, "quick": context.quick, "date": _now()}
    try:
        outcome: Outcome = task.run(context)
    except DuologueError as error:
        return {**found, "error": str(error)}
    values = {key: asdict(value) for key, value in outcome.values.items()}
    seconds = round(time.perf_counter() - start, 1)
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {
        **found,
        "seconds": seconds,
        "load_average": load,
        "count": outcome.count,
        "values": values,
        "details": outcome.details,
    }


def _kept(path: Path, context: Context) -> bool:
    if not path.is_file():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))
    return "error" not in found and found["model"] == context.model and found["quick"] == context.quick


def _write(path: Path, found: dict[str, Any]) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(found, indent=1), encoding="utf-8")
    partial.replace(path)


def entries(context: Context, tasks: Sequence[Task]) -> list[Entry]:
    """The results that the folder holds of this model, in the order of the tasks."""
    found = []
    for task in tasks:
        path = context.out / "results" / f"{task.name}.json"
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["model"] == context.model:
                found.append(Entry(task=task, found=kept))
    return found


def summary(task: Task, found: Mapping[str, Any]) -> str:
    """One line for the terminal."""
    if "error" in found:
        return f"{task.name}: failed: {found['error']}"
    values = [f"{key} {Interval(**value).value:.4g}" for key, value in found["values"].items()]
    return f"{task.name}: {', '.join(values) or 'done'} ({found['count']} items, {found['seconds']} s)"


def machine(context: Context) -> dict[str, str]:
    """What the numbers were taken on."""
    return {
        "model": f"{_last(context.name)} ({context.model})",
        "date": _now(),
        "processor": _processor(),
        "cores": f"{os.cpu_count()}, {context.threads} threads used",
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": ", ".join(f"{package} {_version(package)}" for package in ("duologue", "torch", "faster-whisper")),
        "command": shlex.join(["duologue", *typed(sys.argv[1:])]),
        "quick": "yes: a few items only, the numbers mean little" if context.quick else "no",
    }


def typed(words: Sequence[str]) -> list[str]:
    """What was typed, without where the report goes and where on this machine other files lie."""
    kept, skip = [], False
    for word in words:
        if not skip and word not in ("--out", "-o") and not word.startswith("--out="):
            option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
            kept.append(option + equals + _last(value))
        skip = not skip and word in ("--out", "-o")
    return kept


def _last(path: str) -> str:
    """The last part of a path of this machine; anything else as it is."""
    return Path(path).name if Path(path).is_absolute() else path


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory() -> str:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    return "unknown"


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


class _Progress:
    """One bar of the present task, and lines of what is done above it; without a terminal, a line a tenth of a task."""

    def __enter__(self) -> _Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bars = Progress(*columns, transient=True)
        self.bars.start()
        self.bar: Any = None
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def start(self, name: str) -> Callable[[int, int], None]:
        if self.bar is not None:
            self.bars.remove_task(self.bar)
        self.bar = bar = self.bars.add_task(name, total=None)
        told = -1

        def tell(done: int, count: int) -> None:
            nonlocal told
            self.bars.update(bar, completed=done, total=count)
            tenth = 10 * done // max(1, count)
            if tenth != told and not self.bars.console.is_terminal:
                told = tenth
                self.say(f"{name}: {done}/{count}")

        return tell

    def say(self, line: str) -> None:
        self.bars.console.print(line, markup=False, highlight=False)
