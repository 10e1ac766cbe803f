"""Which tool a request wants, and with which arguments: a measured choice, and none where it is not sure.

Our own skills read requests with exact grammars. Any other tool is scored by what its name, description and schema
share with the request; the weights of that score were fitted on the development half of `data/requests.jsonl`
(docs/skills.md).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from duologue.errors import ConfigError
from duologue.skills.arguments import Extraction, extract
from duologue.skills.base import Context
from duologue.skills.embedding import CharacterGrams, Embed
from duologue.skills.mishearings import readings
from duologue.skills.schemas import problem
from duologue.skills.text_words import content, stem
from duologue.skills.tools import Tool, groups, spaced
from duologue.skills.words import MOST_CHARACTERS, request

FEATURES = ("name", "covered", "likeness", "typed", "command", "shared")  # in the order of the weights below
_GENERIC = groups([stem(word) for word in ("set", "get", "add", "create", "make", "turn", "put", "show", "find", "do")])
_GUESSING = frozenset({"look_up"})  # skills that would find something in whatever was heard
_MOST_ROWS = 512
_MOST_WORDS = 60  # of a request; who talks longer talks
_NO_COMMAND = re.compile(
    r"(?:why|who|whose|explain|describe|how (?:do|does|did|come|are|was|were|has|have)\b(?! (?:i|we)\b)"
    r"|how (?:long|old|many|far|big)|what (?:is|are) an?\b"
    r"|tell me about|tell me an?\b|what (?:do|did|does|would|makes|happens|was|were)\b"
    r"|what is the (?:difference|capital|meaning|best|history|point)"
    r"|should|have you|did you|do you|are you|were you|is (?:an?|\d)|i (?:am|was|have|had|love|like|hate|think"
    r"|never|always)\b|thank|what a\b"
    r"|can you (?:help|play|explain|talk|sing|speak)|(?:my|the) [a-z]+ (?:is|are|was|were)\b|help me\b|it is\b)"
)
_COMMAND = re.compile(
    r"(?:turn|switch|set|put|add|play|send|text|message|tell|book|reserve|make|create|schedule|lock|unlock|open"
    r"|close|start|stop|pause|call|find"
    r"|show|get|give|take|navigate|directions|order|buy|cancel|remove|delete|remind|check|search|translate|read"
    r"|raise|lower|dim|increase|decrease"
    r"|i (?:want|need|would like)|we need|let us|go|skip|mute|record|track|pay|transfer|write|email|run"
    r"|is it (?:going to|gonna)|what is the [a-z]+ (?:like|in|for)"
    r"|how is the|how do (?:i|we) get|do i need|will it)\b"
)


@dataclass(frozen=True)
class Choice:
    """A tool for a request.

    Attributes:
        missing: required arguments that were not said. Only for our own skills, whose answer asks for them.
    """

    tool: str
    arguments: dict[str, Any]
    confidence: float
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RouterConfig:
    """When to call, and the weights of the score of a client's tool (a logistic of the features in this order)."""

    threshold: float = 0.7
    bias: float = -3.65
    name: float = 2.1  # share of the tool's name that the request says
    covered: float = 2.15  # share of the request that the tool's words cover
    likeness: float = 2.05  # inner product of the embeddings
    typed: float = 0.75  # arguments with a form of their own that were found
    command: float = 1.6  # 1 said as a command, -1 said as talk
    shared: float = 0.7  # words in common

    def __post_init__(self):
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"RouterConfig: threshold must be above 0 and at most 1, got {self.threshold}")


