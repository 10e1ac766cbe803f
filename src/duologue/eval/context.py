"""What every task of an evaluation is given: the pipeline, the judges, the test sets, where to keep what it made."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from duologue.data.recognisers import Recogniser
from duologue.data.recordings import Recording, Sound
from duologue.data.speakers import Speaker
from duologue.errors import PartError
from duologue.eval import testsets
from duologue.eval.judges import Quality
from duologue.eval.testsets import Clip
from duologue.pipeline import Done, Heard, Metrics, Pipeline

QUICK = 8  # items of a task in a quick run
WARM_UP = 2  # questions asked before anything is timed
OMEGA_OFFLINE = 1_000_000  # units: more than any answer has

Load = Callable[[Mapping[str, Any]], Pipeline]
Voice = Callable[[str], tuple[np.ndarray, int]]


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """One answer with its sound on disk."""

    question: str
    transcript: str
    text: str
    path: Path  # empty audio: no such file
    metrics: dict[str, Any]

    @property
    def audio(self) -> tuple[np.ndarray, int]:
        """Its samples in [-1, 1] and their rate in Hz."""
        if not self.path.is_file():
            return np.zeros(0, np.float32), 24_000
        audio, rate = soundfile.read(self.path, dtype="float32")
        return audio, rate


@dataclass(kw_only=True)
class Context:
    """One evaluation.

    Args:
        load: the model with changes to its config ({} for as it is).
        open_judge, open_quality, open_teacher, open_fast: make the judges, the teacher's voice and the cascade's
            recogniser when a task first asks for them.
        before: answers of the language model before tuning, where there is such a thing.
        tell: called with a task's progress: items done, items in all.
    """

    name: str
    model: str  # which weights: results of others are not mixed in
    out: Path
    cache: Path
    data: Path
    load: Load
    open_judge: Callable[[], Recogniser]
    open_quality: Callable[[], Quality]
    open_teacher: Callable[[], Voice]
    open_fast: Callable[[], Recogniser]
    speakers: Callable[[], Sequence[Speaker]]
    real_speech: Callable[[], Sequence[Recording]]  # people that no training heard
    real_sounds: Callable[[], Sequence[Sound]]  # recorded sounds that no training heard; may be none
    quick: bool = False
    threads: int = 2
    before: Callable[[str], str] | None = None
    open_units: Callable[[], Callable[[str], list[int]]] | None = None  # text to the vocoder's units
    tell: Callable[[int, int], None] = lambda done, count: None
    _pipes: dict[str, Pipeline] = field(default_factory=dict)

    @functools.cached_property
    def judge(self) -> Recogniser:
        return self.open_judge()

    @functools.cached_property
    def quality(self) -> Quality:
        return self.open_quality()

    @functools.cached_property
    def teacher(self) -> Voice:
        return self.open_teacher()

    @functools.cached_property
    def fast(self) -> Recogniser:
        return self.open_fast()

    def pipe(self, **settings: Any) -> Pipeline:
        """The model with some settings, loaded once; only one variant is kept, so that memory stays bounded."""
        key = json.dumps(settings, sort_keys=True)
        if key not in self._pipes:
            self._pipes.clear()
            self._pipes[key] = self.load(settings)
        return self._pipes[key]

    def drop_pipes(self) -> None:
        """Gives back the memory of the loaded model."""
        self._pipes.clear()

    def count(self, full: int) -> int:
        """How many items a task takes."""
        return min(full, QUICK) if self.quick else full

    def each(self, items: Sequence[Any]) -> Iterator[Any]:
        """The items, telling the progress."""
        for done, item in enumerate(items):
            self.tell(done, len(items))
            yield item
        self.tell(len(items), len(items))

    # Test sets

    def questions(self, full: int) -> list[str]:
        """Held-out questions, the first of the file."""
        rows = testsets.read_lines(self.data / "heldout_questions.jsonl", "question")
        return [str(row["question"]) for row in rows[: self.count(full)]]

    def clean(self, full: int) -> list[Clip]:
        """Held-out questions by unseen voices, undisturbed."""
        questions = self.questions(full)
        return testsets.synthetic(
            questions, self.speakers(), cache=self.cache, conditions=["clean"], progress=self.tell
        )

    def disturbed(self, full: int) -> list[Clip]:
        """The same by unseen voices through unseen rooms, crowds and lines."""
        return testsets.synthetic(self.questions(full), self.speakers(), cache=self.cache, progress=self.tell)

    def noisy(self, full: int, *, db: float) -> list[Clip]:
        """The clean ones with noise `db` decibels below them."""
        return testsets.in_noise(self.clean(full), cache=self.cache, db=db, progress=self.tell)

    # What the model does

    def spoken(self, full: int, *, tag: str = "default", **settings: Any) -> list[Spoken]:
        """Answers to the first clean questions, asked one after the other; kept on disk and read back after that."""
        clips = self.clean(full)
        folder = self.out / "answers" / tag
        index = folder / "index.json"
        key: list[Any] = [self.model, *([clip.path.parent.name, clip.path.name] for clip in clips)]
        if index.is_file():
            kept = json.loads(index.read_text(encoding="utf-8"))
            if kept["key"] == key and kept["settings"] == settings:
                return [Spoken(**{**row, "path": folder / row["path"]}) for row in kept["answers"]]
        folder.mkdir(parents=True, exist_ok=True)
        pipe = self.pipe(**settings)
        for clip in clips[:WARM_UP]:
            pipe(clip.path)
        rows = []
        for number, clip in enumerate(self.each(clips)):
            answer = pipe(clip.path)
            name = f"{number:04d}.flac"
            if len(answer.audio):
                soundfile.write(folder / name, np.clip(answer.audio, -1, 1), answer.sample_rate, subtype="PCM_16")
            rows.append(
                {
                    "question": clip.text,
                    "transcript": answer.transcript,
                    "text": answer.text,
                    "path": name,
                    "metrics": answer.metrics.as_dict(),
                }
            )
        index.write_text(json.dumps({"key": key, "settings": settings, "answers": rows}, indent=1), encoding="utf-8")
        return [Spoken(**{**row, "path": folder / str(row["path"])}) for row in rows]


def heard(pipe: Pipeline, path: Path) -> str:
    """What the model understands of a recording; it is stopped before it answers."""
    events = pipe.stream(path)
    for event in events:
        if isinstance(event, Heard) and event.final:
            return event.text
    return ""


def answered(pipe: Pipeline, path: Path) -> Metrics:
    """One turn's metrics: transcript and text among them."""
    for event in pipe.stream(path):
        if isinstance(event, Done):
            return event.metrics
    raise PartError("the pipeline ended without a Done event")


