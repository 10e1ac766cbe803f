"""What a step of data synthesis is, and what it is given."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Protocol

from duologue.data.audio_augment import AugmentConfig
from duologue.data.manifest import Turn
from duologue.data.prompts import Prompts
from duologue.data.recognisers import Recogniser, WhisperRecogniser
from duologue.data.speakers import Speaker, Voice, default_voices, make_speaker
from duologue.data.spoken_text import SpokenText
from duologue.data.steps.sources import SourceConfig
from duologue.data.teacher import Spoken
from duologue.data.writers import TextModel
from duologue.errors import ConfigError, DataError

DEFAULT_STEPS = ("instructions", "rewrite", "dedupe", "answers", "speech", "recognise", "units")


@dataclass(frozen=True, kw_only=True)
class SynthesisConfig:
    """A recipe for data. Everything that changes the result is here, except `workers`."""

    name: str
    seed: int = 0
    steps: tuple[str, ...] = DEFAULT_STEPS  # names of data.steps, or package.module:function
    shard_rows: int = 256
    workers: int = 1  # processes for the steps that need no text model; the result is the same for any number
    keep_steps: bool = False  # keep what every step made, not only the last
    prompts: str = ""  # a folder that goes before data/prompts
    sources: tuple[SourceConfig, ...] = ()
    dev: float = 0.02  # share of the turns, where a source does not say
    test: float = 0.02
    # instructions sampled from the text model
    sampled: int = 0  # questions
    sample_temperature: float = 0.9
    sample_tokens: int = 32
    text_model: str = ""  # which one, and its licence: for the card
    # answers
    answers: str = "given_or_model"  # given | model | given_or_model
    answer_tokens: int = 64
    answer_temperature: float = 0.0
    spell_answers: bool = True  # numbers and symbols of answers in words
    # speech
    voices: tuple[Voice, ...] = field(default_factory=default_voices)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    augment_held_out: AugmentConfig | None = None  # of dev and test; None: as train
    clean: float = 0.15  # share of the questions that are not augmented
    answer_voice: Voice | None = None  # None: the teacher of the step "units" says the answers
    # recogniser
    recogniser: str = ""  # a CTranslate2 Whisper folder
    max_wer: float = 0.4  # questions above are dropped, in every split
    # units
    answer_audio: bool = True  # keep the teacher's audio of the answers

    def __post_init__(self) -> None:
        if not self.steps:
            raise ConfigError("SynthesisConfig.steps: need at least one step")
        if self.answers not in ("given", "model", "given_or_model"):
            raise ConfigError(f"SynthesisConfig.answers: need given, model or given_or_model, got {self.answers!r}")
        if self.dev < 0 or self.test < 0 or self.dev + self.test >= 1:
            raise ConfigError(f"SynthesisConfig: dev + test must stay below 1, got {self.dev} + {self.test}")
        if self.shard_rows < 1 or self.workers < 1:
            raise ConfigError(f"SynthesisConfig: shard_rows and workers from 1, got {self.shard_rows}, {self.workers}")
        if not self.sources and not self.sampled:
            raise ConfigError("SynthesisConfig: need sources, or a number of questions to be sampled")


class Teacher(Protocol):
    """A voice that also says which units it spoke, and how."""

    sample_rate: int

    def speak(self, text: str, *, speed: float = 1.0, seed: int = 0) -> Spoken: ...


class Tools:
    """What steps work with, made when first asked for, once in each process."""

    def __init__(
        self,
        config: SynthesisConfig,
        *,
        text_model: TextModel | None = None,
        recogniser: Recogniser | None = None,
        teacher: Teacher | None = None,
    ):
        self.config = config
        self._text_model, self._recogniser, self._teacher = text_model, recogniser, teacher
        self._speakers: dict[str, Speaker] = {}

    @cached_property
    def prompts(self) -> Prompts:
        return Prompts(self.config.prompts)

    @cached_property
    def spoken(self) -> SpokenText:
        return SpokenText(self.prompts)

    @property
    def text_model(self) -> TextModel:
        if self._text_model is None:
            raise DataError(
                f"recipe {self.config.name}: a step needs a text model and there is none; "
                "give one (a local LLM or --endpoint), or set sampled=0 and answers=given"
            )
        return self._text_model

    @property
    def recogniser(self) -> Recogniser:
        if self._recogniser is None:
            if not self.config.recogniser:
                raise DataError(f"recipe {self.config.name}: set recogniser to a folder, or drop the step 'recognise'")
            self._recogniser = WhisperRecogniser(self.config.recogniser)
        return self._recogniser

    @property
    def teacher(self) -> Teacher:
        if self._teacher is None:
            from duologue.data.teacher import HibariTeacher

            self._teacher = HibariTeacher()
        return self._teacher

    def speaker(self, voice: Voice) -> Speaker:
        if voice.name not in self._speakers:
            self._speakers[voice.name] = make_speaker(voice)
        return self._speakers[voice.name]


Dropped = Counter[str]  # reason -> turns


@dataclass
class Result:
    """What a step makes of the rows of a shard."""

    rows: list[Turn] = field(default_factory=list)
    dropped: Dropped = field(default_factory=Counter)

    def drop(self, reason: str) -> None:
        self.dropped[reason] += 1


class Place(Enum):
    """Where a step runs."""

    WORKERS = "a shard at a time, in any process"
    HERE = "a shard at a time, in the process that holds the text model"
    WHOLE = "once, over all rows together"


@dataclass(frozen=True)
class Step:
    """Takes rows and gives rows; what it gives follows from the rows, their ids and the config alone."""

    run: Callable[[list[Turn], Tools], Result]
    place: Place = Place.WORKERS


def seed_of(seed: int, *names: str) -> int:
    """A seed of its own for each step and item: 63 bits of a hash."""
    text = "\0".join((str(seed), *names)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
