"""Conversations in Parquet shards: two channels of sound, every word with its time, and what was drawn."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from duologue.data.dialogue.clips import RATE
from duologue.data.dialogue.texts import ASSISTANT
from duologue.data.dialogue.timeline import Timeline, Utterance
from duologue.data.manifest import SPLITS, arrow, read_table, shard_paths, write_table
from duologue.data.word_times import Word
from duologue.errors import DataError


@dataclass(kw_only=True)
class Conversation:
    """One row. What is not known of a conversation, such as how an imported one was drawn, is empty."""

    id: str
    split: str = "train"  # train | dev | test
    source: str = ""
    audio: bytes = b""  # FLAC at 24 kHz, left the assistant, right the user
    seconds: float = 0.0
    assistant: str = ""  # voice
    user: str = ""  # voice, and which person of it
    words: str = "[]"  # JSON [[word, start, end, role], ...], seconds, in order of their start
    word_times: str = ""  # counted | spread | given: how the assistant's were found
    utterances: str = "[]"  # JSON of timeline.Utterance, without their words
    room: str = "{}"  # JSON of timeline.Timeline.room
    microphone: str = "{}"  # JSON of channels.Microphone
    seed: int = 0

    def words_of(self, role: str) -> list[Word]:
        """The words of one side."""
        return [Word(text, start, end) for text, start, end, said_by in json.loads(self.words) if said_by == role]

    def utterances_made(self) -> list[Utterance]:
        """What was drawn, and what came of it; the words are in `words_of`."""
        return [Utterance(**each, words=[]) for each in json.loads(self.utterances)]

    def sound(self) -> np.ndarray:
        """Both channels in float32, [2, N] in [-1, 1]: the assistant, the user.

        Raises:
            DataError: damaged, not stereo, or of another rate.
        """
        return decode_stereo(self.audio)


COLUMNS = tuple(column.name for column in dataclasses.fields(Conversation))


def with_timeline(row: Conversation, timeline: Timeline) -> Conversation:
    """The row with the columns that follow from a timeline."""
    words = sorted((w.start, w.end, w.text, u.role) for u in timeline.utterances for w in u.words)
    plain = [dataclasses.asdict(each) for each in timeline.utterances]
    for each in plain:
        del each["words"]
        each.update({key: round(each[key], 4) for key in ("start", "end")})
    return dataclasses.replace(
        row,
        words=json.dumps([[text, round(start, 3), round(end, 3), role] for start, end, text, role in words]),
        utterances=json.dumps(plain),
        room=json.dumps({role: round(seconds, 3) for role, seconds in timeline.room.items()}, sort_keys=True),
    )


def encode_stereo(audio_CN: np.ndarray) -> bytes:
    """[2, N] in [-1, 1] at 24 kHz as 16-bit FLAC."""
    import soundfile

    target = io.BytesIO()
    soundfile.write(target, np.clip(audio_CN.T, -1, 1), RATE, format="FLAC", subtype="PCM_16")
    return target.getvalue()


def decode_stereo(data: bytes) -> np.ndarray:
    """What `encode_stereo` was given; raises DataError as `Conversation.sound`."""
    import soundfile

    try:
        audio_NC, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except RuntimeError as error:
        raise DataError(f"the audio of a conversation cannot be decoded ({error}); make its shard again") from error
    if rate != RATE or audio_NC.shape[1] != 2:
        raise DataError(f"audio of a conversation: need 2 channels at {RATE} Hz, got {audio_NC.shape[1]} at {rate} Hz")
    return np.ascontiguousarray(audio_NC.T)


def write_conversations(path: Path, rows: Sequence[Conversation], *, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a shard, whole or not at all; raises DataError if it cannot be written."""
    pa = arrow()
    kinds: dict[str, Any] = {"bytes": pa.binary(), "str": pa.string(), "float": pa.float64(), "int": pa.int64()}
    schema = pa.schema([(column.name, kinds[str(column.type)]) for column in dataclasses.fields(Conversation)])
    table = pa.table({name: [getattr(row, name) for row in rows] for name in COLUMNS}, schema=schema)
    write_table(path, table.replace_schema_metadata(dict(sorted((metadata or {}).items()))))


def read_conversations(
    folder: Path, *, split: str | None = None, columns: Sequence[str] | None = None
) -> Iterator[Conversation]:
    """Every conversation of a folder in order, one shard in memory at a time; other columns stay empty.

    Raises:
        DataError: no shards, a damaged one, one of something else, or an unknown split.
    """
    if split is not None and split not in SPLITS:
        raise DataError(f"split {split!r} is unknown; there are: {', '.join(SPLITS)}")
    wanted = None if columns is None else sorted({"id", "split", *columns}, key=COLUMNS.index)
    for path in shard_paths(folder):
        table = read_table(path, columns=wanted)
        if set(table.column_names) != set(wanted or COLUMNS):
            raise DataError(f"{path}: not a shard of conversations; make some with: duologue data dialogue")
        for row in table.to_pylist():
            if split is None or row["split"] == split:
                yield Conversation(**row)


def alignments(row: Conversation, *, label: str) -> list[list[Any]]:
    """The assistant's words as moshi-finetune wants them: [word, [start, end], label]."""
    return [[word.text, [word.start, word.end], label] for word in row.words_of(ASSISTANT)]
