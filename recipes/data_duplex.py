"""Conversations of two channels for a full-duplex model: the project's own questions and answers, many people asking.

duologue data dialogue recipes/data_duplex.py --out data_out/duplex
duologue data dialogue recipes/data_duplex.py:small --out data_out/duplex-small   # minutes
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from duologue.data.dialogue import DialogueConfig, DialogueSource
from duologue.data.dialogue.config import ChannelConfig, Distribution, TimingConfig
from duologue.data.speakers import Voice, default_voices, system_voices
from duologue.eval.voices import is_reserved

OWN = Path(__file__).parent / "data"
FRAME = 0.08  # seconds, of Mimi
DEV = ("hibari-child-us",)  # asks in dev and test, and nobody else does


def _own(name: str) -> DialogueSource:
    path = str(OWN / f"{name.replace('-', '_')}.jsonl")
    return DialogueSource(path=path, name=name, kind="pairs", licence="Apache-2.0 (this project)")


def voices() -> tuple[Voice, ...]:
    """Those voices that the tests do not keep for themselves."""
    free = [voice for voice in default_voices() if not is_reserved(voice)]
    return tuple(
        dataclasses.replace(voice, splits=("dev", "test") if voice.name in DEV else ("train",)) for voice in free
    )


def anybody() -> Voice:
    """One whose pitch and throat are drawn apart, for each conversation anew."""
    person = next(voice for voice in voices() if "train" in voice.splits)
    return dataclasses.replace(person, name="hibari-anybody-us", pitch=(0.45, 1.2), formant=(0.8, 1.08))


def machines() -> tuple[Voice, ...]:
    """Synthesisers of other makers (Debian's pico, flite, espeak-ng and festival), each of them many people: played
    faster or slower, as a tape."""
    known = {voice.name: voice for voice in system_voices()}

    def tape(name: str, weight: float, command: str = "") -> Voice:
        voice = known[name]
        return Voice(
            kind="command",
            name=name.removesuffix("_diphone"),
            command=command or voice.command,
            speed=(0.85, 1.25),
            weight=weight,
            licence=voice.licence,
            splits=("train",),
        )

    flite = [(voice, f"flite -voice {voice} -t {{text}} -o {{out}}") for voice in ("rms", "awb")]
    espeak = [(voice, f"espeak-ng -v {voice} -w {{out}} --stdin") for voice in ("en-us", "en-us+f3", "en-us+m3")]
    return (
        tape("pico-us", 2.0),
        *(tape(f"flite-{voice}", weight, command) for (voice, command), weight in zip(flite, (1.5, 1.0), strict=True)),
        tape("festival-kal_diphone", 0.4),
        *(tape(f"espeak-{voice}", 0.4, command) for voice, command in espeak),
    )


def duplex() -> DialogueConfig:
    """About ten hours."""
    return DialogueConfig(
        name="duplex",
        seed=1,
        sources=(_own("spoken-qa"), _own("spoken-templates"), _own("about-mini")),
        conversations=1000,
        voices=voices(),
        workers=2,
    )


def closed() -> DialogueConfig:
    """Short answers alone, to the same questions in every split: what a model learns here in hours is which of the
    questions was asked, when it is its turn, and how its own answers sound. Half of the users are synthesisers of other
    makers: a model that heard only one hears others badly. Users also tell things that nobody is to answer, and fall
    silent before they have asked: else it takes every silence for its turn. The assistant begins on a frame of the
    codec and says a thing in one way, so that its codes are the same whenever it says it."""
    source = dataclasses.replace(_own("spoken-qa"), longest_answer=7)
    told = DialogueSource(
        path=str(OWN / "statements.jsonl"), name="statements", kind="statements", licence=source.licence
    )
    gap = Distribution(kind="normal", low=0.16, middle=0.45, high=0.9, width=0.12)
    timing = TimingConfig(
        assistant_gap=gap, assistant_pause_chance=0.0, assistant_grid=FRAME, user_hesitation_chance=0.04
    )
    microphone = ChannelConfig(backchannel_db=(-4.0, -4.0), gain_db=(-12.0, 9.0), noise_db=(-30.0, -3.0))
    return dataclasses.replace(
        duplex(),
        name="duplex-closed",
        sources=(source, told),
        conversations=1600,
        closed=True,
        telling_chance=0.2,
        beginning_chance=0.35,
        voices=(
            dataclasses.replace(anybody(), weight=5.0),
            *machines(),
            *(voice for voice in voices() if "train" not in voice.splits),
        ),
        people=0,
        timing=timing,
        channels=microphone,
    )


def asked() -> DialogueConfig:
    """The same questions without answers, one behind the other, by a new voice every half a minute: to hear by."""
    timing = TimingConfig(
        lead=Distribution(low=0.0, high=0.5),
        tail=Distribution(low=0.6, high=0.8),
        goes_on=Distribution(kind="lognormal", low=0.1, middle=0.5, high=3.0, width=0.6),
        user_pause_chance=0.15,
        assistant_backchannels=0.0,
    )
    base = closed()
    return dataclasses.replace(
        base,
        name="duplex-asked",
        seed=2,
        conversations=1800,
        answered=False,
        telling_chance=0.0,
        exchanges=(6, 10),
        timing=timing,
        channels=dataclasses.replace(base.channels, echo_chance=0.0),
    )


def small() -> DialogueConfig:
    """Each of the hand-written questions once."""
    return dataclasses.replace(duplex(), name="duplex-small", sources=(_own("spoken-qa"),), conversations=0)
