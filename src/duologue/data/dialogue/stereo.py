"""The layout of moshi-finetune: stereo WAV files, an alignment beside each, and a list of them.

left: the assistant; right: the user. NAME.json: {"alignments": [[word, [start, end], speaker], ...]}, in seconds.
The list, one JSON object a line: {"path": ..., "duration": ...}, paths from the list's own folder or absolute.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from duologue.data.dialogue.clips import RATE
from duologue.data.dialogue.manifest import Conversation, alignments, encode_stereo
from duologue.data.dialogue.texts import ASSISTANT, USER
from duologue.data.manifest import SPLITS, write_text
from duologue.errors import DataError

MAIN = "SPEAKER_MAIN"


def write_stereo(folder: Path, row: Conversation) -> dict[str, Any]:
    """Writes NAME.wav and NAME.json of one conversation into `folder`/SPLIT, and gives its line of the list.

    Raises:
        DataError: they cannot be written.
    """
    import soundfile

    path = folder / row.split / f"{row.id}.wav"
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(unfinished, row.sound().T, RATE, format="WAV", subtype="PCM_16")
        os.replace(unfinished, path)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: cannot be written ({error}); free some space and go on") from error
    write_text(path.with_suffix(".json"), json.dumps({"alignments": alignments(row, label=MAIN)}))
    return {"path": f"{row.split}/{path.name}", "duration": round(row.seconds, 4)}


def write_lists(folder: Path, lines: list[dict[str, Any]]) -> None:
    """Writes train.jsonl, dev.jsonl and test.jsonl, of the splits that hold something."""
    for split in SPLITS:
        own = [json.dumps(line) for line in lines if line["path"].startswith(f"{split}/")]
        if own:
            write_text(folder / f"{split}.jsonl", "\n".join(own) + "\n")


def is_stereo_list(path: Path) -> bool:
    """Whether a JSONL file is a list of this layout."""
    try:
        with open(path, encoding="utf-8") as file:
            row = json.loads(next((line for line in file if line.strip()), "{}"))
    except (OSError, ValueError):
        return False
    return isinstance(row, dict) and "path" in row and "duration" in row


def read_stereo(path: Path, *, start: int = 0, stop: int | None = None) -> Iterator[Conversation]:
    """The conversations of a list, resampled to 24 kHz. Their split is the list's name, if that is one.

    Words of any speaker but SPEAKER_MAIN are the user's. Nothing is known of how they were drawn.

    Args:
        start, stop: which of them, counted from 0.
    Raises:
        DataError: a line, a file or an alignment that is missing or malformed.
    """
    split = path.stem if path.stem in SPLITS else "train"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    for number, line in numbered[start:stop]:
        yield _read_one(path, line, where=f"{path}: line {number}", split=split)


def _read_one(path: Path, line: str, *, where: str, split: str) -> Conversation:
    try:
        sound = path.parent / json.loads(line)["path"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f'{where}: need {{"path": ..., "duration": ...}}, got {line[:60]!r}') from error
    audio_CN = _read_sound(sound)
    words = _read_alignment(sound.with_suffix(".json"), seconds=audio_CN.shape[1] / RATE)
    return Conversation(
        id=str(Path(os.path.relpath(sound, path.parent)).with_suffix("")).replace(os.sep, "-"),
        split=split,
        source=path.name,
        audio=encode_stereo(audio_CN),
        seconds=audio_CN.shape[1] / RATE,
        words=json.dumps(words),
        word_times="given",
    )


def _read_sound(path: Path) -> np.ndarray:
    import soundfile

    if not path.is_file():
        raise DataError(f"{path}: there is no such file; the list names it")
    try:
        audio_NC, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except RuntimeError as error:
        raise DataError(f"{path}: not an audio file ({error})") from error
    if audio_NC.shape[1] != 2 or not len(audio_NC):
        raise DataError(
            f"{path}: need two channels, left the assistant and right the user, got {audio_NC.shape[1]} "
            f"with {len(audio_NC)} samples"
        )
    if rate != RATE:
        audio_NC = soxr.resample(audio_NC, rate, RATE, quality="HQ")
    return np.ascontiguousarray(audio_NC.T)


def _read_alignment(path: Path, *, seconds: float) -> list[list[Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["alignments"]
        words = [(str(w), float(s), float(e), ASSISTANT if label == MAIN else USER) for w, (s, e), label in found]
    except OSError as error:
        raise DataError(f"{path}: there is no alignment beside the sound ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f'{path}: need {{"alignments": [[word, [start, end], speaker], ...]}} ({error})') from error
    late = next((word for word in words if not 0 <= word[1] <= word[2] <= seconds + 1), None)
    if late:
        raise DataError(f"{path}: the word {late[0]!r} is from {late[1]} to {late[2]} s, in a sound of {seconds:.1f} s")
    return [list(word) for word in sorted(words, key=lambda word: word[1])]
