"""The folders of Full-Duplex-Bench as they are published: v1_0 (Lin et al. 2025, arXiv:2503.04721), v1_5 (2507.23159).

ROOT/v1_0/candor_pause_handling/ID/       input.wav  pause.json  transcription.json
ROOT/v1_0/synthetic_pause_handling/ID/    the same
ROOT/v1_0/candor_turn_taking/ID/          input.wav  turn_taking.json  transcription.json
ROOT/v1_0/icc_backchannel/ID/             input.wav  transcription.json
ROOT/v1_0/synthetic_user_interruption/ID/ input.wav  interrupt.json  context.wav
ROOT/v1_5/{user_interruption,user_backchannel,talking_to_other,background_speech}/ID/  input.wav  metadata.json
ROOT/icc_gt_distribution.json             of the benchmark's program: when listeners give a sign, by ID
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import soundfile

from duologue.data.dialogue.floor import Span
from duologue.errors import DataError
from duologue.eval.duplex_cases import INTERRUPTION, PAUSE, TELLING, TURN, Case

FOLDERS = {
    "v1_0/candor_pause_handling": PAUSE,
    "v1_0/synthetic_pause_handling": PAUSE,
    "v1_0/icc_backchannel": TELLING,
    "v1_0/candor_turn_taking": TURN,
    "v1_0/synthetic_user_interruption": INTERRUPTION,
    "v1_5/user_interruption": INTERRUPTION,
    "v1_5/user_backchannel": INTERRUPTION,
    "v1_5/talking_to_other": INTERRUPTION,
    "v1_5/background_speech": INTERRUPTION,
}
EXPECTED = "icc_gt_distribution.json"


def read_official(root: Path, folder: str) -> list[Case]:
    """The cases of one of `FOLDERS`, in the order of their numbers.

    Raises:
        DataError: an unknown folder, none there, no sample in it, or one that is not as published.
    """
    if folder not in FOLDERS:
        raise DataError(f"Full-Duplex-Bench has no folder {folder!r}; known are {', '.join(FOLDERS)}")
    path = Path(root) / folder
    samples = [each for each in path.iterdir() if each.is_dir()] if path.is_dir() else []
    samples.sort(key=lambda each: (not each.name.isdigit(), int(each.name) if each.name.isdigit() else 0, each.name))
    if not samples:
        raise DataError(f"{path}: there are no samples; docs/evaluation.md says where they come from")
    expected = _json(Path(root) / EXPECTED) if (Path(root) / EXPECTED).is_file() else {}
    return [_read(each, FOLDERS[folder], folder, expected) for each in samples]


def _read(sample: Path, kind: str, folder: str, expected: Any) -> Case:
    path = sample / "input.wav"
    try:
        seconds = float(soundfile.info(path).duration)
    except (OSError, soundfile.LibsndfileError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    said: list[tuple[str, float, float]] = []
    marked: tuple[Span, ...] = ()
    end = seconds
    if kind == PAUSE:
        marked = tuple(_span(row, sample / "pause.json") for row in _rows(sample / "pause.json"))
    elif kind == TURN:
        end = _span(_rows(sample / "turn_taking.json")[0], sample / "turn_taking.json")[0]
        marked = ((end, end),)
    elif kind == INTERRUPTION:
        span, context, text = _interruption(sample)
        before = sample / "context.wav"
        if before.is_file():
            said.append((context, 0.0, float(soundfile.info(before).duration)))
        said.append((text, *span))
        marked, end = (span,), span[1]
    if kind != INTERRUPTION and (sample / "transcription.json").is_file():
        words = _words(_json(sample / "transcription.json"), sample / "transcription.json")
        said = [word for word in words if word[2] <= end + 0.05]  # behind the turn's end others speak
    return Case(
        kind=kind,
        name=f"{folder.rpartition('/')[2]}-{sample.name}",
        voice=folder,
        path=path,
        seconds=seconds,
        end=end,
        said=tuple(said),
        marked=marked,
        expected=tuple(expected.get(sample.name, ())) if kind == TELLING else (),
    )


def _interruption(sample: Path) -> tuple[Span, str, str]:
    """When the user interrupts, what was said before and what then."""
    path = sample / "interrupt.json"
    if path.is_file():
        row = _rows(path)[0]
        return _span(row, path), str(row.get("context", "")), str(row.get("interrupt", ""))
    path = sample / "metadata.json"
    row = _json(path)
    if not isinstance(row, dict) or "timestamps" not in row:
        raise DataError(f'{path}: need {{"context_text", "current_turn_text", "timestamps": [start, end]}}')
    span = _span({"timestamp": row["timestamps"]}, path)
    return span, str(row.get("context_text", "")), str(row.get("current_turn_text", ""))


def _words(found: Any, path: Path) -> list[tuple[str, float, float]]:
    """Words with their times, of all who speak, in order: a list of speakers' `item`s, of words, or `chunks`."""
    rows = found.get("chunks", []) if isinstance(found, dict) else found
    if not isinstance(rows, list):
        raise DataError(f"{path}: need a list of words with a text and a timestamp")
    flat = [word for row in rows for word in (row["item"] if isinstance(row, dict) and "item" in row else [row])]
    return sorted(((str(word.get("text", "")), *_span(word, path)) for word in flat), key=lambda word: word[1])


def _rows(path: Path) -> list[dict[str, Any]]:
    found = _json(path)
    if not isinstance(found, list) or not found or not all(isinstance(row, dict) for row in found):
        raise DataError(f'{path}: need a list of objects with "timestamp": [start, end]')
    return found


def _span(row: Any, path: Path) -> Span:
    try:
        start, end = row["timestamp"]
        return float(start), float(end if end is not None else start)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f'{path}: need "timestamp": [start, end] in seconds, got {str(row)[:80]}') from error


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error
