"""Many live conversations with one model, on one thread that owns the model and the device.

engine = Engine(model); engine.start()
session = engine.open(sink)          # any thread; BusyError where every place is taken
session.listen(samples)              # ... and events come to `sink`

Every step hears one tick of every session that has one, then either ends turns or speaks, for all sessions that need it
in one batched call. A duplex family hears and speaks on the clock, one tick for all its sessions (`duplex`). What the
sessions do lies in `session`, who comes first in `scheduler`.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from duologue.audio.vad import SAMPLE_RATE, VoiceActivity, together
from duologue.engine.duplex import TickClock
from duologue.engine.pace import Pace
from duologue.engine.runner import Runner
from duologue.engine.scheduler import Scheduler, SchedulerConfig
from duologue.engine.session import Session, SessionConfig, Sink
from duologue.errors import BusyError, DuologueError, ServerError, in_a_line, where
from duologue.streaming.events import Event
from duologue.streaming.protocol import StreamingModel

logger = logging.getLogger(__name__)

_IDLE = 0.05  # seconds between two looks where there is nothing to do
_WINDOWS = 32  # of each session that are looked at in one step: a second


class Watch(Protocol):
    """Who counts what happens; see `server.metrics`. Nothing here may wait."""

    def step(self, seconds: float) -> None: ...
    def opened(self) -> None: ...
    def refused(self) -> None: ...
    def underrun(self) -> None: ...
    def missed(self, sessions: int) -> None: ...
    def event(self, event: Event) -> None: ...


class Engine:
    """Owns a model.

    Args:
        slots: most conversations at once.
        clock: seconds, ever growing.
    Raises:
        ServerError: a turn family hears at another rate than the voice detector.
    """

    def __init__(
        self,
        model: StreamingModel,
        *,
        slots: int = 8,
        voice: VoiceActivity | None = None,
        scheduler: SchedulerConfig | None = None,
        watch: Watch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        if model.spec.input_rate != SAMPLE_RATE and not model.spec.duplex:
            raise ServerError(f"engine: need a model that hears at {SAMPLE_RATE} Hz, got {model.spec.input_rate} Hz")
        self.tick_due = False  # whether the present step is a tick of the sessions on the clock
        self._clock = TickClock(model.spec.tick)
        self.runner, self.voice, self.now = Runner(model, slots), voice or VoiceActivity.load(), clock
        self.watch, self.pace = watch, Pace()
        self._scheduler: Scheduler[Session] = Scheduler(scheduler)
        self._inbox: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._free = list(reversed(range(slots)))
        self._sessions: dict[int, Session] = {}  # by slot
        self._names: dict[int, str] = {}  # ... what the log calls them
        self._trouble: str | None = None  # what the last step failed with
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # -- for any thread -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stops after the present step; sessions get no more events."""
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join()

    @property
    def alive(self) -> bool:
        """The engine's thread runs."""
        return self._thread.is_alive()

    @property
    def free(self) -> int:
        """Places left."""
        return len(self._free)

    @property
    def waiting(self) -> int:
        """Calls that wait for the engine's thread."""
        return self._inbox.qsize()

    def open(self, sink: Sink, config: SessionConfig | None = None, *, name: str = "") -> Session:
        """Begins a conversation.

        Args:
            name: what the log calls it; empty: by its slot.
        Raises:
            BusyError: every place is taken.
        """
        with self._lock:
            if not self._free:
                if self.watch:
                    self.watch.refused()
                raise BusyError(f"all {self.runner.slots} places are taken; come back when a conversation has ended")
            slot = self._free.pop()
            self._names[slot] = name or f"slot {slot}"
        session = Session(self, slot, sink, config or SessionConfig())
        if self.watch:
            self.watch.opened()
        self.post(lambda: self._sessions.__setitem__(slot, session))
        return session

    def post(self, call: Callable[[], Any]) -> None:
        """Has something done on the engine's thread, in order."""
        self._inbox.put(call)

    # -- on the engine's thread ---------------------------------------------------------------------------------------

    def release(self, session: Session) -> None:
        """Takes a session's place back."""
        if session.closed:
            return
        session.closed = True
        self._sessions.pop(session.slot, None)
        self.runner.reset(session.slot)
        with self._lock:
            self._free.append(session.slot)

    def serves_others(self, session: Session) -> bool:
        """Whether anybody else speaks or is spoken to."""
        return any(other.active for other in self._sessions.values() if other is not session)

    def deliver(self, session: Session, sink: Sink, event: Event) -> None:
        if self.watch:
            self.watch.event(event)
        try:
            sink(event)
        except Exception as error:
            self._tell(session.slot, "its events cannot be delivered, it is closed", error)
            self.release(session)

    def report(self, failed: Mapping[int, Exception]) -> None:
        """Ends the sessions in whose slots the model failed."""
        for slot, error in failed.items():
            self._tell(slot, "failed", error)
            if slot in self._sessions:
                known = isinstance(error, DuologueError)
                self._sessions[slot].fail(str(error) if known else "the model failed; begin a new conversation")

    def _tell(self, slot: int, what: str, error: Exception) -> None:
        """One line in the log; how it came to it only where details are logged."""
        level = logging.WARNING if isinstance(error, DuologueError) else logging.ERROR
        logger.log(level, "%s: %s: %s", self._names.get(slot, f"slot {slot}"), what, in_a_line(error))
        logger.debug("%s: %s", self._names.get(slot, f"slot {slot}"), what, exc_info=error)

    def step(self) -> bool:
        """Does what is to be done now. Returns whether there was anything."""
        waiting = self._find_turns()
        self._look_at_clock()
        plan = self._scheduler.plan(self._sessions.values(), self.now())
        if plan.listen:
            ticks = {session.slot: session.next_tick() for session in plan.listen}
            self._done(plan.listen, self.runner.listen(ticks), Session.listened)
        for session in plan.write:
            session.write_on()
        if plan.end:
            self._done(plan.end, self.runner.end_turn([session.slot for session in plan.end]), Session.turn_ended)
        speak = plan.listen if self.runner.spec.duplex else plan.speak
        speak = [session for session in speak if not session.closed]
        if speak:
            begin = self.now()
            spoken, failed = self.runner.speak([session.slot for session in speak])
            if any(step.ids for step in spoken.values()):
                self.pace.thought(self.now() - begin)
            self._done(speak, failed, lambda session: session.spoke(spoken[session.slot]))
        if self.tick_due:
            self._end_tick(plan.listen)
        return waiting or not plan.empty

    def _look_at_clock(self) -> None:
        if not any(session.on_clock for session in self._sessions.values()):
            self._clock.rest()
            self.tick_due = False
        else:
            self.tick_due = self._clock.due(self.now())

    def _end_tick(self, heard: list[Session]) -> None:
        missed, lost = self._clock.done(self.now())
        ticked = {session.slot for session in heard}
        if missed and ticked and self.watch:
            self.watch.missed(len(ticked))
        for session in self._sessions.values():
            if session.on_clock and (lost or session.slot not in ticked):
                session.skip(lost + (session.slot not in ticked))

    def _done(self, sessions: list[Session], failed: dict[int, Exception], then: Callable[[Session], None]) -> None:
        self.report(failed)
        for session in sessions:
            if session.slot not in failed and not session.closed:
                then(session)

    def _find_turns(self) -> bool:
        """Looks at what was heard. Returns whether there is more: who sends faster than real time waits."""
        for _ in range(_WINDOWS):
            waiting = [(s, window) for s in self._sessions.values() if (window := s.next_window()) is not None]
            if not waiting:
                return False
            with torch.inference_mode():
                states = [session.vad for session, _ in waiting]
                probabilities = together(self.voice, [window for _, window in waiting], states)
            for (session, _), probability in zip(waiting, probabilities, strict=True):
                session.take_window(probability)
        return True

    def _take_posts(self, *, wait: float | None) -> bool:
        """Does what was posted. Returns whether the engine goes on."""
        try:
            call = self._inbox.get(timeout=wait) if wait else self._inbox.get_nowait()
            while call is not None:
                call()
                call = self._inbox.get_nowait()
            return False
        except queue.Empty:
            return True

    def _run(self) -> None:
        busy = False
        while self._take_posts(wait=None if busy else min(_IDLE, self._clock.wait(self.now()))):
            try:
                begin = time.perf_counter()
                busy = self.step()
                if busy and self.watch:
                    self.watch.step(time.perf_counter() - begin)
                self._trouble = None
            except Exception as error:  # a bug; the conversations that can go on do
                before, self._trouble, busy = self._trouble, where(error), False
                if self._trouble != before:  # it may come back at every step
                    logger.error("a step of the engine failed: %s", self._trouble)
                    logger.debug("a step of the engine failed", exc_info=error)
