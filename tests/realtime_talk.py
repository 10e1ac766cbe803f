"""Clients of the Realtime API for tests: every event they get is held against the `openai` package and its order."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import uvicorn
from fakes import EchoModel
from loudness import Loudness
from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter
from starlette.applications import Starlette

from duologue.audio import io
from duologue.engine import Engine
from duologue.server.realtime import (
    CallLimits,
    Calls,
    Connection,
    Options,
    Player,
    RealtimeLimits,
    SecretStore,
    route,
)

RATE = 24_000
_ADAPTER: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
_BEYOND = {("session", name) for name in ("id", "object", "expires_at")}  # clients read them; the types lack them


def valid(event: dict[str, Any]) -> None:
    """That an event is one of the `openai` package's, with no field that its types do not know."""
    model = _ADAPTER.validate_python(event)
    assert type(model).model_fields["type"].annotation.__args__ == (event["type"],), event["type"]
    extra = set(_extra(model, ""))
    assert extra <= _BEYOND, f"{event['type']}: {extra - _BEYOND}"


def _extra(value: Any, where: str):
    if isinstance(value, BaseModel):
        yield from ((where, name) for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from _extra(getattr(value, name), name)
    elif isinstance(value, list):
        for each in value:
            yield from _extra(each, where)


class Order:
    """That events come in the order which the protocol has. Fails at the first that does not."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.items: list[str] = []  # ids, as a client that follows the events has them
        self.responses: dict[str, dict[str, Any]] = {}
        self.started: list[str] = []  # ids of what was begun to be said
        self.committed: str | None = None

    def take(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if len(self.seen) < 2:
            assert kind == ("session.created", "conversation.created")[len(self.seen)] or kind == "error"
        getattr(self, "_" + kind.replace(".", "_"), lambda event: None)(event)
        if kind.startswith("response.") and kind not in ("response.created", "response.done"):
            self._inside(kind, event)
        self.seen.append(kind)

    def _input_audio_buffer_speech_started(self, event):
        assert event["item_id"] not in self.items
        self.started.append(event["item_id"])

    def _input_audio_buffer_speech_stopped(self, event):
        assert event["item_id"] == self.started[-1] and event["item_id"] not in self.items

    def _input_audio_buffer_committed(self, event):
        assert event["previous_item_id"] == (self.items[-1] if self.items else None)
        self.committed = event["item_id"]

    def _conversation_item_added(self, event):
        item, previous = event["item"]["id"], event["previous_item_id"]
        assert item not in self.items
        if self.committed is not None:
            assert item == self.committed
            self.committed = None
        self.items.insert(0 if previous is None else self.items.index(previous) + 1, item)

    def _conversation_item_done(self, event):
        place = self.items.index(event["item"]["id"])
        assert event["previous_item_id"] == (self.items[place - 1] if place else None)
        assert event["item"]["status"] in ("completed", "incomplete")

    def _conversation_item_deleted(self, event):
        self.items.remove(event["item_id"])

    def _response_created(self, event):
        response = event["response"]
        assert response["status"] == "in_progress" and response["status_details"] is None
        running = [each for each in self.responses.values() if each["in"] and not each["done"]]
        assert response["conversation_id"] is None or not running
        self.responses[response["id"]] = {
            "in": response["conversation_id"] is not None,
            "done": False,
            "steps": [],
            "text": "",
            "audio": b"",
        }

    def _response_done(self, event):
        response = event["response"]
        known = self.responses[response["id"]]
        assert not known["done"]
        known["done"] = True
        assert _well_formed(known["steps"]), known["steps"]
        assert (
            response["usage"]["total_tokens"] == response["usage"]["input_tokens"] + response["usage"]["output_tokens"]
        )
        known["status"] = response["status"]

    def _rate_limits_updated(self, event):
        assert self.seen[-1] == "response.done"

    def _inside(self, kind, event):
        known = self.responses[event["response_id"]]
        assert not known["done"], f"{kind} after response.done"
        name = kind.removeprefix("response.")
        if name == "output_item.added":
            known["item"] = event["item"]["id"]
            assert event["item"]["status"] == "in_progress"
        else:
            assert event.get("item_id", event.get("item", {}).get("id")) == known["item"]
        known["steps"].append(name)
        if name.endswith("transcript.delta") or name == "output_text.delta":
            known["text"] += event["delta"]
        elif name == "output_audio.delta":
            known["audio"] += base64.b64decode(event["delta"], validate=True)
        elif name in ("output_audio_transcript.done", "output_text.done"):
            assert event.get("transcript", event.get("text")) == known["text"]


_SPEECH = [
    *("output_item.added", "content_part.added", "deltas", "output_audio.done", "output_audio_transcript.done"),
    *("content_part.done", "output_item.done"),
]
_TEXT = [
    *("output_item.added", "content_part.added", "deltas", "output_text.done", "content_part.done", "output_item.done"),
]
_CALL = ["output_item.added", "deltas", "function_call_arguments.done", "output_item.done"]


def _well_formed(steps: list[str]) -> bool:
    kinds = ["deltas" if step.endswith(".delta") else step for step in steps]
    runs = [step for index, step in enumerate(kinds) if not index or kinds[index - 1] != step]
    return runs in ([], _SPEECH, _TEXT, _CALL)


class Noting(EchoModel):
    """Notes what it is told, from the last time that it forgot everything."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.told: list[tuple[str, str]] = []

    def write(self, state, slot, role, text):
        if not int(state.turns_B[slot]) and not int(state.read_B[slot]):
            self.told = []
        self.told.append((role, text))
        state.read_B[slot] += 1
        yield


class Desk:
    """A connection and an engine, both run by the test: nothing happens but in `run`, and time stands still."""

    def __init__(
        self,
        model: Any = None,
        *,
        slots: int = 3,
        limits: RealtimeLimits | None = None,
        player: Player | None = None,
        **options: Any,
    ):
        self.time, self.events, self.order = 0.0, [], Order()
        self.model = model or EchoModel()
        self.engine = Engine(self.model, slots=slots, voice=Loudness(), clock=lambda: self.time)
        self._soon: deque[tuple[Any, tuple]] = deque()
        self.connection = Connection(
            self.engine,
            emit=self._take,
            soon=lambda call, *args: self._soon.append((call, args)),
            clock=lambda: self.time,
            wall=lambda: 1_000_000 + self.time,
            limits=limits,
            options=Options(**options),
            player=player,
        )
        self.connection.begin()
        self._ids = 0

    def _take(self, event: dict[str, Any]) -> None:
        valid(event)
        self.order.take(event)
        self.events.append(event)

    def run(self, steps: int = 10_000) -> None:
        """Until there is nothing to do, or for so many steps of the engine."""
        for _ in range(steps):
            self.engine._take_posts(wait=None)
            busy = self.engine.step()
            while self._soon:
                call, args = self._soon.popleft()
                call(*args)
            if not busy and self.engine._inbox.empty():
                return

    def send(self, kind: str, *, run: bool = True, **fields: Any) -> list[dict[str, Any]]:
        """Sends an event. Returns what came of it."""
        count = len(self.events)
        self._ids += 1
        self.connection.receive(_dump({"type": kind, "event_id": f"mine_{self._ids}", **fields}))
        if run:
            self.run()
        return self.events[count:]

    def update(self, **session: Any) -> list[dict[str, Any]]:
        return self.send("session.update", session={"type": "realtime", **session})

    def say(self, *pieces: np.ndarray, each: float = 0.08, encode=io.encode_pcm16, rate: int = RATE, steps=10_000):
        """Speaks in real time."""
        count, audio = len(self.events), np.concatenate(pieces)
        for block in np.split(audio, range(size := round(each * rate), len(audio), size)):
            self.send("input_audio_buffer.append", run=False, audio=base64.b64encode(encode(block)).decode())
            self.run(steps)
            self.time += len(block) / rate
        return self.events[count:]

    def wait(self, seconds: float) -> list[dict[str, Any]]:
        """Lets time pass."""
        count = len(self.events)
        for _ in range(round(seconds * 10)):
            self.time += 0.1
            self.connection.poll()
            self.run()
        return self.events[count:]

    def kinds(self, events: list[dict[str, Any]] | None = None) -> list[str]:
        """Types of events, runs of one type as one."""
        return kinds(self.events if events is None else events)


def kinds(events: list[dict[str, Any]]) -> list[str]:
    names = [event["type"] for event in events]
    return [name for index, name in enumerate(names) if not index or names[index - 1] != name]


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


def one(events: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = of(events, kind)
    return found


def silence(seconds: float, *, rate: int = RATE) -> np.ndarray:
    return np.zeros(round(seconds * rate), np.float32)


def message(text: str, *, role: str = "user", **fields: Any) -> dict[str, Any]:
    part = {"type": "output_text" if role == "assistant" else "input_text", "text": text}
    return {"type": "message", "role": role, "content": [part], **fields}


@contextlib.contextmanager
def served(
    model: Any = None,
    *,
    slots: int = 3,
    limits: RealtimeLimits | None = None,
    bounds: CallLimits | None = None,
    **options: Any,
) -> Iterator[tuple[str, Engine]]:
    """A running server of nothing but this protocol. Gives its address and its engine."""
    engine = Engine(model or EchoModel(), slots=slots, voice=Loudness())
    secrets = SecretStore()
    given = Options(**options)
    calls = Calls(engine, limits, bounds=bounds, options=given, secrets=secrets)
    routes = [route(engine, limits, options=given, secrets=secrets), *calls.routes(), secrets.route()]
    engine.start()

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield
        await calls.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(
                Starlette(routes=routes, lifespan=lifespan),
                log_level="warning",
                timeout_graceful_shutdown=1,
                ws_max_size=2**25,
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", engine
        finally:
            server.should_exit = True
            thread.join(10)
            engine.close()


def all_free(engine: Engine, places: int, *, within: float = 10.0) -> bool:
    """Whether every place comes back in time."""
    end = time.monotonic() + within
    while engine.free < places and time.monotonic() < end:
        time.sleep(0.02)
    return engine.free == places


def _dump(event: dict[str, Any]) -> str:
    return json.dumps(event)
