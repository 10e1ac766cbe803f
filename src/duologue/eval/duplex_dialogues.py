"""Conversations of both sides from texts that the project's recipe keeps from training: the user's side is played to a
model, the assistant's is what its inner monologue is measured on.

Users speak in the voices that no training heard, through an undisturbed line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import soundfile

from duologue.data.dialogue.clips import RATE
from duologue.data.dialogue.config import ChannelConfig, DialogueConfig, DialogueSource
from duologue.data.dialogue.making import Maker
from duologue.data.dialogue.statistics import speech_spans
from duologue.data.dialogue.texts import ASSISTANT, USER, Script, Texts
from duologue.data.speakers import Speaker, Voice
from duologue.errors import DataError
from duologue.eval.duplex_cases import DIALOGUE, VERSION, Case, cached
from duologue.eval.testsets import Progress

SOURCES = ("spoken_qa", "spoken_templates", "about_mini")  # of recipes/data_duplex.py, whose seed is 1
_QUIET = ChannelConfig(gain_chance=0.0, noise_chance=0.0, echo_chance=0.0, reverb_chance=0.0)


def make_dialogues(
    count: int,
    *,
    speakers: Sequence[Speaker],
    data: Path,
    cache: Path,
    assistant: Speaker | None = None,
    progress: Progress | None = None,
) -> list[Case]:
    """So many conversations of one or two questions, each question once as long as there are any.

    Args:
        data: a folder with the sources' files, `NAME.jsonl`; those that it lacks are left out.
        assistant: its voice; None: the recipe's.
    Raises:
        DataError: no source, nothing in them that is kept from training, or a voice that cannot speak here.
    """
    config = _config(speakers, data)
    scripts = [script for script in Texts(config).scripts() if script.split == "test"]
    if not scripts:
        raise DataError(f"{data}: no text is kept from training; give more questions and answers")
    scripts = [scripts[number % len(scripts)] for number in range(count)]
    own: Mapping[str, Speaker] = {config.assistant.name: assistant} if assistant else {}
    maker = Maker(config, speakers={**{speaker.name: speaker for speaker in speakers}, **own})

    def make(number: int, folder: Path) -> Case:
        again = number // len({script.id for script in scripts})
        script = scripts[number]
        row = maker.make(Script(id=f"{script.id}-{again}", split="test", source=script.source, lines=script.lines))
        names = {ASSISTANT: f"{number:04d}-assistant.flac", USER: f"{number:04d}.flac"}
        for audio_N, name in zip(row.sound(), names.values(), strict=True):
            soundfile.write(folder / name, audio_N, RATE, subtype="PCM_16")
        heard = row.words_of(USER)
        spans = speech_spans(heard)
        said = tuple((" ".join(w.text for w in heard if a <= w.start < b), round(a, 4), round(b, 4)) for a, b in spans)
        words = tuple((word.text, word.start, word.end) for word in row.words_of(ASSISTANT))
        return Case(
            kind=DIALOGUE,
            name=f"{DIALOGUE}-{number:03d}",
            voice=row.user,
            path=folder / names[USER],
            seconds=row.seconds,
            end=spans[-1][1],
            said=said,
            other=folder / names[ASSISTANT],
            words=words,
        )

    key = [VERSION, count, [json.dumps([s.id, *map(list, s.lines)]) for s in scripts], [s.name for s in speakers]]
    return cached(cache, DIALOGUE, key, count, make, progress)


def _config(speakers: Sequence[Speaker], data: Path) -> DialogueConfig:
    files = [data / f"{name}.jsonl" for name in SOURCES]
    found = [path for path in files if path.is_file()]
    if not found:
        raise DataError(f"{data}: need one of {', '.join(path.name for path in files)}; run in the project's folder")
    return DialogueConfig(
        name=DIALOGUE,
        seed=1,
        sources=tuple(
            DialogueSource(path=str(path), name=path.stem.replace("_", "-"), kind="pairs", licence="") for path in found
        ),
        exchanges=(1, 2),
        voices=tuple(Voice(kind="hibari", name=speaker.name, splits=("test",)) for speaker in speakers),
        channels=_QUIET,
    )
