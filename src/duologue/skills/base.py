"""What a skill is, and what it may know of the conversation."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Protocol

from duologue.errors import ConfigError


@dataclass(frozen=True)
class Match:
    """What a grammar made of a request.

    Attributes:
        missing: required arguments that were not said; the skill's answer asks for them.
    """

    arguments: dict[str, Any]
    confidence: float = 0.95
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Passage:
    """A piece of a text, and where it stands.

    Attributes:
        coverage: how much of the question's weight the passage's words carry, [0, 1].
    """

    text: str
    source: str
    coverage: float


class Lookup(Protocol):
    """A folder of texts that can be asked (`passages.Knowledge`)."""

    def find(self, question: str) -> Passage | None: ...


@dataclass(frozen=True)
class Alarm:
    """Something to be said later. `kind` is timer, alarm or reminder."""

    kind: str
    at: datetime
    number: int
    label: str = ""
    length: float = 0.0  # seconds; 0 if a time of day was asked for


@dataclass
class Memory:
    """What the skills remember of one conversation."""

    alarms: list[Alarm] = field(default_factory=list)
    number: int = 0  # of the last alarm
    asked: tuple[dict[str, Any], datetime] | None = None  # a timer whose time was asked for: arguments so far, when


@dataclass(frozen=True)
class Context:
    """What a skill may use to answer. One a conversation; `at` gives it the time of the next request.

    Attributes:
        now: with a zone.
        rates: units of each currency for one unit of the table's base (`currency.read_rates`).
    """

    now: datetime
    memory: Memory = field(default_factory=Memory)
    rng: random.Random = field(default_factory=random.Random)
    knowledge: Lookup | None = None
    glossary: Mapping[str, str] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        if self.now.utcoffset() is None:
            raise ConfigError(f"Context: need a time with a zone, got {self.now!r}; use datetime.now(zone)")

    @property
    def today(self) -> date:
        return self.now.date()

    def at(self, now: datetime) -> Context:
        """The same conversation at another time."""
        return replace(self, now=now)


class Skill(Protocol):
    """One thing that is answered without the language model.

    Attributes:
        parameters: JSON schema of the arguments.
        examples: requests that want this skill.
    """

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def parameters(self) -> dict[str, Any]: ...

    @property
    def examples(self) -> tuple[str, ...]: ...

    def match(self, text: str, context: Context) -> Match | None:
        """Reads a request (as `words.request` gives it) if it wants this skill and nothing else."""
        ...

    def answer(self, arguments: dict[str, Any], context: Context) -> str:
        """Short sentences that can be spoken as they are. `arguments` fit `parameters`."""
        ...


def schema(required: tuple[str, ...] = (), **properties: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of an object with these properties and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
