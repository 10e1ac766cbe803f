"""Makes dialogue data from a recipe, step by step and shard by shard.

    synthesise(config, Path("data_out/mini"), text_model=model)

Every step reads the shards of the one before and writes its own, each whole or not at all. A run that was ended
anywhere goes on where it was and gives the same bytes, in one process, in several, or through Ray Data.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from duologue.config import from_dict, save, to_dict
from duologue.data.manifest import (
    SHARDS,
    SPLITS,
    DataCard,
    Turn,
    read_metadata,
    read_rows,
    read_shard,
    shard_name,
    write_card,
    write_shard,
)
from duologue.data.steps import find_step
from duologue.data.steps.base import Place, Step, SynthesisConfig, Tools
from duologue.data.steps.sources import SourceConfig
from duologue.data.steps.texts import SAMPLED, planned_rows
from duologue.data.writers import TextModel
from duologue.errors import DataError

__all__ = ["SourceConfig", "Summary", "SynthesisConfig", "synthesise"]

Progress = Callable[[str, int, int], None]  # step, shards done, shards in all
PACKAGES = ("duologue", "pyarrow", "numpy", "soxr", "soundfile", "hibari-tts", "faster-whisper", "ctranslate2")
STEP_FILE = "step.json"


@dataclass(frozen=True)
class Summary:
    """What a finished run holds."""

    folder: Path
    turns: int
    dropped: dict[str, dict[str, int]]  # step -> reason -> turns


@dataclass(frozen=True)
class Task:
    """One shard of one step."""

    step: str
    source: str  # path of the shard to read
    target: str  # path of the shard to write


def synthesise(
    config: SynthesisConfig,
    out: Path,
    *,
    text_model: TextModel | None = None,
    ray: bool = False,
    progress: bool | Progress = True,
    tools: Tools | None = None,
) -> Summary:
    """Runs a recipe, or what is left of it.

    Args:
        text_model: for the steps that write text; without one only given questions and answers are used.
        ray: run the steps that need no text model through Ray Data; `out` must then be seen by all its machines.
        progress: True for a bar on the terminal, or a function that is told how far each step is.
        tools: ready-made tools for the steps that run in this process.
    Raises:
        ConfigError: an unknown step, or a voice whose program is missing.
        DataError: `out` holds another recipe's data, a source is bad, the disk is full, or nothing is left of the data.
    """
    out = Path(out)
    steps = [(name, find_step(name)) for name in config.steps]
    claim(config, out)
    tools = tools or Tools(config, text_model=text_model)
    folders = [out / "steps" / f"{number:02d}_{name.replace(':', '.')}" for number, name in enumerate(config.steps)]
    folders = [out / "steps" / "plan", *folders[:-1], out / SHARDS]
    with reporting(progress) as report:
        first = _first_unfinished(folders)
        for number in range(first, len(folders)):
            _free(folders[: max(0, number - 1)], config)
            if number == 0:
                _write_whole(folders[0], planned_rows(config), config, {}, 0)
                continue
            name, step = steps[number - 1]
            _run_step(name, step, folders[number - 1 : number + 1], config=config, tools=tools, ray=ray, report=report)
    _free(folders[:-1], config)
    write_card(out, _card(config, out, folders))
    dropped = {name: dict(_notes(folder)[1]) for name, folder in zip(config.steps, folders[1:], strict=True)}
    return Summary(out, sum(1 for _ in read_rows(out, columns=("split",))), dropped)


def claim(config: Any, out: Path) -> None:
    """Notes a recipe, a config with `workers`, in its folder; refuses a folder of another recipe."""
    path, mine = out / "config.json", to_dict(replace(config, workers=1))
    try:
        if not path.exists():
            out.mkdir(parents=True, exist_ok=True)
            unfinished = out / ".config.json"
            save(replace(config, workers=1), unfinished)
            unfinished.replace(path)
            return
        theirs = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read or written ({error}); choose another --out") from error
    differing = sorted(key for key in mine if mine[key] != theirs.get(key))
    if differing:
        raise DataError(
            f"{out} holds data of another recipe (it differs in {', '.join(differing)}); "
            "choose another --out or delete it"
        )


def _first_unfinished(folders: list[Path]) -> int:
    """The step to go on with: behind the last one that is complete."""
    for number in range(len(folders) - 1, -1, -1):
        folder = folders[number]
        if (folder / STEP_FILE).is_file() and len(list(folder.glob("shard-*.parquet"))) == _notes(folder)[0]:
            return number + 1
    return 0


def _notes(folder: Path) -> tuple[int, Counter[str], int]:
    """(shards, dropped by reason, rows in) of a step's folder."""
    try:
        notes = json.loads((folder / STEP_FILE).read_text(encoding="utf-8"))
        dropped, rows = Counter(notes.get("dropped", {})), notes.get("rows", 0)
        for path in [] if "rows" in notes else sorted(folder.glob("shard-*.parquet")):
            found = read_metadata(path)
            dropped.update(json.loads(found.get("dropped", "{}")))
            rows += int(found.get("rows", 0))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: its notes cannot be read ({error}); delete the folder and run again") from error
    return int(notes["shards"]), dropped, rows


