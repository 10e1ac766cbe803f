"""JSON schemas from strangers: bounded, without references and patterns, then checked with `jsonschema`.

A reference could be followed over the network, a pattern could keep a matcher busy for ever.
"""

from __future__ import annotations

import json
import reprlib
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry

from duologue.errors import ConfigError

MOST_BYTES, MOST_DEPTH = 32_000, 12
_DROPPED_WORDS = (
    "$ref $dynamicRef $recursiveRef $schema $id $anchor $dynamicAnchor $vocabulary $defs definitions pattern "
    "patternProperties format"
)
_DROPPED = frozenset(_DROPPED_WORDS.split())
_NAMED = ("properties", "dependentSchemas")  # their keys are names, not keywords


def check(parameters: Any, *, where: str) -> dict[str, Any]:
    """The schema of a function's arguments as this package may use it; none at all is an object without properties.

    Raises:
        ConfigError: not an object schema, too large, too deep, or not a schema.
    """
    if parameters is None:
        return {"type": "object", "properties": {}}
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise ConfigError(f'{where}: need a JSON schema with "type": "object", got {reprlib.repr(parameters)}')
    if _depth(parameters) > MOST_DEPTH:
        raise ConfigError(f"{where}: the schema is deeper than {MOST_DEPTH} levels")
    try:
        size = len(json.dumps(parameters))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: the schema is not JSON: {error}") from error
    if size > MOST_BYTES:
        raise ConfigError(f"{where}: the schema has {size} bytes, at most {MOST_BYTES} are taken")
    if not isinstance(parameters.get("properties", {}), dict) or not isinstance(parameters.get("required", []), list):
        raise ConfigError(f"{where}: properties must be an object and required a list")
    try:
        Draft202012Validator.check_schema(_bare(parameters))
    except SchemaError as error:
        raise ConfigError(f"{where}: not a JSON schema: {error.message[:200]}") from error
    return parameters


def problem(value: Any, parameters: dict[str, Any]) -> str:
    """What is wrong with a value, in one line; empty if nothing is."""
    error = next(Draft202012Validator(_bare(parameters), registry=Registry()).iter_errors(value), None)
    if error is None:
        return ""
    place = ".".join(map(str, error.absolute_path))
    return f"{place + ': ' if place else ''}{error.message[:200]}"


def _bare(schema: Any, *, names: bool = False) -> Any:
    if isinstance(schema, list):
        return [_bare(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: part for key, part in schema.items() if names or key not in _DROPPED}
    return {
        key: part
        if not names and key in ("enum", "const", "default", "examples", "required")
        else _bare(part, names=not names and key in _NAMED)
        for key, part in kept.items()
    }


def _depth(value: Any) -> int:
    """How deep it is nested, found without recursion."""
    deepest, level = 0, [value]
    while level and deepest <= MOST_DEPTH:
        deepest += 1
        level = [
            part
            for one in level
            if isinstance(one, (dict, list))
            for part in (one.values() if isinstance(one, dict) else one)
        ]
    return deepest
