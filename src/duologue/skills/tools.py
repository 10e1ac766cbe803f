"""Tools that a request may want: our skills, and the functions that a client of OpenAI's Realtime protocol brings."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any

from duologue.errors import ConfigError
from duologue.skills.base import Skill
from duologue.skills.schemas import check
from duologue.skills.text_words import content, stem

MOST_TOOLS = 128
_MOST_DESCRIPTION = 4_000  # characters


@dataclass(frozen=True)
class Tool:
    """What the router knows of a tool.

    Attributes:
        parameters: JSON schema of the arguments, checked and bounded.
        skill: set for our own; its grammar reads the arguments.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    examples: tuple[str, ...] = ()
    skill: Skill | None = None
    words: frozenset[str] = field(default=frozenset(), compare=False)  # groups of the name, what it does, its arguments
    core: frozenset[str] = field(default=frozenset(), compare=False)  # groups of the name alone

    @property
    def properties(self) -> Mapping[str, Any]:
        return self.parameters.get("properties", {})

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(name for name in self.parameters.get("required", []) if isinstance(name, str))


def of_skill(skill: Skill) -> Tool:
    return Tool(skill.name, skill.description, skill.parameters, skill.examples, skill)


def of_function(function: Any) -> Tool:
    """A tool of `session.tools`: {"type": "function", "name", "description", "parameters"}.

    Raises:
        ConfigError: something else, or a schema that is not taken (`schemas.check`).
    """
    if not isinstance(function, Mapping) or function.get("type", "function") != "function":
        raise ConfigError(f'tools: need {{"type": "function", "name": ...}}, got {reprlib.repr(function)}')
    inner = function.get("function")
    if isinstance(inner, Mapping):  # the older form nests it
        function = inner
    name, description = function.get("name"), function.get("description") or ""
    if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", name):
        raise ConfigError(f"tools: a name has 1 to 64 letters, digits, _ . or -, got {reprlib.repr(name)}")
    if not isinstance(description, str):
        raise ConfigError(f"tools: {name}: need a text as description, got {reprlib.repr(description)}")
    parameters = check(function.get("parameters"), where=f"tools: {name}")
    description = description[:_MOST_DESCRIPTION]
    core = groups(content(spaced(name)))
    said = [spaced(name), description]
    for key, part in list(parameters.get("properties", {}).items())[:64]:
        said += [spaced(str(key)), *_texts(part)]
    return Tool(name, description, parameters, words=groups(content(" ".join(said)[:20_000])), core=core)


def of_functions(functions: Any) -> list[Tool]:
    """Every tool of a session.

    Raises:
        ConfigError: not a list, too many, one that is not taken, or two of one name.
    """
    if not isinstance(functions, list) or len(functions) > MOST_TOOLS:
        raise ConfigError(f"tools: need a list of at most {MOST_TOOLS} tools, got {reprlib.repr(functions)}")
    tools = [of_function(function) for function in functions]
    names = [tool.name for tool in tools]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigError(f"tools: each name once, got {', '.join(sorted(twice))} twice")
    return tools


def spaced(name: str) -> str:
    """set_light, setLight -> set light."""
    return re.sub(r"[_.-]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).lower()


def groups(stems: list[str]) -> frozenset[str]:
    """Each stem by the names of its groups of synonyms, or by itself."""
    found = _synonyms()
    return frozenset(name for word in stems for name in found.get(word, (word,)))


def _texts(part: Any) -> list[str]:
    if not isinstance(part, Mapping):
        return []
    texts = [part["description"]] if isinstance(part.get("description"), str) else []
    return texts + [value for value in part.get("enum", []) if isinstance(value, str)]


@lru_cache(maxsize=1)
def _synonyms() -> Mapping[str, tuple[str, ...]]:
    text = resources.files("duologue.skills").joinpath("data/synonyms.json").read_text(encoding="utf-8")
    found: dict[str, tuple[str, ...]] = {}
    for words in json.loads(text)["groups"]:
        for word in dict.fromkeys(stem(word) for word in words if " " not in word):
            found[word] = (*found.get(word, ()), words[0])
    return found


def same(one: str, other: str) -> bool:
    """Two words with one stem or in one group of synonyms."""
    return bool(groups([stem(one)]) & groups([stem(other)]))