def _write_notes(folder: Path, notes: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{STEP_FILE}"
    unfinished.write_text(json.dumps(notes, sort_keys=True), encoding="utf-8")
    unfinished.replace(folder / STEP_FILE)


def _free(folders: list[Path], config: SynthesisConfig) -> None:
    """Frees the room of steps that have been used; their notes, with the sums of their shards, stay for the card."""
    for folder in folders:
        paths = [] if config.keep_steps else list(folder.glob("shard-*.parquet"))
        if paths:
            shards, dropped, rows = _notes(folder)
            _write_notes(folder, {"shards": shards, "dropped": dropped, "rows": rows})
        for path in paths:
            path.unlink()


def _write_whole(folder: Path, rows: list[Turn], config: SynthesisConfig, dropped: dict[str, int], count: int) -> None:
    """Writes rows as even shards; the notes come last and make the folder complete."""
    shutil.rmtree(folder, ignore_errors=True)
    starts = range(0, len(rows), config.shard_rows)
    for number, start in enumerate(starts):
        write_shard(folder / shard_name(number), rows[start : start + config.shard_rows])
    _write_notes(folder, {"shards": len(starts), "dropped": dropped, "rows": count})


def _run_step(
    name: str,
    step: Step,
    folders: list[Path],
    *,
    config: SynthesisConfig,
    tools: Tools,
    ray: bool,
    report: Progress,
) -> None:
    source, target = folders
    inputs = sorted(source.glob("shard-*.parquet"))
    if step.place is Place.WHOLE:
        rows = [row for path in inputs for row in read_shard(path)]
        count = len(rows)
        result = step.run(rows, tools)
        _write_whole(target, result.rows, config, dict(result.dropped), count)
        report(name, len(inputs), len(inputs))
    else:
        if not (target / STEP_FILE).is_file():
            shutil.rmtree(target, ignore_errors=True)
            _write_notes(target, {"shards": len(inputs)})
        tasks = [
            Task(name, str(path), str(target / path.name)) for path in inputs if not (target / path.name).is_file()
        ]
        done = len(inputs) - len(tasks)
        report(name, done, len(inputs))
        for _ in _run_tasks(tasks, step, config=config, tools=tools, ray=ray):
            done += 1
            report(name, done, len(inputs))
    _check_something_left(name, target)


def _check_something_left(name: str, folder: Path) -> None:
    _, dropped, rows = _notes(folder)
    if rows - dropped.total() <= 0:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.most_common(3)) or "there were no rows"
        raise DataError(f"step {name}: nothing is left of {rows} turns ({reasons}); look at the sources and the rules")


def _run_tasks(tasks: list[Task], step: Step, *, config: SynthesisConfig, tools: Tools, ray: bool) -> Iterator[None]:
    if step.place is Place.HERE or (config.workers == 1 and not ray):
        for task in tasks:
            run_task(task, step, tools)
            yield
    elif ray:
        from duologue.data.ray_run import run_with_ray

        yield from run_with_ray(tasks, config)
    else:
        yield from _run_in_processes(tasks, config)


