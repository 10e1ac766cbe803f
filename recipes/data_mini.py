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
from duologue.eval.voices import is_reserved

OWN = Path(__file__).parent / "data"
DATES = "duologue.train.data_steps:dates"  # answers about today, once for each of several days
SAY = "duologue.train.data_steps:things_to_say"
DEV = ("flite-awb", "flite-kal16", "festival-kal_diphone")  # a Scot; and one man, in two synthesisers


def _own(name: str, licence: str = "Apache-2.0 (this project)") -> SourceConfig:
    return SourceConfig(path=str(OWN / f"{name.replace('-', '_')}.jsonl"), name=name, licence=licence)


TALK = (
    _own("spoken-qa"),
    _own("spoken-templates"),
    _own("about-mini"),
    dataclasses.replace(_own("sampled", "SmolLM2-135M-Instruct (Apache-2.0)"), name="sampled-before"),
)
WORDNET = SourceConfig(
    path="/usr/share/wordnet", name="wordnet", kind="wordnet", licence="WordNet 3.0 licence", limit=1500
)
EXAMPLES = dataclasses.replace(WORDNET, name="wordnet-examples", kind="wordnet-examples", limit=14_000)
STATEMENTS = _own("statements")  # no questions: to be heard and to be said


def voices(
    every: tuple[Voice, ...] = (*default_voices(), *system_voices()), *, held_out: tuple[str, ...] = DEV
) -> tuple[Voice, ...]:
    """Those voices that the tests do not keep for themselves; the held-out ones ask in dev and test, and alone do."""
    free = [voice for voice in every if not is_reserved(voice)]
    unknown = set(held_out) - {voice.name for voice in free}
    if unknown:
        raise ValueError(f"{sorted(unknown)}: there is no such voice, or the tests speak with it")
    return tuple(
        dataclasses.replace(voice, splits=("dev", "test") if voice.name in held_out else ("train",)) for voice in free
    )


def mini() -> SynthesisConfig:
    """Questions whose answers were written for mini: what it is, what day it is, what it can do, common knowledge."""
    return dataclasses.replace(_taught(), recogniser=str(Resolver()("whisper-tiny.en")))


def _taught() -> SynthesisConfig:
    return SynthesisConfig(
        name="mini",
        seed=1,
        sources=TALK,
        steps=("instructions", "rewrite", "dedupe", DATES, "answers", "speech", "recognise"),
        answers="given",
        voices=voices(),
        augment=AugmentConfig(noises=("hiss", "room", "hum", "keyboard", "breath", "music", "crowd")),
        augment_held_out=AugmentConfig(noises=("traffic", "crowd"), noise_db=(8.0, 30.0)),
        workers=2,
    )


def asked() -> SynthesisConfig:
    """Questions that the text model samples, and what words mean; the tuned model answers them (OwnAnswersStage)."""
    return dataclasses.replace(
        mini(),
        name="mini-asked",
        seed=2,
        sources=(WORDNET,),
        steps=("instructions", "rewrite", "dedupe", "speech", "recognise"),
        sampled=5000,
        text_model="SmolLM2-135M-Instruct (Apache-2.0)",
    )


def small() -> SynthesisConfig:
    """The project's own questions only, with the voices that need no other program: minutes, and no text model."""
    return dataclasses.replace(
        _taught(),
        name="mini-small",
        sources=TALK[:1],
        voices=voices(default_voices(), held_out=("hibari-child-us",)),
        steps=("instructions", "rewrite", "dedupe", DATES, "answers", "speech", "units"),
    )


def questions() -> SynthesisConfig:
    """Only the asking side, for the listener: everything in other voices, statements, and WordNet's examples."""
    return dataclasses.replace(
        _taught(),
        name="mini-questions",
        seed=3,
        sources=(*TALK, WORDNET, STATEMENTS, EXAMPLES),
        steps=("instructions", "rewrite", "dedupe", "speech"),
    )


def words() -> SynthesisConfig:
    """Only the speaking side: lists of words, common and rare, and the questions and statements read aloud."""
    return dataclasses.replace(
        _taught(), name="mini-words", sources=(*TALK, STATEMENTS), sampled=6000, steps=(SAY, "units")
    )
