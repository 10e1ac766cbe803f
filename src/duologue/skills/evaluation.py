"""How well a router chooses, on written requests: the right tool, the right arguments, calls that nobody asked for."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from duologue.skills import SKILLS
from duologue.skills.base import Context
from duologue.skills.passages import Knowledge
from duologue.skills.router import Choice, Router
from duologue.skills.tools import Tool, of_functions, of_skill
from duologue.skills.words import digits

ANY = "*"  # an expected argument that may be anything
THRESHOLDS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Request:
    """A request and what it wants: a tool with these arguments, or none."""

    text: str
    tool: str | None
    arguments: Mapping[str, Any]
    split: str


@dataclass(frozen=True)
class Point:
    """What a threshold gives.

    Attributes:
        precision: calls of the right tool, of all calls.
        coverage: right calls, of all requests that want a tool.
        false_calls: share of the requests without a tool that got one.
    """

    threshold: float
    precision: float
    coverage: float
    false_calls: float


@dataclass(frozen=True)
class Report:
    """Shares of the requests.

    Attributes:
        tool: of all requests, those that got the right tool, or rightly none.
        skills: of the requests for our own skills, those with the right tool; `skills_exact`: and the right arguments.
        functions: the same of the requests for a client's tools.
        false_calls: of the requests without a tool, those that got one.
    """

    number: int
    tool: float
    exact: float
    skills: float
    skills_exact: float
    functions: float
    functions_exact: float
    false_calls: float
    curve: tuple[Point, ...]
    wrong: tuple[tuple[Request, Choice | None], ...]


def evaluate(router: Router, requests: Sequence[Request], *, tools: Sequence[Tool], context: Context) -> Report:
    """Asks the router for every request with all the tools on offer."""
    ranked = [router.rank(request.text, tools, context) for request in requests]
    surest = [choices[0] if choices else None for choices in ranked]
    chosen = [choice if choice and choice.confidence >= router.config.threshold else None for choice in surest]
    pairs = list(zip(requests, chosen, strict=True))
    ours = [pair for pair in pairs if pair[0].tool in SKILLS]
    theirs = [pair for pair in pairs if pair[0].tool and pair[0].tool not in SKILLS]
    none = [pair for pair in pairs if pair[0].tool is None]
    return Report(
        number=len(pairs),
        tool=_share(_right(*pair) for pair in pairs),
        exact=_share(_exact(*pair) for pair in pairs),
        skills=_share(_right(*pair) for pair in ours),
        skills_exact=_share(_exact(*pair) for pair in ours),
        functions=_share(_right(*pair) for pair in theirs),
        functions_exact=_share(_exact(*pair) for pair in theirs),
        false_calls=_share(choice is not None for _, choice in none),
        curve=tuple(_point(threshold, requests, surest) for threshold in THRESHOLDS),
        wrong=tuple(pair for pair in pairs if not _exact(*pair)),
    )


def requests(split: str | None = None, *, heard: bool = False) -> list[Request]:
    """The requests that come with the package.

    Args:
        split: dev or test; both if left out.
        heard: as mini's listener heard them from a synthetic voice, with its errors.
    """
    lines = _data("requests.jsonl").splitlines()
    rows = [json.loads(line) for line in lines]
    found = [
        Request(row["heard" if heard else "text"], row["tool"], row.get("arguments", {}), row["split"]) for row in rows
    ]
    return [request for request in found if split in (None, request.split)]


def setting() -> tuple[list[Tool], Context]:
    """The tools, the clock and the texts that the requests were written for."""
    data = json.loads(_data("evaluation.json"))
    with tempfile.TemporaryDirectory() as folder:
        for name, text in data["knowledge"].items():
            Path(folder, name).write_text(text, encoding="utf-8")
        knowledge = Knowledge(Path(folder))
    context = Context(
        datetime.fromisoformat(data["now"]).replace(tzinfo=ZoneInfo(data["zone"])),
        rng=random.Random(0),
        knowledge=knowledge,
        glossary=data["glossary"],
        rates={data["rates"]["base"]: 1.0, **data["rates"]["rates"]},
    )
    return [*(of_skill(skill) for skill in SKILLS.values()), *of_functions(data["tools"])], context


def _data(name: str) -> str:
    return resources.files("duologue.skills").joinpath("data").joinpath(name).read_text(encoding="utf-8")


def _right(request: Request, choice: Choice | None) -> bool:
    return (choice.tool if choice else None) == request.tool


def _exact(request: Request, choice: Choice | None) -> bool:
    if not _right(request, choice):
        return False
    if choice is None:
        return True
    return choice.arguments.keys() == request.arguments.keys() and all(
        wanted == ANY or _same(choice.arguments[name], wanted) for name, wanted in request.arguments.items()
    )


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        return digits(value).lower() == digits(wanted).lower()
    return (type(value) is type(wanted) and value == wanted) or (
        not isinstance(value, bool) and not isinstance(wanted, bool) and value == wanted
    )


def _point(threshold: float, requests: Sequence[Request], surest: Sequence[Choice | None]) -> Point:
    chosen = [choice if choice and choice.confidence >= threshold else None for choice in surest]
    pairs = list(zip(requests, chosen, strict=True))
    calls = [pair for pair in pairs if pair[1] is not None]
    right = [pair for pair in calls if _right(*pair)]
    wanting = [pair for pair in pairs if pair[0].tool]
    idle = [pair for pair in pairs if pair[0].tool is None]
    return Point(
        threshold,
        len(right) / len(calls) if calls else 1.0,
        len(right) / len(wanting) if wanting else 1.0,
        _share(choice is not None for _, choice in idle),
    )


def _share(values: Iterable[bool]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
