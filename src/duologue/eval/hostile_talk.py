"""Malformed events put to a session of the Realtime API: each gets its error and no other, and the session lives on."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

from duologue.eval.hostile import Wrong
from duologue.eval.hostile_events import Case
from duologue.eval.wire import room

_WAIT = 20.0  # seconds for the answer to an event
_SHOWN = 300  # characters of an answer in the report


class Channel(Protocol):
    """What carries events."""

    async def send(self, raw: str | bytes) -> None: ...

    async def receive(self) -> str | bytes:
        """Raises OSError at the end."""
        ...


async def drive(channel: Channel, cases: deque[Case], *, protocol: str) -> list[Wrong]:
    """Takes and sends each case, then an event whose answer is known: what comes before that belongs to the case.

    Where the session ends, the case that was its last counts as wrong, and the others stay in `cases`.
    """
    wrong: list[Wrong] = []
    number = 0
    while cases:
        case, number = cases.popleft(), number + 1
        try:
            for raw in case.raw:
                await channel.send(raw)
            got = await _until(channel, f"fence_{number}")
            if case.after:
                await channel.send(case.after)
                await _until(channel, f"after_{number}")
        except asyncio.TimeoutError:
            return [*wrong, Wrong(protocol, case.name, wanted(case), f"no answer for {_WAIT:.0f} seconds")]
        except OSError as error:
            return [*wrong, Wrong(protocol, case.name, wanted(case), f"the session ended: {error}")]
        if (said := judge(case, got)) is not None:
            wrong.append(Wrong(protocol, case.name, wanted(case), f"{said}; sent {str(case.raw[-1])[:_SHOWN]}"))
    return wrong


async def _until(channel: Channel, fence: str) -> list[Any]:
    """The events up to the answer to an event that is sent now."""
    await channel.send(json.dumps({"type": "conversation.item.retrieve", "event_id": fence, "item_id": fence}))
    found: list[Any] = []
    while True:
        raw = await asyncio.wait_for(channel.receive(), _WAIT)
        event = json.loads(raw, parse_constant=lambda name: f"({name} is no JSON)")
        if event.get("type") == "error" and event["error"].get("event_id") == fence:
            return found
        found.append(event)


def judge(case: Case, events: list[Any]) -> str | None:
    """What is wrong with the answer; None: nothing."""
    errors = [event["error"] for event in events if event.get("type") == "error"]
    if "is no JSON)" in json.dumps(events):
        return "the answer holds a number that is no JSON"
    if not case.codes:
        if errors:
            return f"refused: {errors[0].get('code')}: {errors[0].get('message')}"
        kinds = [event.get("type") for event in events]
        return None if case.answer in kinds else f"no {case.answer} but {kinds}"
    if len(errors) != 1:
        return f"{len(errors)} errors, with {[event.get('type') for event in events]}"
    (error,) = errors
    good = error.get("type") == "invalid_request_error" and error.get("code") in case.codes and error.get("message")
    if not good or (case.id is not None and error.get("event_id") != case.id):
        return json.dumps(error)[:_SHOWN]
    return None


def wanted(case: Case) -> str:
    return f"one error with {' or '.join(case.codes)}" if case.codes else case.answer


class Socket:
    """A WebSocket of `websockets` as a channel."""

    def __init__(self, socket: Any):
        self._socket = socket

    async def send(self, raw: str | bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._socket.send(raw)
        except ConnectionClosed as error:
            raise ConnectionError(str(error)) from error

    async def receive(self) -> str | bytes:
        from websockets.exceptions import ConnectionClosed

        try:
            return await self._socket.recv()
        except ConnectionClosed as error:
            raise ConnectionError(str(error)) from error


async def over_websocket(address: str, cases: Iterable[Case], *, old: bool = False) -> list[Wrong]:
    """A session of its own for some cases, and another after each that ends it."""
    from websockets.asyncio.client import connect

    headers = {"OpenAI-Beta": "realtime=v1"} if old else {}
    url = f"ws://{address}/v1/realtime"
    options: dict[str, Any] = {"additional_headers": headers, "max_size": None, "compression": None, "proxy": None}
    left, wrong = deque(cases), list[Wrong]()
    while left:
        await room(address)
        async with connect(url, **options) as socket:
            wrong += await drive(Socket(socket), left, protocol="realtime, beta" if old else "realtime")
    return wrong
