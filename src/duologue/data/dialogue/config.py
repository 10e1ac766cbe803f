"""A recipe for conversations: texts, voices, and every distribution that timing and sound are drawn from."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from duologue.data.manifest import SPLITS
from duologue.data.noises import NOISES
from duologue.data.speakers import Voice, default_voices
from duologue.errors import ConfigError

Range = tuple[float, float]
SOURCES = ("dialogues", "pairs", "synth", "statements")
_TRIES = 1000  # draws until a distribution is said to hold nothing between its limits


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Seconds, or whatever is drawn, between `low` and `high`; what falls outside is drawn again.

    uniform: nothing else is needed. normal: mean `middle`, standard deviation `width`. lognormal: `low` plus a
    lognormal whose median puts the whole at `middle`; `width` is the standard deviation of its logarithm.
    """

    kind: str = "uniform"  # uniform | normal | lognormal
    low: float
    high: float
    middle: float = 0.0
    width: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("uniform", "normal", "lognormal"):
            raise ConfigError(f"Distribution.kind: need uniform, normal or lognormal, got {self.kind!r}")
        if self.low > self.high:
            raise ConfigError(f"Distribution: need low <= high, got {self.low} and {self.high}")
        if self.kind != "uniform" and not (self.low <= self.middle <= self.high and self.width >= 0):
            raise ConfigError(f"Distribution: need low <= middle <= high and a width from 0, got {self}")

    def draw(self, rng: np.random.Generator) -> float:
        """One value, rounded to the millisecond."""
        for _ in range(_TRIES):
            if self.kind == "uniform":
                value = rng.uniform(self.low, self.high)
            elif self.kind == "normal":
                value = rng.normal(self.middle, self.width)
            else:
                value = self.low + (self.middle - self.low) * np.exp(rng.normal(0.0, self.width))
            if self.low <= value <= self.high:
                return round(float(value), 3)
        return self.middle


