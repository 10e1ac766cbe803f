"""Reads settings that a stranger gave, field by field; every error names the field."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from duologue.server.realtime.events import ClientError, of_type

MISSING: Any = object()


class Fields:
    """One JSON object.

    Args:
        known: the names it may have.
        path: where it stands, such as "session.audio".
    Raises:
        ClientError: it is not an object, or has another name in it.
    """

    def __init__(self, value: Any, path: str, known: Collection[str]):
        self._value, self.path = of_type(value, dict, path), path
        for name in self._value:
            if name not in known:
                raise ClientError(
                    f"Unknown parameter: '{self.name(name)}'.", code="unknown_parameter", param=self.name(name)
                )

    def name(self, field: str) -> str:
        return f"{self.path}.{field[:100]}"

    def __contains__(self, field: str) -> bool:
        """Whether it is given, be it as null."""
        return field in self._value

    def get(self, field: str, default: Any = None) -> Any:
        """As given; null counts as not given."""
        value = self._value.get(field)
        return default if value is None else value

    def text(self, field: str, default: Any, *, longest: int) -> Any:
        value = self.get(field, MISSING)
        if value is MISSING:
            return default
        if len(of_type(value, str, self.name(field))) > longest:
            raise self.refused(field, f"expected at most {longest} characters, but got {len(value)}")
        return value

    def choice(self, field: str, default: Any, choices: Collection[Any]) -> Any:
        value = self.get(field, MISSING)
        if value is MISSING:
            return default
        if not isinstance(value, (str, int)) or isinstance(value, bool) or value not in choices:
            raise self.refused(field, f"supported values are {', '.join(repr(each) for each in choices)}")
        return value

    def flag(self, field: str, default: bool) -> bool:
        value = self.get(field, MISSING)
        return default if value is MISSING else of_type(value, bool, self.name(field))

    def number(self, field: str, default: Any, least: float, most: float, *, whole: bool = False) -> Any:
        value = self.get(field, MISSING)
        if value is MISSING:
            return default
        good = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not good or not least <= value <= most:  # not so for what is no number; integers may be of any size
            kind = "an integer" if whole else "a number"
            raise self.refused(field, f"expected {kind} between {least:g} and {most:g}")
        return value

    def objects(self, field: str, *, most: int) -> list[Any] | None:
        value = self.get(field, MISSING)
        if value is MISSING:
            return None
        if len(of_type(value, list, self.name(field))) > most:
            raise self.refused(field, f"expected at most {most} entries, but got {len(value)}")
        return [of_type(each, dict, f"{self.name(field)}[{index}]") for index, each in enumerate(value)]

    def refused(self, field: str, why: str) -> ClientError:
        return ClientError(f"Invalid '{self.name(field)}': {why}.", param=self.name(field))


def size(value: Any) -> int:
    """Characters of a value as JSON."""
    return len(json.dumps(value))
