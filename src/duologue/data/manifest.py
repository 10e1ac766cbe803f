"""The manifest of training data: dialogue turns in Parquet shards, and the card that says what they are.

A data folder holds `shards/shard-00000.parquet` and on, a README.md (the card) and config.json (the recipe, resolved).
Shards are written whole or not at all. What is written follows from the rows alone, byte for byte.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from duologue.errors import DataError

SPLITS = ("train", "dev", "test")
SHARDS = "shards"
QUESTION_RATE, ANSWER_RATE = 16_000, 24_000  # Hz of the audio columns
PROSODY = 3  # numbers a unit: log duration, log f0, energy


@dataclass(kw_only=True)
class Turn:
    """One question and its answer. What a step has not made yet is empty."""

    id: str
    split: str = "train"  # train | dev | test
    source: str = ""
    question: str = ""  # as written
    question_spoken: str = ""  # as said: fillers, numbers in words
    answer: str = ""
    question_audio: bytes = b""  # FLAC, 16 kHz mono
    question_seconds: float = 0.0
    question_speaker: str = ""
    augmentation: str = ""  # JSON of audio_augment.Augmentation
    answer_audio: bytes = b""  # FLAC, 24 kHz mono; may be empty
    answer_seconds: float = 0.0
    answer_speaker: str = ""
    transcript: str = ""  # what the recogniser heard of the question
    wer: float = 0.0  # of the transcript; 0.1 is one word in ten
    units: list[int] = field(default_factory=list)
    unit_prosody: list[float] = field(default_factory=list)  # 3 a unit, flat
    seed: int = 0

    def prosody(self) -> np.ndarray:
        """The prosody of the units, [U, 3] in float32."""
        return np.asarray(self.unit_prosody, np.float32).reshape(-1, PROSODY)


COLUMNS = tuple(column.name for column in dataclasses.fields(Turn))


def arrow() -> Any:
    """pyarrow, or one clear line.

    Raises:
        DataError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"Parquet shards need pyarrow ({error}): pip install duologue[train]") from error
    return pyarrow


def schema() -> Any:
    """The columns of a shard."""
    pa = arrow()
    kinds: dict[str, Any] = {
        "bytes": pa.binary(),
        "str": pa.string(),
        "float": pa.float32(),
        "int": pa.int64(),
        "list[int]": pa.list_(pa.int16()),
        "list[float]": pa.list_(pa.float32()),
    }
    return pa.schema([(column.name, kinds[str(column.type)]) for column in dataclasses.fields(Turn)])


