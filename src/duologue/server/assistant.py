"""What the server does itself in a conversation: chooses a function of the client's, or answers with an offline skill.

One `Assistant` a conversation: its timers and its dice are its own. `call`, `reply` and `sure` come on the engine's
thread, `due` and `seconds_to_due` from where the connection runs.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from duologue import skills
from duologue.skills.base import Lookup
from duologue.skills.currency import read_rates
from duologue.skills.define import read_glossary
from duologue.skills.passages import Knowledge
from duologue.skills.router import Router
from duologue.skills.tools import Tool, of_functions, of_skill

Now = Callable[[], datetime]


def local_time() -> datetime:
    """Now, in this machine's zone."""
    return datetime.now().astimezone()


@dataclass(frozen=True, kw_only=True)
class Library:
    """What the skills of every conversation know."""

    knowledge: Lookup | None = None
    glossary: Mapping[str, str] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def read(*, knowledge: Path | None = None, glossary: Path | None = None, rates: Path | None = None) -> Library:
        """Reads a folder of texts, a file of definitions, a table of currencies.

        Raises:
            ConfigError: one of them cannot be read.
        """
        return Library(
            knowledge=Knowledge(knowledge) if knowledge else None,
            glossary=read_glossary(glossary) if glossary else {},
            rates=read_rates(rates) if rates else {},
        )


class Assistant:
    """The helper of one conversation.

    Args:
        offline: whether requests are answered by the built-in skills.
    """

    def __init__(self, library: Library, router: Router, *, offline: bool = True, now: Now = local_time):
        self._router, self._now = router, now
        self._skills = [of_skill(skill) for skill in skills.SKILLS.values()] if offline else []
        self._context = skills.Context(
            now=now(), rng=random.Random(), knowledge=library.knowledge, glossary=library.glossary, rates=library.rates
        )
        self._draft = self._context.memory  # what is remembered once it is sure that a request was one
        self._lock = threading.Lock()  # held while timers are looked at or changed
        self._functions: tuple[Sequence[dict[str, Any]], list[Tool]] = ((), [])

    def call(self, transcript: str, tools: Sequence[dict[str, Any]], *, forced: bool = False) -> tuple[str, str] | None:
        """The client's function that a request wants, and its arguments as JSON; None: no function, or a skill.

        Args:
            forced: the client has decided that one of its functions is called.
        """
        if tools is not self._functions[0]:
            self._functions = (tools, of_functions(list(tools)))
        functions = self._functions[1]
        context = self._context.at(self._now())
        if forced:
            choice = self._router.force(transcript, functions, context)
        else:
            choice = self._router.choose(transcript, [*functions, *self._skills], context)
        if choice is None or choice.tool not in {tool.name for tool in functions}:
            return None
        return choice.tool, json.dumps(choice.arguments)

    def reply(self, transcript: str) -> str | None:
        """What a skill says to a request; None: nothing, the model answers. What it does to timers stands only once it
        is `sure`: an answer may be prepared while the user may yet go on, and then another for the whole request."""
        with self._lock:
            memory = self._context.memory
            self._draft = replace(memory, alarms=list(memory.alarms))
        context = replace(self._context.at(self._now()), memory=self._draft)
        choice = self._router.choose(transcript, self._skills, context)
        return None if choice is None else skills.answer(choice.tool, choice.arguments, context)

    def sure(self) -> None:
        """The latest request was one: what its reply says is so."""
        with self._lock:
            memory, draft = self._context.memory, self._draft
            if draft is memory:
                return
            draft.alarms[:] = [each for each in draft.alarms if each.number > memory.number or each in memory.alarms]
            memory.alarms[:], memory.number, memory.asked = draft.alarms, draft.number, draft.asked
            self._draft = memory

    def due(self) -> list[str]:
        """What timers and alarms have to say now."""
        with self._lock:
            return skills.due(self._context.at(self._now()))

    def seconds_to_due(self) -> float | None:
        """When `due` will have something to say; None: never, as things are."""
        with self._lock:
            at = skills.next_due(self._context.memory)
        return None if at is None else max(0.0, (at - self._now()).total_seconds())
