"""What a person sees while a run goes on: a live bar on a terminal, else plain lines; and the log of every step."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from duologue.errors import TrainError
from duologue.train.state import write_whole


class Log:
    """One JSON object a line: every step and every evaluation."""

    def __init__(self, path: Path, *, step: int):
        """Opens the log at `step`: what an earlier session wrote beyond it is cut off, for it will be done again."""
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [json.dumps(line) + "\n" for line in read_log(path) if line["step"] <= step]
        write_whole(path, lambda part: part.write_text("".join(kept), encoding="utf-8"))
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise TrainError(f"{self._file.name}: cannot write the log ({error.strerror})") from error

    def close(self) -> None:
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a half-written last line is left out. Empty where there is no file."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


class Bar:
    """Shows where a run stands, on stderr."""

    def __init__(self, name: str, *, step: int, steps: int, every: int):
        """
        Args:
            every: steps between two lines where stderr is not a terminal.
        """
        self.name, self.steps, self.every = name, steps, every
        self._begin_step, self._begin_time = step, time.monotonic()
        console = Console(stderr=True)
        self._live: Progress | None = None
        if console.is_terminal:
            columns = (
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}  {task.fields[now]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._live = Progress(*columns, console=console)
            self._id = self._live.add_task(name, total=steps, completed=step, now="")
            self._live.start()

    def step(self, line: dict[str, Any]) -> None:
        if self._live is not None:
            self._live.update(self._id, completed=line["step"], now=_shown(line))
        elif line["step"] % self.every == 0 or line["step"] == self.steps:
            spent = time.monotonic() - self._begin_time
            left = spent / max(1, line["step"] - self._begin_step) * (self.steps - line["step"])
            self.say(f"{line['step']}/{self.steps}  {_shown(line)}  {span(spent)}, {span(left)} left")

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        self.say(f"evaluation at {step}: {_shown(values)}")

    def say(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(f"{self.name}: {text}", highlight=False)
        else:
            print(f"{self.name}: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()


def _shown(values: dict[str, Any]) -> str:
    return "  ".join(f"{key} {value:.4g}" for key, value in values.items() if key not in ("step", "seconds"))


def span(seconds: float) -> str:
    """A length of time for people: 42 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
