"""A response outside the conversation, in a place of its own in the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from duologue.engine import Engine
from duologue.server.realtime.conversation import Item, instructed, told, unanswered
from duologue.server.realtime.limits import RealtimeLimits
from duologue.server.realtime.responses import Emit, Response
from duologue.server.realtime.seat import Decision, Policy, Seat, Tools
from duologue.server.realtime.session import Wanted
from duologue.server.realtime.usage import Reading
from duologue.streaming import events as engine_events

if TYPE_CHECKING:
    from duologue.server.realtime.connection import Options


class Apart:
    """One such response.

    Args:
        heard: whether its speech goes out inside its events; otherwise it is not heard at all.
    Raises:
        BusyError: the engine has no place left.
    """

    def __init__(
        self,
        engine: Engine,
        soon: Callable[..., object],
        wanted: Wanted,
        items: list[Item],
        emit: Emit,
        *,
        limits: RealtimeLimits,
        options: Options,
        heard: bool = True,
    ):
        self._wanted, self._items, self._limits, self._options = wanted, items, limits, options
        self._seat = Seat(engine, self._happened, soon, policy=Policy(False), paced=wanted.settings.modality == "audio")
        play = None if heard else lambda response, samples: None
        self._seat.set_omega(wanted.settings.omega)
        self.response = Response(wanted, emit, conversation=None, rate=engine.runner.spec.output_rate, play=play)
        self._more: list[str] = []  # what is to be said after what is being said
        self._over: Callable[[], object] = lambda: None

    def start(self, over: Callable[[], object], tools: Tools = (), *, forced: bool = False) -> None:
        """Asks the model. `over` is called when there is nothing more to come."""
        self._over = over
        self.response.begin()
        settings, items = self._wanted.settings, self._items
        self.response.reads(Reading(settings.instructions, items))
        questions = unanswered(items)
        options = self._options
        policy = Policy(False, tools, options.router, options.reply, options.alarms, forced)
        results = any(item.kind == "function_call_output" for item in questions)
        words = " ".join(item.text for item in questions if item.role == "user")
        decision = Decision() if results else policy.decide(words)
        policy.sure()
        if decision.call is not None:
            self.response.call(*decision.call)
            return self._finish("completed")
        system = instructed(settings.instructions, items)
        turns = told(items, most=self._limits.memory)
        if not questions:
            turns.append(("user", self._wanted.instructions or self._options.opening))
        self._seat.forget(*([("system", system)] if system else []), *turns)
        self._more = list(decision.said[1:])
        self._seat.answer(*decision.said[:1])

    def cancel(self) -> None:
        self._finish("cancelled", "client_cancelled")

    def close(self) -> None:
        self._seat.close()

    def _happened(self, event: engine_events.Event, decision: Decision | None) -> None:
        response = self.response
        if not response.running:
            return
        match event:
            case engine_events.Text(text):
                response.write(text)
            case engine_events.Audio(samples):
                response.speak(samples)
            case engine_events.Done() if self._more:
                self._seat.answer(self._more.pop(0))
            case engine_events.Done():
                self._finish("completed")
            case engine_events.Failed(message):
                error = {"type": "server_error", "code": "model_failed", "message": message}
                self._finish("failed", error=error)
        if response.running and response.too_long:
            self._finish("incomplete", "max_output_tokens")

    def _finish(self, status: str, reason: str | None = None, error: dict[str, str] | None = None) -> None:
        self.response.finish(status, reason, error)
        self._seat.close()
        self._over()
