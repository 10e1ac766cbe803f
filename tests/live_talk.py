"""Clients of the Live API for tests: every event they get is held against `openai.types.live`."""

from __future__ import annotations

import base64
import json
from collections import deque
from typing import Any

import numpy as np
from fakes import DuplexEcho, EchoModel
from loudness import Loudness
from openai.types.live import ServerEvent
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from duologue.audio import io
from duologue.engine import Engine
from duologue.server.openai_live import LiveConnection, LiveOptions
from duologue.server.realtime import Options, RealtimeLimits

RATE = 24_000
_SERVER: TypeAdapter[Any] = TypeAdapter(ServerEvent)
_NESTED: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def valid(event: dict[str, Any]) -> None:
    """That an event is one of the `openai` package's, with no field that its types do not know."""
    model = _SERVER.validate_python(event)
    assert type(model).model_fields["type"].annotation.__args__ == (event["type"],), event["type"]
    extra = set(_extra(model, ""))
    assert not extra, f"{event['type']}: {extra}"
    if event["type"] == "response.event":
        _NESTED.validate_python(event["event"])


def _extra(value: Any, where: str):
    if isinstance(value, BaseModel):
        yield from ((where, name) for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from _extra(getattr(value, name), name)
    elif isinstance(value, list):
        for each in value:
            yield from _extra(each, where)


class Desk:
    """A session and an engine, both run by the test: nothing happens but in `run`, and time stands still."""

    def __init__(
        self,
        model: EchoModel | DuplexEcho | None = None,
        *,
        session: dict[str, Any] | None = None,
        limits: RealtimeLimits | None = None,
        text_model: Any = None,
        pulled: bool = False,
        begin: bool = True,
        **options: Any,
    ):
        self.time, self.events = 50.0, []
        self.model = model or EchoModel()
        self.engine = Engine(self.model, slots=2, voice=Loudness(), clock=lambda: self.time)
        self._soon: deque[tuple[Any, tuple]] = deque()
        self.live = LiveConnection(
            self.engine,
            emit=self._take,
            soon=lambda call, *args: self._soon.append((call, args)),
            clock=lambda: self.time,
            wall=lambda: 1_000_000 + self.time,
            limits=limits,
            options=LiveOptions(base=Options(**options), text_model=text_model),
            pulled=pulled,
        )
        if begin:
            self.send("session.start", session={"model": "mini", **(session or {})})

    def _take(self, event: dict[str, Any]) -> None:
        valid(event)
        self.events.append(event)

    def run(self) -> None:
        """Until there is nothing to do now."""
        while True:
            self.engine._take_posts(wait=None)
            busy = self.engine.step()
            while self._soon:
                call, args = self._soon.popleft()
                call(*args)
            if not busy and self.engine._inbox.empty():
                return

    def send(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """Sends an event. Returns what came of it."""
        count = len(self.events)
        self.live.receive(json.dumps({"type": kind, "event_id": f"mine_{count}", **fields}))
        self.run()
        return self.events[count:]

    def wait(self, seconds: float, *, each: float = 0.02) -> list[dict[str, Any]]:
        """Lets time pass."""
        count = len(self.events)
        for _ in range(round(seconds / each)):
            self.time += each
            self.live.poll()
            self.run()
        return self.events[count:]

    def say(self, *pieces: np.ndarray, encode=io.encode_pcm16, rate: int = RATE) -> list[dict[str, Any]]:
        """Speaks in real time."""
        count, audio = len(self.events), np.concatenate(pieces)
        for block in np.split(audio, range(size := round(0.04 * rate), len(audio), size)):
            self.live.receive(_append(encode(block)))
            self.wait(len(block) / rate)
        return self.events[count:]


def _append(data: bytes) -> str:
    return json.dumps({"type": "session.input_audio.append", "audio": base64.b64encode(data).decode()})


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


def one(events: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = of(events, kind)
    return found


def nested(events: list[dict[str, Any]]) -> list[str]:
    """Types of the events of the backend's responses."""
    return [event["event"]["type"] for event in of(events, "response.event")]


def heard(events: list[dict[str, Any]], decode=io.decode_pcm16) -> np.ndarray:
    """The sound of some events."""
    data = [base64.b64decode(event["delta"]) for event in of(events, "session.output_audio.delta")]
    return decode(b"".join(data))


def transcript(events: list[dict[str, Any]], side: str = "output") -> str:
    return "".join(event["delta"] for event in of(events, f"session.{side}_transcript.delta"))


def silence(seconds: float, *, rate: int = RATE) -> np.ndarray:
    return np.zeros(round(seconds * rate), np.float32)


def loud_seconds(audio: np.ndarray, rate: int = RATE) -> float:
    size = rate // 100
    return float((np.abs(audio[: len(audio) // size * size].reshape(-1, size)).max(1) > 0.1).sum() / 100)
