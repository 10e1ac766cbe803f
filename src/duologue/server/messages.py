"""What the talk page and the server say to each other over the one WebSocket.

Up, JSON: hello {rate}, begin {played}, end, hands_free {on}, stop {played}; binary: mono 16-bit PCM at `rate`.
Down, JSON: ready, busy, listening, speech, heard, text, done, notice, error; binary: mono 16-bit PCM at the rate that
ready named.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from duologue.errors import ServerError

RATES = (8_000, 192_000)  # Hz, the slowest and the fastest microphone taken
LONGEST_TEXT = 1_024  # characters of a JSON message
LONGEST_SOUND = 65_536  # bytes of a binary message


@dataclass(frozen=True)
class Hello:
    """The first message: the microphone's rate in Hz."""

    rate: int


@dataclass(frozen=True)
class Begin:
    """The button is down: what comes now is a question. `played`: seconds heard of an answer that this cuts short."""

    played: float | None


@dataclass(frozen=True)
class End:
    """The button is up."""


@dataclass(frozen=True)
class HandsFree:
    """Whether the server finds the turns itself."""

    on: bool


@dataclass(frozen=True)
class Stop:
    """Cut the answer short after so many seconds of it were heard."""

    played: float | None


@dataclass(frozen=True)
class Sound:
    """The microphone's next samples."""

    pcm: bytes


Message = Hello | Begin | End | HandsFree | Stop | Sound


def parse(raw: str | bytes) -> Message:
    """Reads a message from a stranger.

    Raises:
        ServerError: it is not one of ours.
    """
    if isinstance(raw, bytes):
        if len(raw) > LONGEST_SOUND or len(raw) % 2:
            raise ServerError(f"sound: need an even number of at most {LONGEST_SOUND} bytes, got {len(raw)}")
        return Sound(raw)
    if len(raw) > LONGEST_TEXT:
        raise ServerError(f"message: at most {LONGEST_TEXT} characters, got {len(raw)}")
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ServerError("message: not JSON") from error
    if not isinstance(data, dict):
        raise ServerError("message: need a JSON object with a 'type'")
    match data.get("type"):
        case "hello":
            return Hello(_rate(data.get("rate")))
        case "begin":
            return Begin(_played(data.get("played")))
        case "end":
            return End()
        case "hands_free":
            return HandsFree(data.get("on") is True)
        case "stop":
            return Stop(_played(data.get("played")))
    raise ServerError("message: need the type hello, begin, end, hands_free or stop")


def _rate(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not RATES[0] <= value <= RATES[1]:
        raise ServerError(f"hello: need a rate from {RATES[0]} to {RATES[1]} Hz")
    return value


def _played(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise ServerError("played: need seconds, or null where no answer was playing")
    return float(min(value, 3_600))