@dataclass(frozen=True, kw_only=True)
class TimingConfig:
    """When who speaks. Seconds throughout; a gap below 0 begins before the other has ended.

    People leave about 0.2 s between turns in every language (Stivers et al. 2009), with some overlap.
    """

    # before the first sound, after the last
    lead: Distribution = Distribution(low=0.3, high=1.5)
    tail: Distribution = Distribution(low=0.8, high=2.0)
    # the assistant begins on multiples of it, as a model does that speaks in frames; 0: anywhere
    assistant_grid: float = 0.0
    # from the end of the user's turn to the answer, from the answer's to the user's next turn
    assistant_gap: Distribution = Distribution(kind="normal", low=-0.2, middle=0.25, high=1.0, width=0.2)
    user_gap: Distribution = Distribution(kind="lognormal", low=-0.6, middle=0.5, high=4.0, width=0.6)
    # from the end of what a side says to what it says next, with nothing of the other's between
    goes_on: Distribution = Distribution(kind="lognormal", low=0.2, middle=0.9, high=3.0, width=0.6)
    # silence between two words of a turn, in all: at commas and between sentences, and anywhere else
    user_pause_chance: float = 0.3
    user_hesitation_chance: float = 0.02
    user_pause: Distribution = Distribution(kind="lognormal", low=0.2, middle=0.7, high=2.5, width=0.5)
    assistant_pause_chance: float = 0.15
    assistant_pause: Distribution = Distribution(low=0.2, high=0.6)
    # a minute of the other's turn in which there is room for one; room begins and ends a margin from the turn's edges
    user_backchannels: float = 12.0
    assistant_backchannels: float = 10.0
    backchannel_margin: float = 0.6
    backchannel_delay: Distribution = Distribution(low=-0.05, high=0.2)  # from the end of the word before
    # of an assistant's turn of so many words or more, where the user has something to say next
    interruption_chance: float = 0.15
    interruption_words: int = 6
    interruption_at: Distribution = Distribution(low=0.15, high=0.75)  # share of the turn's words
    stop_delay: Distribution = Distribution(kind="normal", low=0.15, middle=0.4, high=0.8, width=0.15)  # till silence

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name.endswith("_chance") and not 0 <= value <= 1:
                raise ConfigError(f"TimingConfig.{each.name}: need a chance between 0 and 1, got {value}")
        if min(self.user_backchannels, self.assistant_backchannels, self.backchannel_margin, self.lead.low) < 0:
            raise ConfigError(f"TimingConfig: backchannels, their margin and lead cannot be below 0, got {self}")
        if self.assistant_grid < 0:
            raise ConfigError(f"TimingConfig.assistant_grid: need seconds from 0, got {self.assistant_grid}")
        for name in ("tail", "stop_delay", "user_pause", "assistant_pause", "goes_on"):
            if getattr(self, name).low < 0:
                raise ConfigError(f"TimingConfig.{name}: cannot be below 0, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class ChannelConfig:
    """What each side of the line sounds like. Chances and limits of the user's side are those of Moshi's training.

    (Defossez et al. 2024, section 4.4.) Ranges are drawn from evenly.
    """

    assistant_db: float = -24.0  # level of speech, relative to full scale
    user_db: float = -26.0
    backchannel_db: Range = (-8.0, -2.0)  # relative to the level of speech
    gain_chance: float = 0.5
    gain_db: Range = (-24.0, 15.0)
    noise_chance: float = 0.3
    noise_db: Range = (-30.0, 6.0)  # relative to the speech
    noises: tuple[str, ...] = ("hiss", "room", "traffic", "hum", "keyboard", "breath", "crowd", "music")
    noise_gap_chance: float = 0.5  # of a noise, that it comes and goes
    echo_chance: float = 0.3  # of the assistant, in the user's microphone
    echo_gain: Range = (0.0, 0.2)
    echo_delay: Range = (0.1, 0.5)  # seconds
    reverb_chance: float = 0.3
    reverb_seconds: Range = (0.1, 0.7)  # RT60
    reverb_direct_db: Range = (-2.0, 14.0)  # direct sound over reverberation

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name.endswith("_chance") and not 0 <= value <= 1:
                raise ConfigError(f"ChannelConfig.{each.name}: need a chance between 0 and 1, got {value}")
            if each.name == "noises":
                if unknown := set(value) - set(NOISES):
                    raise ConfigError(
                        f"ChannelConfig.noises: unknown {sorted(unknown)}; there are: {', '.join(NOISES)}"
                    )
            elif isinstance(value, tuple) and value[0] > value[1]:
                raise ConfigError(f"ChannelConfig.{each.name}: need (low, high), got {value}")
        if self.echo_delay[0] < 0 or self.echo_gain[0] < 0 or self.reverb_seconds[0] <= 0:
            raise ConfigError(f"ChannelConfig: echo and reverb cannot be below 0, got {self}")


@dataclass(frozen=True, kw_only=True)
class DialogueSource:
    """Where texts come from.

    dialogues: JSONL, one conversation a line: `{"turns": [["user", "..."], ["assistant", "..."]]}`, or the objects of
        chats under `turns`, `messages` or `conversations`. pairs: questions and answers, as for `data synth`.
        synth: a folder that `data synth` made; its splits and its spoken questions are kept. statements: JSONL, one
        sentence a line under `text`, that users tell without asking anything (`telling_chance`).
    """

    path: str
    name: str
    licence: str
    kind: str = "dialogues"  # dialogues | pairs | synth | statements
    split: str = ""  # train | dev | test; "": shared out by the text's hash, or as the data has it
    limit: int = 0  # most rows; 0: all
    longest_answer: int = 0  # words, of pairs; rows with longer ones are left out; 0: all

    def __post_init__(self) -> None:
        if self.kind not in SOURCES:
            raise ConfigError(f"DialogueSource.kind: need one of {', '.join(SOURCES)}, got {self.kind!r}")
        if self.split and self.split not in SPLITS:
            raise ConfigError(f"DialogueSource.split: need one of {', '.join(SPLITS)} or nothing, got {self.split!r}")


@dataclass(frozen=True, kw_only=True)
class DialogueConfig:
    """Everything that changes the result is here, except `workers`."""

    name: str
    seed: int = 0
    sources: tuple[DialogueSource, ...]
    conversations: int = 0  # in all; 0: every given dialogue once, and questions and answers until all were used once
    shard_rows: int = 16
    workers: int = 1  # processes; the result is the same for any number
    prompts: str = ""  # a folder that goes before data/prompts; dialogue.json has greetings, backchannels ...
    dev: float = 0.02  # share of the texts, where a source does not say
    test: float = 0.02
    closed: bool = False  # the same questions in every split, which then differ in their voices alone
    answered: bool = True  # False: the assistant is silent and the users' lines follow each other, to learn to hear by
    # conversations made from questions and answers
    exchanges: tuple[int, int] = (2, 5)  # questions
    greeting_chance: float = 0.6
    closing_chance: float = 0.4
    follow_up_chance: float = 0.25  # after an answer: thanks, "say that again", and the like
    # before a question: sentences of a source of statements, "Could you tell me" and then silence; see TimingConfig
    telling_chance: float = 0.0
    telling: tuple[int, int] = (1, 4)  # sentences
    beginning_chance: float = 0.0
    # sound
    assistant: Voice = field(default_factory=lambda: Voice(kind="hibari", name="assistant", licence="Apache-2.0"))
    voices: tuple[Voice, ...] = field(default_factory=default_voices)
    people: int = 400  # users of each split, each with one pace, pitch and throat; 0: a new one for each conversation
    timing: TimingConfig = field(default_factory=TimingConfig)
    channels: ChannelConfig = field(default_factory=ChannelConfig)

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("DialogueConfig.sources: need at least one source of texts")
        if self.dev < 0 or self.test < 0 or self.dev + self.test >= 1:
            raise ConfigError(f"DialogueConfig: dev + test must stay below 1, got {self.dev} + {self.test}")
        if self.shard_rows < 1 or self.workers < 1 or self.conversations < 0 or self.people < 0:
            raise ConfigError("DialogueConfig: shard_rows and workers from 1, conversations and people from 0")
        for name in ("exchanges", "telling"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise ConfigError(f"DialogueConfig.{name}: need 1 <= low <= high, got {(low, high)}")
        if self.telling_chance and not any(source.kind == "statements" for source in self.sources):
            raise ConfigError("DialogueConfig.telling_chance: needs a source of statements")
        for name in ("greeting_chance", "closing_chance", "follow_up_chance", "telling_chance", "beginning_chance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"DialogueConfig.{name}: need a chance between 0 and 1, got {getattr(self, name)}")
