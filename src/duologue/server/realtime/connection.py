"""One client of the Realtime API, whatever carries its events: client events in, server events out.

Nothing here waits, and all of it runs in one thread: the events of the engine are handed over by `soon`. What is heard
lies in `ears`, what is answered in `answers`, what the client does to items in `items`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from duologue.engine import Engine
from duologue.server.realtime.answers import Answers, forced, offered
from duologue.server.realtime.apart import Aparts
from duologue.server.realtime.audio import Format
from duologue.server.realtime.conversation import Conversation, Item, unanswered
from duologue.server.realtime.ears import Ears
from duologue.server.realtime.events import (
    ClientError,
    Event,
    check,
    client_id,
    error_event,
    new_id,
    read,
    server_event,
)
from duologue.server.realtime.items import Items
from duologue.server.realtime.limits import RealtimeLimits
from duologue.server.realtime.memory import Memory
from duologue.server.realtime.options import Options, Player
from duologue.server.realtime.quiet import Quiet
from duologue.server.realtime.responses import Emit
from duologue.server.realtime.seat import Decision, Policy, Seat, pieces
from duologue.server.realtime.session import Wanted, response, update
from duologue.server.session_log import short
from duologue.streaming import events as engine_events
from duologue.streaming.protocol import Chunked

_UNHEARD = 120.0  # seconds after which nobody waits any more for what was said in a turn


class Connection:
    """Follows the protocol for one client.

    Args:
        emit: takes the events to be sent, in order.
        soon: calls a function with arguments in this thread; from any thread.
        clock: seconds, ever growing.
        wall: seconds since 1970.
    Raises:
        BusyError: the engine has no place left.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        emit: Emit,
        soon: Callable[..., object],
        clock: Callable[[], float],
        wall: Callable[[], float],
        limits: RealtimeLimits | None = None,
        options: Options | None = None,
        player: Player | None = None,
    ):
        self._emit, self._clock = emit, clock
        self._limits, self._options = limits, options = limits or RealtimeLimits(), options or Options()
        model, settings = engine.runner.model, options.settings
        if options.beyond and isinstance(model, Chunked):
            settings = replace(settings, omegas=model.omegas)
        self.settings = settings
        self.id, self.over = new_id("sess"), False
        self._expires = int(wall() + limits.longest_session)
        self._begun = False  # whether there was anything at all
        self._awaited: Item | None = None  # the turn of which it is waited for what was said
        self._unheard_since = 0.0  # ... since when
        self.conversation = Conversation(limits)
        turns = settings.turn_detection
        self._seat = Seat(
            engine,
            self._happened,
            soon,
            turns=turns.turns() if turns else None,
            interrupts=turns is None or turns.interrupt_response,
            overlap=options.overlap,
            echo=options.echo,
            backlog=limits.backlog,
            policy=self._policy(),
            name=short(self.id),
        )
        self._seat.witness = options.witnesses("realtime", self.id)
        self._quiet = Quiet(limits, options.alarms, now=clock())
        self._memory = Memory(self._seat, self.conversation, instructions=settings.instructions, most=limits.memory)
        self._answers = Answers(
            self._seat,
            self.conversation,
            self._memory,
            emit,
            clock=clock,
            rate=engine.runner.spec.output_rate,
            kept_audio=limits.kept_audio,
            options=options,
            player=player,
            completed=self._answered,
        )
        self._ears = Ears(
            self._seat, self.conversation, settings, emit, limits=limits, idle=self._idle, free=self._free_to_feed
        )
        self._items = Items(
            self._seat,
            self.conversation,
            self._memory,
            self._answers,
            self._ears,
            emit,
            limits=limits,
            free=self._free,
        )
        self._aparts = Aparts(
            engine, soon, emit, limits=limits, options=options, heard=player is None, name=short(self.id)
        )

    @property
    def input_format(self) -> Format:
        """Of the sound that comes outside events."""
        return self.settings.input_format

    def begin(self) -> None:
        """Greets the client."""
        self._emit(server_event("session.created", session=self._session()))
        shown = {"id": self.conversation.id, "object": "realtime.conversation"}
        self._emit(server_event("conversation.created", conversation=shown))
        self._settle()

    def receive(self, raw: str | bytes) -> None:
        """Takes an event as JSON. What is wrong with it is told to the client."""
        event: Event | None = None
        try:
            event = read(raw, longest=self._limits.event)
            self.take(event)
        except ClientError as error:
            self.refuse(error, event)

    def refuse(self, error: ClientError, event: Event | None = None) -> None:
        """Tells the client what was wrong."""
        error.event_id = client_id(event)
        self._emit(error_event(error))

    def take(self, event: Event) -> None:
        """Follows an event.

        Raises:
            ClientError: it cannot be followed; nothing has changed.
        """
        check(event)
        self._quiet.last_word = self._clock()
        _HANDLERS[event["type"]](self, event)
        self._settle()

    def hear(self, data: bytes) -> None:
        """Takes audio that did not come inside an event, in the session's input format."""
        self._quiet.last_word = self._clock()
        self._ears.hear(data)

    def close(self) -> None:
        """Gives the places in the engine back."""
        self.over = True
        self._seat.close()
        self._aparts.close()

    def poll(self) -> float:
        """Does what it is time for. Returns the seconds until there may be more of it."""
        now, quiet = self._clock(), self._quiet
        if now >= quiet.end:
            minutes = self._limits.longest_session / 60
            self.fail(f"Your session hit the maximum duration of {minutes:g} minutes.", code="session_expired")
        elif now >= quiet.gone_at(now):
            self.fail(f"Nothing came for {self._limits.idle:g} seconds; the session is over.", code="session_idle")
        elif self._ears.hearing is not None and now >= self._unheard_since + _UNHEARD:
            self._ears.given_up()
            self._settle()
        elif quiet.broken_at is not None and now >= quiet.broken_at:
            self._break_silence()
        elif (soon := quiet.seconds_to_alarm()) is not None and soon <= 0:
            self._ring_if_quiet(now)
        return max(0.01, min(1.0, quiet.until(now, over=self.over) - self._clock()))

    def fail(self, message: str, *, code: str) -> None:
        """Ends the session."""
        if self.over:
            return
        self._answers.fail({"type": "server_error", "code": code, "message": message})
        self._emit(error_event(ClientError(message, code=code, kind="server_error")))
        self.close()

    def _session(self) -> dict[str, Any]:
        about = {"id": self.id, "object": "realtime.session", "expires_at": self._expires}
        return {**self.settings.as_dict(), **about}

    # -- what the client wants ----------------------------------------------------------------------------------------

    def _update(self, event: Event) -> None:
        before, spoken = self.settings, self._answers.spoken
        self.settings = update(before, event["session"], self._limits, spoken=spoken, begun=self._begun)
        self._begun = True
        self._seat.policy = self._policy()
        self._ears.set(self.settings)
        self._memory.instruct(self.settings.instructions)
        if self.settings.omega != before.omega:
            self._seat.set_omega(self.settings.omega)
        if self.settings.turn_detection is None:
            self._quiet.broken_at = None
        self._emit(server_event("session.updated", session=self._session()))

    def _policy(self) -> Policy:
        settings, turns = self.settings, self.settings.turn_detection
        answers = settings.type == "realtime" and turns is not None and turns.create_response
        options = self._options
        return Policy(
            answers,
            offered(settings),
            options.router,
            options.reply,
            options.alarms,
            forced=forced(settings),
            name=short(self.id),
        )

    def _append(self, event: Event) -> None:
        self._begun = True
        self._ears.append(event["audio"])

    def _commit(self, event: Event) -> None:
        self._ears.commit()

    def _clear(self, event: Event) -> None:
        self._ears.clear()

    def _clear_output(self, event: Event) -> None:
        self._answers.clear()

    def _create_item(self, event: Event) -> None:
        self._items.create(event, self.settings)
        self._begun = True

    def _retrieve(self, event: Event) -> None:
        self._items.retrieve(event)

    def _delete(self, event: Event) -> None:
        self._items.delete(event)

    def _truncate(self, event: Event) -> None:
        self._items.truncate(event)

    def _create(self, event: Event) -> None:
        settings, active = self.settings, self._answers.active
        if settings.type == "transcription":
            raise ClientError("A transcription session has no responses.", code="invalid_request")
        wanted = response(settings, event.get("response") or {}, self._limits, spoken=self._answers.spoken)
        items = None
        if wanted.input is not None:
            items = [self._items.referred(each, number, settings) for number, each in enumerate(wanted.input)]
        if wanted.apart:
            return self._aparts.begin(wanted, self.conversation.items if items is None else items)
        if active is not None:
            raise ClientError(
                f"Conversation already has an active response in progress: {active.id}. Wait until the response "
                "is finished before creating a new one.",
                code="conversation_already_has_active_response",
            )
        self._begun = True
        self._ears.take_back()
        self._ears.end_speech()
        self._quiet.broken_at = None
        self._answers.begin(wanted, items)

    def _cancel(self, event: Event) -> None:
        wanted, active = event.get("response_id"), self._answers.active
        if self._aparts.cancel(wanted):
            return
        if active is None or (wanted is not None and wanted != active.id):
            raise ClientError("Cancellation failed: no active response found", code="response_cancel_not_active")
        self._answers.cancel("client_cancelled")

    # -- what follows from it -----------------------------------------------------------------------------------------

    def _free(self) -> bool:
        """The model does nothing, and nothing waits to be answered."""
        return self._answers.active is None and self._ears.hearing is None and self._ears.speech is None

    def _idle(self) -> bool:
        """The model does nothing."""
        return self._answers.active is None or not self._answers.active.started

    def _free_to_feed(self) -> bool:
        """It may hear what may yet be taken back."""
        return self._free() and not self._answers.owed

    def _settle(self) -> None:
        """Does what could not be done before."""
        if self.over:
            return
        self._memory.stale |= self._ears.taken_back and bool(unanswered(self.conversation.items))
        self._ears.taken_back = False
        self._ears.feed()
        if self._ears.busy or self._ears.fed:
            self._answers.last = None  # to stop it now would stop the turn that has begun
        active = self._answers.active
        if active is not None and not active.started and not self._ears.busy:
            self._answers.start(active)
        elif self._memory.stale and self._free() and not self._ears.fed:
            self._memory.renew()
            self._answers.last = None
        answering = active is not None and active.started
        if answering or self._awaited is not self._ears.hearing:
            self._awaited, self._unheard_since = self._ears.hearing, self._clock()

    def _answered(self, left: float) -> None:
        """An answer was given, of which so many seconds are yet to be played."""
        turns = self.settings.turn_detection
        if turns is not None and turns.idle_timeout_ms is not None:
            timeout = turns.idle_timeout_ms / 1000
            self._quiet.begin(timeout, played=left, now=self._clock(), heard_ms=self._ears.now)

    def _break_silence(self) -> None:
        self._quiet.broken_at = None
        if self._free():
            self._ears.timed_out(self._quiet.broken_ms)
            self._answers.say(Wanted(settings=self.settings), (self._options.silence,))

    def _ring_if_quiet(self, now: float) -> None:
        """Says what timers have to say, unless somebody speaks, or the client seems to be about to."""
        by_hand = self.settings.turn_detection is None and self._ears.uncommitted > 0
        asking = self._answers.owed or (by_hand and now < self._quiet.last_word + 1.0)
        patient = self._quiet.waits(now, asking=asking)
        if patient or not self._free() or self._ears.busy or now < self._answers.played_at:
            return
        self._ears.take_back()
        self._quiet.broken_at = None
        texts = tuple(piece for text in self._quiet.ring(now) for piece in pieces(text))
        self._answers.say(Wanted(settings=self.settings), texts)

    # -- what the engine tells ----------------------------------------------------------------------------------------

    def _happened(self, event: engine_events.Event, decision: Decision | None) -> None:
        if self.over:
            return
        match event:
            case engine_events.SpeechStarted(at):
                self._speech_started(at)
            case engine_events.SpeechStopped(at):
                self._ears.stopped(at)
            case engine_events.Heard(text, final):
                self._heard(text, final, decision)
            case engine_events.Text(text):
                self._answers.write(text)
            case engine_events.Audio(samples):
                self._answers.speak(samples)
            case engine_events.Done(metrics):
                self._answers.go_on(metrics)
            case engine_events.Paused(heard):
                self._answers.pause(heard)
            case engine_events.Resumed():
                self._answers.resume()
            case engine_events.Interrupted(heard):
                self._answers.interrupted(heard)
            case engine_events.Failed(message):
                self.fail(message, code="model_failed")
        self._settle()

    def _speech_started(self, at: float) -> None:
        turns = self.settings.turn_detection
        self._quiet.broken_at = None
        self._ears.started(at)
        self._answers.talked_over(interrupts=turns is not None and turns.interrupt_response)

    def _heard(self, text: str, final: bool, decision: Decision | None) -> None:
        item = self._ears.heard(text, final=final)
        if not final:
            return
        if decision is None:
            self._answers.owed |= item is not None and self._answers.active is None
            return
        if self._answers.active is None:
            self._quiet.broken_at = None
        self._answers.heard(Wanted(settings=self.settings), decision)


_HANDLERS: dict[str, Callable[[Connection, Event], None]] = {
    "session.update": Connection._update,
    "input_audio_buffer.append": Connection._append,
    "input_audio_buffer.commit": Connection._commit,
    "input_audio_buffer.clear": Connection._clear,
    "output_audio_buffer.clear": Connection._clear_output,
    "conversation.item.create": Connection._create_item,
    "conversation.item.retrieve": Connection._retrieve,
    "conversation.item.truncate": Connection._truncate,
    "conversation.item.delete": Connection._delete,
    "response.create": Connection._create,
    "response.cancel": Connection._cancel,
}