def write_shard(path: Path, rows: Sequence[Turn], *, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a shard: to a file beside it first, then into its place, so that half a shard is never seen.

    Raises:
        DataError: it cannot be written.
    """
    table = arrow().table({name: [getattr(row, name) for row in rows] for name in COLUMNS}, schema=schema())
    write_table(path, table.replace_schema_metadata(dict(sorted((metadata or {}).items()))))


def write_table(path: Path, table: Any) -> None:
    """Writes an Arrow table as a shard, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        arrow().parquet.write_table(table, unfinished, compression="zstd", row_group_size=64)
        os.replace(unfinished, path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot write the shard ({error.strerror or error}); free some space and go on"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def read_shard(path: Path, *, columns: Sequence[str] | None = None) -> list[Turn]:
    """The rows of one shard; columns that are not asked for stay empty.

    Raises:
        DataError: missing, damaged, or not a manifest.
    """
    wanted = None if columns is None else sorted({"id", *columns}, key=COLUMNS.index)
    table = read_table(path, columns=wanted)
    unknown, lacking = set(table.column_names) - set(COLUMNS), set(wanted or COLUMNS) - set(table.column_names)
    if unknown or lacking:
        raise DataError(
            f"{path}: not a manifest of dialogue turns (unknown columns {sorted(unknown)}, without {sorted(lacking)})"
        )
    return [Turn(**row) for row in table.to_pylist()]


def read_table(path: Path, *, columns: Sequence[str] | None = None) -> Any:
    """A shard as an Arrow table, of whatever manifest; columns that it does not have are left out.

    Raises:
        DataError: missing or damaged.
    """
    pa = arrow()
    try:
        return pa.parquet.ParquetFile(path).read(columns=columns)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such shard") from error
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: not a readable Parquet shard ({error}); delete it and run the recipe again"
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """What was noted in a shard when it was written."""
    found = arrow().parquet.read_schema(path).metadata or {}
    return {key.decode(): value.decode() for key, value in found.items()}


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a data folder (or of a folder of shards), in order.

    Raises:
        DataError: there are none.
    """
    folder = Path(folder)
    inner = folder / SHARDS if (folder / SHARDS).is_dir() else folder
    paths = sorted(inner.glob("shard-*.parquet")) if inner.is_dir() else []
    if not paths:
        raise DataError(f"{folder}: no shards here; make some with: duologue data synth RECIPE --out {folder}")
    return paths


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.parquet"


def read_rows(folder: Path, *, split: str | None = None, columns: Sequence[str] | None = None) -> Iterator[Turn]:
    """Every row of a data folder in order, one shard in memory at a time.

    Raises:
        DataError: no shards, a damaged one, or an unknown split.
    """
    if split is not None and split not in SPLITS:
        raise DataError(f"split {split!r} is unknown; there are: {', '.join(SPLITS)}")
    wanted = None if columns is None else [*columns, "split"]
    for path in shard_paths(folder):
        for row in read_shard(path, columns=wanted):
            if split is None or row.split == split:
                yield row


def encode_flac(audio: np.ndarray, rate: int) -> bytes:
    """Mono samples in [-1, 1] as 16-bit FLAC."""
    import soundfile

    target = io.BytesIO()
    soundfile.write(target, np.clip(audio, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return target.getvalue()


def decode_flac(data: bytes, rate: int) -> np.ndarray:
    """Mono float32 of an audio column.

    Args:
        rate: the Hz that the column has.
    Raises:
        DataError: empty, damaged, or of another rate.
    """
    import soundfile

    if not data:
        raise DataError("this row has no audio; make the data with the steps 'speech' and 'units'")
    try:
        audio, found = soundfile.read(io.BytesIO(data), dtype="float32")
    except RuntimeError as error:
        raise DataError(f"the audio of a row cannot be decoded ({error}); make its shard again") from error
    if found != rate or audio.ndim != 1:
        raise DataError(f"audio of a row: need mono at {rate} Hz, got {audio.ndim} axes at {found} Hz")
    return audio


@dataclass(kw_only=True)
class DataCard:
    """What the README of a data folder says."""

    name: str
    facts: dict[str, str]  # seed, versions and the like
    sources: list[tuple[str, str, int]]  # name, licence, turns kept
    voices: list[tuple[str, str, int]]  # name, licence, turns kept
    splits: dict[str, tuple[int, float, float]]  # turns, hours of questions, hours of answers
    drops: list[tuple[str, str, int, float]]  # step, reason, turns, share of what the step got
    measures: dict[str, str]


def write_card(folder: Path, card: DataCard) -> Path:
    """Writes README.md into a data folder, whole or not at all."""
    lines = [f"# Data: {card.name}", ""]
    lines += markdown_table(("split", "turns", "question hours", "answer hours"), _splits(card))
    lines += ["## Sources", "", *markdown_table(("source", "licence", "turns"), card.sources)]
    lines += ["## Voices", "", *markdown_table(("voice", "licence", "turns"), card.voices)]
    drops = [(step, reason, count, f"{share:.1%}") for step, reason, count, share in card.drops]
    lines += ["## Left out", "", *markdown_table(("step", "why", "turns", "of the step's input"), drops)]
    lines += ["## Measures", "", *markdown_table(("measure", "value"), card.measures.items())]
    lines += ["## How it was made", "", *markdown_table(("what", "value"), card.facts.items())]
    lines += ["The recipe, resolved, is in config.json. The same recipe and versions give the same bytes.", ""]
    return write_text(folder / "README.md", "\n".join(lines))


def write_text(path: Path, text: str) -> Path:
    """Writes a text file, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}); free some space and go on") from error
    return path


def _splits(card: DataCard) -> list[tuple[str, int, str, str]]:
    return [(name, turns, f"{asked:.2f}", f"{told:.2f}") for name, (turns, asked, told) in card.splits.items()]


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table, and an empty one."""
    body = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *body, ""] if body else ["none", ""]
