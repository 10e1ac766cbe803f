"""A session of the engine for those who await: its events in a queue with an end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

import numpy as np

from duologue.engine import Engine, Session, SessionConfig
from duologue.errors import BusyError, ServerError
from duologue.server.waiting import within as within_seconds
from duologue.server.witness import Several, Witness
from duologue.streaming.events import Event, Failed

_MOST_EVENTS = 4_096  # that may wait to be taken: five minutes of an answer that nobody reads
_RETRY = 0.05  # seconds until audio is offered again that there was no room for


class Live:
    """`async with Live(engine) as live:` holds a place until it is left; BusyError where none is free."""

    session: Session
    witness: Witness

    def __init__(
        self,
        engine: Engine,
        config: SessionConfig | None = None,
        *,
        name: str = "",
        witness: Callable[[], Witness] = Several,
    ):
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self.engine, self._config, self._name, self._make = engine, config, name, witness

    async def __aenter__(self) -> Live:
        self.session = self.engine.open(self._sink, self._config, name=self._name)
        self.witness = self._make()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.session.close()
        self.witness.close()

    async def event(self, *, within: float) -> Event:
        """The next event.

        Raises:
            ServerError: none came within so many seconds, or the session failed.
        """
        try:
            event = await within_seconds(self._events.get(), within)
        except asyncio.TimeoutError as error:
            raise ServerError(f"the model said nothing for {within:.0f} seconds; try again") from error
        self.witness.happen(event)
        if isinstance(event, Failed):
            raise ServerError(event.message)
        return event

    async def listen(self, samples: np.ndarray, *, at_once: float = 5.0) -> None:
        """Hands in audio of any length, waiting where there is no room for more."""
        size = round(at_once * self.engine.runner.spec.input_rate)
        for begin in range(0, len(samples), size):
            while True:
                try:
                    self.session.listen(samples[begin : begin + size])
                    break
                except BusyError:
                    await asyncio.sleep(_RETRY)

    def _sink(self, event: Event) -> None:
        """On the engine's thread. An error here closes the session."""
        if self._events.qsize() > _MOST_EVENTS:
            raise BusyError("the events of a session are not taken; it is closed")
        self._loop.call_soon_threadsafe(self._events.put_nowait, event)
