"""Responses outside the conversation, each in a place of its own in the engine."""

from __future__ import annotations

from collections.abc import Callable

from duologue.engine import Engine
from duologue.errors import BusyError
from duologue.server.realtime.answers import forced, offered
from duologue.server.realtime.conversation import Item, instructed, told, unanswered
from duologue.server.realtime.events import ClientError
from duologue.server.realtime.limits import RealtimeLimits
from duologue.server.realtime.options import Options
from duologue.server.realtime.responses import Emit, Response
from duologue.server.realtime.seat import Decision, Policy, Seat, Tools
from duologue.server.realtime.session import Wanted
from duologue.server.realtime.usage import Reading
from duologue.streaming import events as engine_events


class Aparts:
    """Those of one conversation.

    Args:
        heard: whether their speech goes out inside their events; otherwise it is not heard at all.
        name: of the conversation, in the log.
    """

    def __init__(
        self,
        engine: Engine,
        soon: Callable[..., object],
        emit: Emit,
        *,
        limits: RealtimeLimits,
        options: Options,
        heard: bool,
        name: str,
    ):
        self._engine, self._soon, self._emit = engine, soon, emit
        self._limits, self._options, self._heard, self._name = limits, options, heard, name
        self._running: dict[str, Apart] = {}  # by the response's id

    def begin(self, wanted: Wanted, items: list[Item]) -> None:
        """Has a response made that reads these items.

        Raises:
            ClientError: there are too many, or the engine has no place left.
        """
        if len(self._running) >= self._limits.apart:
            raise ClientError(
                f"At most {self._limits.apart} responses outside the conversation may run at once.",
                code="too_many_responses",
            )
        try:
            apart = Apart(
                self._engine,
                self._soon,
                wanted,
                items,
                self._emit,
                limits=self._limits,
                options=self._options,
                heard=self._heard,
                name=self._name,
            )
        except BusyError as error:
            raise ClientError(f"{error}.", code="server_busy", kind="server_error") from error
        number, settings = apart.response.id, wanted.settings
        self._running[number] = apart
        apart.start(lambda: self._running.pop(number, None), offered(settings), forced=forced(settings))

    def cancel(self, number: str | None) -> bool:
        """Returns whether that was the id of one of them."""
        if number not in self._running:
            return False
        self._running[number].cancel()
        return True

    def close(self) -> None:
        for each in list(self._running.values()):
            each.close()
        self._running.clear()


class Apart:
    """One such response.

    Args:
        heard: whether its speech goes out inside its events; otherwise it is not heard at all.
        name: of the conversation, in the log.
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
        name: str = "",
    ):
        self._wanted, self._items, self._limits, self._options = wanted, items, limits, options
        self._name = name
        paced = wanted.settings.modality == "audio"
        self._seat = Seat(engine, self._happened, soon, policy=Policy(False), paced=paced, name=name)
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
        policy = Policy(False, tools, options.router, options.reply, options.alarms, forced, name=self._name)
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
