"""The data that mini is trained on: questions and spoken-style answers, many voices asking, the teacher answering.

duologue data synth recipes/data_mini.py --out data_out/mini
duologue data synth recipes/data_mini.py:small --out data_out/small      # another function of this file
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from duologue.checkpoints import Resolver
from duologue.data.audio_augment import AugmentConfig
from duologue.data.speakers import Voice, default_voices, system_voices
from duologue.data.synthesis import SourceConfig, SynthesisConfig

OWN = Path(__file__).parent / "data"
DATES = "duologue.train.data_steps:dates"  # answers about today, once for each of several days
SAY = "duologue.train.data_steps:things_to_say"


def voices(*, held_out: tuple[str, ...] = ("flite-awb", "pico-gb", "hibari-man-gb")) -> tuple[Voice, ...]:
    """Every voice of the extra `train` and of Debian; the held-out ones ask only in dev and test, and alone do."""
    every = (*default_voices(), *system_voices())
    unknown = set(held_out) - {voice.name for voice in every}
    if unknown:
        raise ValueError(f"no voice is called {sorted(unknown)}")
    return tuple(
        dataclasses.replace(voice, splits=("dev", "test") if voice.name in held_out else ("train",)) for voice in every
    )


def mini() -> SynthesisConfig:
    """What mini learns from: its own questions and answers, sampled questions, and what common words mean."""
    return _full(recogniser=str(Resolver()("whisper-base")))


def _full(*, recogniser: str) -> SynthesisConfig:
    return SynthesisConfig(
        name="mini",
        seed=1,
        sources=(
            SourceConfig(path=str(OWN / "spoken_qa.jsonl"), name="spoken-qa", licence="Apache-2.0 (this project)"),
            SourceConfig(
                path=str(OWN / "spoken_templates.jsonl"), name="spoken-templates", licence="Apache-2.0 (this project)"
            ),
            SourceConfig(
                path="/usr/share/wordnet", name="wordnet", kind="wordnet", licence="WordNet 3.0 licence", limit=4000
            ),
        ),
        steps=("instructions", "rewrite", "dedupe", DATES, "answers", "speech", "recognise", "units"),
        sampled=12_000,
        text_model="SmolLM2-135M-Instruct (Apache-2.0)",
        voices=voices(),
        augment=AugmentConfig(noises=("hiss", "room", "hum", "keyboard", "breath", "music")),
        augment_held_out=AugmentConfig(noises=("traffic", "crowd"), noise_db=(8.0, 30.0)),
        recogniser=recogniser,
        workers=2,
    )


def small() -> SynthesisConfig:
    """The project's own questions only, with the voices that need no other program: minutes, and no text model."""
    full = _full(recogniser="")
    return dataclasses.replace(
        full,
        name="mini-small",
        sources=full.sources[:1],
        sampled=0,
        answers="given",
        text_model="",
        voices=default_voices(),
        steps=tuple(step for step in full.steps if step != "recognise"),
    )


def questions() -> SynthesisConfig:
    """Only the asking side, many of them, to fine-tune the listener: no answers, no units."""
    full = mini()
    return dataclasses.replace(
        full, name="mini-questions", steps=("instructions", "rewrite", "dedupe", "speech", "recognise")
    )


def words() -> SynthesisConfig:
    """Only the speaking side: lists of words, common and rare, and the project's questions read aloud."""
    full = _full(recogniser="")
    return dataclasses.replace(
        full, name="mini-words", sources=full.sources[:2], sampled=6000, text_model="", steps=(SAY, "units")
    )