class Router:
    """Chooses among tools. Holds nothing of a conversation.

    Args:
        embed: likeness of texts; a better one than letters can be put in here, with weights fitted to it.
    """

    def __init__(self, config: RouterConfig | None = None, *, embed: Embed | None = None):
        self.config = config or RouterConfig()
        self.embed = embed or CharacterGrams()
        self._rows: dict[str, np.ndarray] = {}  # of the tools that were asked for lately

    def choose(self, text: str, tools: Sequence[Tool], context: Context) -> Choice | None:
        """The tool that the request wants, or none below the threshold or where an argument is missing."""
        ranked = self.rank(text, tools, context)
        return ranked[0] if ranked and ranked[0].confidence >= self.config.threshold else None

    def force(self, text: str, tools: Sequence[Tool], context: Context) -> Choice | None:
        """The likeliest tool where one has to be called, however unsure. None where every tool wants an argument that
        was not said: nothing is made up."""
        for choice in self.rank(text, tools, context):
            tool = next(tool for tool in tools if tool.name == choice.tool)
            if not choice.missing and not problem(choice.arguments, dict(tool.parameters)):
                return choice
        bare = (tool for tool in tools if not problem({}, dict(tool.parameters)))
        return next((Choice(tool.name, {}, 0.0) for tool in bare), None)

    def rank(self, text: str, tools: Sequence[Tool], context: Context) -> list[Choice]:
        """Every tool that could be called, the surest first, whatever the threshold."""
        if len(text) > MOST_CHARACTERS:
            return []
        said = request(text)
        if not said or len(said.split()) > _MOST_WORDS:
            return []
        found = [*self._skills(said, tools, context), *self._functions(said, text, tools, context)]
        if all(choice.confidence < self.config.threshold for choice in found):
            found += self._misheard(text, tools, context)
        return sorted(found, key=lambda choice: -choice.confidence)

    def _misheard(self, text: str, tools: Sequence[Tool], context: Context) -> list[Choice]:
        """Our own skills only, whose grammars have to fit the whole of another reading; less sure the less it sounds
        like what was heard."""
        exact = [tool for tool in tools if tool.skill and tool.name not in _GUESSING]
        best: list[Choice] = []
        for reading, likeness in readings(text, context.glossary) if exact else ():
            for choice in self._skills(request(reading), exact, context):
                confidence = choice.confidence * likeness
                if not choice.missing and (not best or confidence > best[0].confidence):
                    best = [replace(choice, confidence=confidence)]
        return best

    def _skills(self, said: str, tools: Sequence[Tool], context: Context) -> list[Choice]:
        found = []
        for tool in tools:
            match = tool.skill.match(said, context) if tool.skill else None
            if match:
                found.append(Choice(tool.name, match.arguments, match.confidence, match.missing))
        return found

    def _functions(self, said: str, text: str, tools: Sequence[Tool], context: Context) -> list[Choice]:
        functions = [tool for tool in tools if tool.skill is None]
        if not functions:
            return []
        found = []
        for tool, values, extraction in self.features(said, text, functions, context):
            if not extraction.missing:
                found.append(Choice(tool.name, extraction.arguments, self.score(values)))
        return found

    def score(self, values: Sequence[float]) -> float:
        config = self.config
        total = sum(getattr(config, name) * value for name, value in zip(FEATURES, values, strict=True))
        return 1 / (1 + math.exp(-config.bias - total))

    def features(
        self, said: str, text: str, tools: Sequence[Tool], context: Context
    ) -> list[tuple[Tool, list[float], Extraction]]:
        """What speaks for each tool, in the order of `FEATURES`."""
        likeness = self._likeness(said, tools)
        count = Counter(group for tool in tools for group in tool.words)
        weight = {group: math.log(1 + len(tools) / number) * _worth(group) for group, number in count.items()}
        rare = math.log(1 + 2 * len(tools))
        command = -1.0 if _NO_COMMAND.match(said) else 1.0 if _COMMAND.match(said) else 0.0
        wanted = groups(content(said))
        rows = []
        for tool, like in zip(tools, likeness, strict=True):
            extraction = extract(tool, said, text, context)
            left = groups(content(" ".join(extraction.left)))
            shared = wanted & tool.words
            total = sum(weight.get(group, rare) for group in left | shared)
            covered = sum(weight[group] for group in shared)
            core = sum(weight[group] for group in tool.core)
            named = sum(weight[group] for group in shared & tool.core)
            values = [
                named / core if core else 0.0,
                covered / total if total else 0.0,
                float(like),
                float(min(extraction.typed, 3)),
                command,
                covered / rare,
            ]
            rows.append((tool, values, extraction))
        return rows

    def _likeness(self, said: str, tools: Sequence[Tool]) -> np.ndarray:
        texts = [f"{spaced(tool.name)} {tool.description}" for tool in tools]
        new = [text for text in dict.fromkeys(texts) if text not in self._rows]
        if len(self._rows) + len(new) > _MOST_ROWS:
            self._rows, new = {}, list(dict.fromkeys(texts))
        rows = self.embed([said, *new])
        self._rows |= zip(new, rows[1:], strict=True)
        return np.stack([self._rows[text] for text in texts]) @ rows[0]


def _worth(group: str) -> float:
    """A verb that every second tool has says little."""
    return 0.3 if group in _GENERIC else 1.0