def run_task(task: Task, step: Step, tools: Tools) -> None:
    """One shard through one step; what was dropped is noted in the shard itself."""
    rows = read_shard(Path(task.source))
    count = len(rows)
    result = step.run(rows, tools)
    notes = {"dropped": json.dumps(result.dropped, sort_keys=True), "rows": str(count)}
    write_shard(Path(task.target), result.rows, metadata=notes)


class Worker:
    """Runs tasks in a process of its own; its tools are made once."""

    def __init__(self, config: dict[str, Any]):
        self._tools = Tools(from_dict(SynthesisConfig, config))

    def run(self, task: Task) -> None:
        run_task(task, find_step(task.step), self._tools)


_worker: list[Worker] = []  # of this process, if it is one of the pool's


def _start_worker(config: dict[str, Any]) -> None:
    _worker[:] = [Worker(config)]


def _work(task: Task) -> None:
    _worker[0].run(task)


def _run_in_processes(tasks: list[Task], config: SynthesisConfig) -> Iterator[None]:
    import multiprocessing
    from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed

    spawn = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of the libraries
    workers = min(config.workers, max(len(tasks), 1))
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker, initargs=(to_dict(config),))
    try:
        for future in as_completed([pool.submit(_work, task) for task in tasks]):
            future.result()
            yield
    except BrokenExecutor as error:
        raise DataError(
            "a worker process died, perhaps for want of memory: run again with fewer workers, it goes on from here"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


class reporting:
    """A bar on the terminal, the caller's own function, or nothing."""

    def __init__(self, progress: bool | Progress):
        self._given = progress
        self._bar: Any = None
        self._lines: dict[str, Any] = {}

    def __enter__(self) -> Progress:
        if callable(self._given):
            return self._given
        if not self._given:
            return lambda step, done, total: None
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._bar.start()
        return self._show

    def _show(self, step: str, done: int, total: int) -> None:
        if step not in self._lines:
            self._lines[step] = self._bar.add_task(step, total=total)
        self._bar.update(self._lines[step], completed=done)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _card(config: SynthesisConfig, out: Path, folders: list[Path]) -> DataCard:
    columns = (
        "split",
        "source",
        "question_speaker",
        "answer_speaker",
        "question_seconds",
        "answer_seconds",
        "wer",
        "units",
    )
    turns = list(read_rows(out, columns=columns))
    sources, voices = Counter(row.source for row in turns), Counter(row.question_speaker for row in turns)
    voices += Counter(f"{row.answer_speaker} (answers)" for row in turns if row.answer_speaker)
    licences = {source.name: source.licence for source in config.sources} | {SAMPLED: config.text_model}
    voice_licences = {voice.name: voice.licence for voice in config.voices} | {"teacher (answers)": "Apache-2.0"}
    if config.answer_voice:
        voice_licences[f"{config.answer_voice.name} (answers)"] = config.answer_voice.licence
    splits = {}
    for split in SPLITS:
        own = [row for row in turns if row.split == split]
        hours = [sum(getattr(row, side) for row in own) / 3600 for side in ("question_seconds", "answer_seconds")]
        splits[split] = (len(own), hours[0], hours[1])
    drops = []
    for name, folder in zip(config.steps, folders[1:], strict=True):
        _, dropped, rows = _notes(folder)
        drops += [(name, reason, count, count / max(rows, 1)) for reason, count in sorted(dropped.items())]
    mean_wer = sum(row.wer for row in turns) / max(len(turns), 1)
    return DataCard(
        name=config.name,
        facts={"seed": str(config.seed), "steps": ", ".join(config.steps), "text model": config.text_model or "none"}
        | {package: _version(package) for package in PACKAGES},
        sources=[(name, licences.get(name, ""), count) for name, count in sorted(sources.items())],
        voices=[(name, voice_licences.get(name, ""), count) for name, count in sorted(voices.items()) if name],
        splits=splits,
        drops=drops,
        measures={
            "mean WER of the questions that were kept": f"{mean_wer:.2%}",
            "units": str(sum(len(r.units) for r in turns)),
        },
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
