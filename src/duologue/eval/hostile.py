"""What every grammar of malformed input shares: a case with what the protocol says to it, and what was found."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from typing import Any

JUNK = ("", "x", "\u0000", "\u202e", "../../etc/passwd", "'; --", "%s%n", "null", "💥", "a" * 3_000, "root", "0", "-1")
NUMBERS = (0, -1, 2**31, 2**63, 2**64, -(2**70), 10**400, 0.5, -0.0, 1e308, 1e-320)


@dataclass(frozen=True)
class Wrong:
    """A case that was not answered as it should have been."""

    protocol: str
    case: str
    wanted: str
    got: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def kind_of(value: Any) -> str:
    """The JSON type of a value."""
    if isinstance(value, bool):
        return "flag"
    names = {dict: "object", list: "array", str: "text", int: "number", float: "number", type(None): "null"}
    return names[type(value)]


def other_type(chance: random.Random, *but: str) -> Any:
    """A value of none of these JSON types; never null, which stands for "not given"."""
    made = {"object": {"x": 1}, "array": [1, "x"], "text": chance.choice(JUNK), "number": 5, "flag": True}
    return made[chance.choice([kind for kind in made if kind not in but])]


def nested(depth: int, *, array: bool) -> str:
    """JSON text that is so deep."""
    return "[" * depth + "]" * depth if array else '{"a":' * depth + "1" + "}" * depth


def spoiled(chance: random.Random, text: str) -> tuple[str, str]:
    """What makes a JSON object's text no JSON. Gives its name too."""
    place = chance.randrange(1, len(text))
    return chance.choice(
        [
            ("cut off", text[:place]),
            ("a number that is none", text[:-1] + ', "x": NaN}'),
            ("infinity", text[:-1] + ', "x": -Infinity}'),
            ("half a character", text[:-1] + ', "x": "\\ud800"}'),
            ("half a character in a name", text[:-1] + ', "\\udfff": 1}'),
            (
                "too deep",
                text[:-1] + f', "x": {nested(chance.choice([100, 900, 100_000]), array=chance.random() < 0.5)}}}',
            ),
            ("single quotes", text.replace('"', "'")),
            ("a comma too many", text[:-1] + ",}"),
            ("more behind it", text + chance.choice(["}", " x", text, "\u0000"])),
            ("something before it", chance.choice(["x", ")]}'", "\ufeff"]) + text),
            ("a control character", text[:-1] + ', "x": "\u0001"}'),
            ("a number of 5,000 digits", text[:-1] + f', "x": {"9" * 5_000}}}'),
            ("a number past every other", text[:-1] + ', "x": 1e999}'),
            ("nothing", ""),
            ("blanks", " " * chance.randrange(1, 50)),
            ("noise", "<" + "".join(chr(chance.randrange(33, 127)) for _ in range(chance.randrange(1, 200)))),
        ]
    )


def noise(chance: random.Random, least: int, most: int) -> bytes:
    return chance.randbytes(chance.randint(least, most))


def dumped(value: Any) -> str:
    """JSON, numbers of any size as they are."""
    return json.dumps(value)