def answer_text(pipe: Pipeline, question: str) -> str:
    """The same language model's greedy answer to the true text.

    Raises:
        PartError: this model cannot be asked in text.
    """
    return str(_method(pipe, "answer_text")(question))


def stream_text(pipe: Pipeline, question: str) -> Iterator[str]:
    """The same as it is decoded, piece by piece.

    Raises:
        PartError: this model cannot be asked in text.
    """
    return _method(pipe, "stream_text")(question)


def _method(pipe: Pipeline, name: str) -> Callable[[str], Any]:
    for owner in (pipe, pipe.model):
        if callable(found := getattr(owner, name, None)):
            return found
    raise PartError(f"{type(pipe.model).__name__} has no {name}(question): it cannot be asked in text")


def first_sentence(pieces: Iterator[str]) -> str:
    """Takes text until a sentence is whole, or all of it."""
    text = ""
    for piece in pieces:
        text += piece
        if (end := re.search(r"[.!?][\"')\]]*\s", text)) is not None:
            return text[: end.end()].strip()
    return text.strip()


def fingerprint(folder: Path) -> str:
    """Which weights and config a model folder holds, from its config.json (which carries their hashes)."""
    config = Path(folder) / "config.json"
    return hashlib.sha256(config.read_bytes()).hexdigest()[:12] if config.is_file() else "none"


def milliseconds_since(start: float) -> float:
    """Wall-clock milliseconds since a `time.perf_counter()` moment."""
    return (time.perf_counter() - start) * 1000
