"""One client of the Realtime API, whatever carries its events: client events in, server events out.

Nothing here waits, and all of it runs in one thread: the events of the engine are handed over by `soon`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from duologue.engine import Engine
from duologue.errors import BusyError
from duologue.server.realtime.apart import Apart
from duologue.server.realtime.conversation import (
    Conversation,
    Item,
    instructed,
    read_item,
    told,
    tool_result,
    unanswered,
)
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
from duologue.server.realtime.limits import RealtimeLimits
from duologue.server.realtime.responses import Emit, Response
from duologue.server.realtime.seat import Alarms, Decision, Policy, Reply, Router, Seat, Tools, pieces
from duologue.server.realtime.session import Settings, Wanted, response, update
from duologue.server.realtime.usage import Reading
from duologue.server.session_log import short
from duologue.server.witness import Called, Witnesses, Wrote, nobody
from duologue.streaming import events as engine_events
from duologue.streaming.protocol import Chunked
from duologue.streaming.turns import OverlapConfig

logger = logging.getLogger(__name__)

_UNHEARD = 120.0  # seconds after which nobody waits any more for what was said in a turn
_TAIL = 0.25  # seconds at the end of an answer that are too short to be missed
_POLITE = 30.0  # seconds that a timer waits where the client may be about to ask for something


class Player(Protocol):
    """Takes the speech where it does not go out inside events, such as to a track of WebRTC. It plays as fast as is to
    be heard, and tells the client of it: `output_audio_buffer.*`."""

    def play(self, response: Response, samples: np.ndarray) -> None:
        """The next speech of a response, at the model's rate."""
        ...

    def finish(self) -> None:
        """No more speech comes of the response that was given last."""
        ...

    def played(self, response: Response) -> float:
        """Seconds of a response that were played by now; negative while it waits for others."""
        ...

    def stand(self, still: bool) -> None:
        """Stands still, or goes on."""
        ...

    def clear(self) -> list[tuple[Response, float]]:
        """Drops what was not played yet. Gives the responses that this cuts short, with the seconds of each played."""
        ...


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a server does in its own way."""

    settings: Settings = field(default_factory=Settings)
    router: Router | None = None
    reply: Reply | None = None
    alarms: Alarms | None = None  # what is said when its time has come, also in the middle of silence
    overlap: OverlapConfig | None = None  # how it is found out whether speech over an answer is to stop it
    echo: bool = False  # whether the answer is taken out of what the microphone hears
    opening: str = "Hello."  # stands for the user's words where a response is wanted and nothing was said
    witnesses: Witnesses = nobody  # who is told what happens
    silence: str = "Are you still there?"  # said when `idle_timeout_ms` has passed
    beyond: bool = False  # whether the client knows the `duologue.*` events; others end at an event they do not know


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
        self._engine, self._emit, self._soon, self._clock = engine, emit, soon, clock
        self._limits, self._options, self._player = limits or RealtimeLimits(), options or Options(), player
        model, settings = engine.runner.model, self._options.settings
        if self._options.beyond and isinstance(model, Chunked):
            settings = replace(settings, omegas=model.omegas)
        self.settings = settings
        self.id, self.over = new_id("sess"), False
        self._expires = int(wall() + self._limits.longest_session)
        self._end, self._last_word = clock() + self._limits.longest_session, clock()
        self.conversation = Conversation(self._limits)
        self._active: Response | None = None
        self._items: list[Item] | None = None  # what it reads instead of the conversation
        self._apart: dict[str, Apart] = {}
        self._spoken = self._begun = False  # whether there was speech of the model's; anything at all
        self._stale = bool(settings.instructions)  # whether the model must be told everything anew
        self._owed = False  # whether a turn was heard that has no answer yet
        self._awaited: Item | None = None  # the turn of which it is waited for what was said
        self._more: tuple[str, ...] = ()  # what is to be said after what is being said
        self._said = 0.0  # seconds of the response that the engine gave before what it is saying now
        self._cut: float | None = None  # seconds that were heard of an answer that was just interrupted
        self._last: Response | None = None  # the response whose memory can still be cut in the engine
        self._first_sound = self._unheard_since = self._played_at = 0.0
        self._due_since: float | None = None  # when it was first time for an alarm that had to wait
        self._silent_at: float | None = None
        self._silence_ms = 0.0
        turns = settings.turn_detection
        self._seat = Seat(
            engine,
            self._happened,
            soon,
            turns=turns.turns() if turns else None,
            interrupts=turns is None or turns.interrupt_response,
            overlap=self._options.overlap,
            echo=self._options.echo,
            backlog=self._limits.backlog,
            policy=self._policy(),
        )
        self._seat.witness = self._options.witnesses("realtime", self.id)
        self._ears = Ears(
            self._seat, self.conversation, settings, emit, limits=self._limits, idle=self._idle, free=self._free_to_feed
        )

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
        self._last_word = self._clock()
        _HANDLERS[event["type"]](self, event)
        self._settle()

    def hear(self, data: bytes) -> None:
        """Takes audio that did not come inside an event, in the session's input format."""
        self._last_word = self._clock()
        self._ears.hear(data)

    def close(self) -> None:
        """Gives the places in the engine back."""
        self.over = True
        self._seat.close()
        for each in list(self._apart.values()):
            each.close()
        self._apart.clear()

    def poll(self) -> float:
        """Does what it is time for. Returns the seconds until there may be more of it."""
        now = self._clock()
        if now >= self._end:
            minutes = self._limits.longest_session / 60
            self.fail(f"Your session hit the maximum duration of {minutes:g} minutes.", code="session_expired")
        elif now >= self._idle_at(now):
            self.fail(f"Nothing came for {self._limits.idle:g} seconds; the session is over.", code="session_idle")
        elif self._ears.hearing is not None and now >= self._unheard_since + _UNHEARD:
            self._ears.given_up()
            self._settle()
        elif self._silent_at is not None and now >= self._silent_at:
            self._break_silence()
        elif (soon := self._seconds_to_alarm()) is not None and soon <= 0:
            self._ring_if_quiet(now)
        times = [self._end, self._idle_at(now)]
        times += [self._silent_at] if self._silent_at is not None else []
        if not self.over and (soon := self._seconds_to_alarm()) is not None:
            times.append(now + (soon or 0.1))
        return max(0.01, min(1.0, min(times) - self._clock()))

    def _idle_at(self, now: float) -> float:
        """When a client counts as gone that says nothing: not while it waits for an alarm."""
        soon = self._seconds_to_alarm()
        return (self._last_word if soon is None else now + soon) + self._limits.idle

    def fail(self, message: str, *, code: str) -> None:
        """Ends the session."""
        if self.over:
            return
        if self._active is not None:
            self._active.finish("failed", error={"type": "server_error", "code": code, "message": message})
            self._active = None
        self._emit(error_event(ClientError(message, code=code, kind="server_error")))
        self.close()

    def _session(self) -> dict[str, Any]:
        about = {"id": self.id, "object": "realtime.session", "expires_at": self._expires}
        return {**self.settings.as_dict(), **about}

    # -- what the client wants: session and audio ---------------------------------------------------------------------

    def _update(self, event: Event) -> None:
        before = self.settings
        self.settings = update(before, event["session"], self._limits, spoken=self._spoken, begun=self._begun)
        self._begun = True
        self._seat.policy = self._policy()
        self._ears.set(self.settings)
        self._stale |= self.settings.instructions != before.instructions
        if self.settings.omega != before.omega:
            self._seat.set_omega(self.settings.omega)
        if self.settings.turn_detection is None:
            self._silent_at = None
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
        if self._player is None:
            raise ClientError(
                "There is no output audio buffer on a WebSocket: stop playing, and send 'response.cancel' and "
                "'conversation.item.truncate'.",
                code="unsupported_event",
            )
        if self._active is not None and self._active.seconds:
            return self._cancel_active("client_cancelled")
        last, cut = self._last, self._hush()
        if last is not None and (played := _seconds_of(last, cut)) is not None:
            self._stop_at(played)
            self._last = None
        self._show_cut(cut, known=last)

    # -- what the client wants: items ---------------------------------------------------------------------------------

    def _create_item(self, event: Event) -> None:
        item = read_item(event["item"], self._limits, format=self.settings.input_format)
        if item.kind == "function_call_output" and not self.conversation.knows_call(item.call_id):
            raise ClientError(
                f"Tool call ID '{item.call_id}' not found in conversation.",
                code="invalid_tool_call_id",
                param="item.call_id",
            )
        last = self.conversation.add(item, event.get("previous_item_id"))
        self._begun = True
        previous = self.conversation.before(item)
        for kind in ("added", "done"):
            self._emit(server_event(f"conversation.item.{kind}", previous_item_id=previous, item=item.as_dict()))
        if item.kind == "message" and item.text:
            self._seat.witness.happen(Wrote(item.role, item.text))
        self._tell(item, last=last)

    def _tell(self, item: Item, *, last: bool) -> None:
        """Tells the model of an item that the client has added."""
        sound = next((part for part in item.parts if part.type == "input_audio" and part.audio and not part.text), None)
        if sound is not None and last:
            self._ears.listen_to(item, self._ears.samples(sound))
        turns = told([item], most=self._limits.memory)
        if item.kind == "function_call_output":
            turns = [("user", tool_result(self._called(item.call_id), item.output))]
        if item.role == "system" or not last or not self._free() or self._ears.fed:
            self._stale |= bool(turns) or item.role == "system"
        elif not self._stale:
            for role, text in turns:
                self._seat.write(role, text)
                self._last = None

    def _called(self, call_id: str) -> str:
        """The name of the function that was called."""
        return next((item.name for item in self.conversation.items if item.call_id == call_id and item.name), "")

    def _find(self, event: Event, what: str) -> Item:
        if (item := self.conversation.find(event["item_id"])) is None:
            raise ClientError(
                f"Error {what} item: the item with id '{event['item_id'][:100]}' does not exist.",
                code=f"item_{_VERBS[what]}_invalid_item_id",
                param="item_id",
            )
        return item

    def _retrieve(self, event: Event) -> None:
        item = self._find(event, "retrieving")
        self._emit(server_event("conversation.item.retrieved", item=item.as_dict(audio=True)))

    def _delete(self, event: Event) -> None:
        item = self._find(event, "deleting")
        self.conversation.remove(item)
        self._stale = True
        self._emit(server_event("conversation.item.deleted", item_id=item.id))

    def _truncate(self, event: Event) -> None:
        item, index, end = self._find(event, "truncating"), event["content_index"], event["audio_end_ms"]
        parts = item.parts if item.role == "assistant" else []
        if not 0 <= index < len(parts) or parts[index].type != "output_audio":
            raise ClientError(
                "Only model output audio messages can be truncated", code="unsupported_content_type", param="item_id"
            )
        part = parts[index]
        if end < 0 or end > part.milliseconds + 1:
            raise ClientError(
                f"Audio content of {part.milliseconds:.0f}ms is already shorter than {end}ms", param="audio_end_ms"
            )
        if self._active is not None and self._active.item is item:
            self._cancel_active("client_cancelled", heard=end / 1000)
        elif self._last is not None and self._last.item is item:
            self._stop_at(end / 1000)
            self._last = None
        elif part.heard is None or abs(part.heard - end) > 1_000:
            self._stale |= end < part.milliseconds - 1
        part.cut(end)
        truncated = {"item_id": item.id, "content_index": index, "audio_end_ms": end}
        self._emit(server_event("conversation.item.truncated", **truncated))

    # -- what the client wants: responses -----------------------------------------------------------------------------

    def _create(self, event: Event) -> None:
        if self.settings.type == "transcription":
            raise ClientError("A transcription session has no responses.", code="invalid_request")
        wanted = response(self.settings, event.get("response") or {}, self._limits, spoken=self._spoken)
        items = None if wanted.input is None else [self._referred(each, n) for n, each in enumerate(wanted.input)]
        if wanted.apart:
            return self._create_apart(wanted, self.conversation.items if items is None else items)
        if self._active is not None:
            raise ClientError(
                f"Conversation already has an active response in progress: {self._active.id}. Wait until the response "
                "is finished before creating a new one.",
                code="conversation_already_has_active_response",
            )
        self._begun = True
        self._ears.take_back()
        self._ears.end_speech()
        self._items = items
        self._respond(wanted)

    def _referred(self, value: dict[str, Any], number: int) -> Item:
        """An item that a response is to read: a new one, or one of the conversation's."""
        path = f"response.input[{number}]"
        if value.get("type") != "item_reference":
            return read_item(value, self._limits, format=self.settings.input_format, path=path)
        item = self.conversation.find(str(value.get("id")))
        if item is None:
            raise ClientError(
                f"Item with id '{str(value.get('id'))[:100]}' not found in conversation.",
                code="item_not_found",
                param=f"{path}.id",
            )
        return item

    def _create_apart(self, wanted: Wanted, items: list[Item]) -> None:
        if len(self._apart) >= self._limits.apart:
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
                heard=self._player is None,
            )
        except BusyError as error:
            raise ClientError(f"{error}.", code="server_busy", kind="server_error") from error
        self._apart[apart.response.id] = apart
        tools = offered(wanted.settings)
        apart.start(lambda: self._apart.pop(apart.response.id, None), tools, forced=forced(wanted.settings))

    def _cancel(self, event: Event) -> None:
        wanted = event.get("response_id")
        if wanted in self._apart:
            return self._apart[wanted].cancel()
        if self._active is None or (wanted is not None and wanted != self._active.id):
            raise ClientError("Cancellation failed: no active response found", code="response_cancel_not_active")
        self._cancel_active("client_cancelled")

    def _cancel_active(self, reason: str, *, heard: float | None = None) -> None:
        active = self._active
        if active is None:
            return
        cut = self._hush()
        played = _seconds_of(active, cut) or 0.0
        if active.started:
            self._stop_at(played if heard is None and self._player is not None else heard)
        self._stale |= active.settings.modality == "text"
        self._finish("cancelled", reason)
        self._show_cut([each for each in cut if heard is None or each[0] is not active], known=active)

    def _stop_at(self, heard: float | None) -> None:
        """Has the engine stop where so much of the response was heard; None: as much as can have been."""
        if heard is None:
            return self._seat.stop()
        self._stale |= heard < self._said
        self._seat.stop(max(0.0, heard - self._said))

    def _hush(self) -> list[tuple[Response, float]]:
        """Stops what is playing, where the server plays it. Gives what that cuts short."""
        return self._player.clear() if self._player is not None else []

    def _show_cut(self, cut: list[tuple[Response, float]], *, known: Response | None) -> None:
        """Cuts the items of responses to what was played of them. `known`: the one whose rest the model forgets."""
        for ended, seconds in cut:
            item = ended.item
            if item is None or self.conversation.find(item.id) is None:
                continue
            end = round(seconds * 1000)
            self._stale |= ended is not known and ended.seconds - seconds > _TAIL
            item.parts[0].cut(end)
            truncated = {"item_id": item.id, "content_index": 0, "audio_end_ms": end}
            self._emit(server_event("conversation.item.truncated", **truncated))

    # -- answers ------------------------------------------------------------------------------------------------------

    def _respond(self, wanted: Wanted) -> Response:
        """Begins a response; the model is asked as soon as it can be."""
        play = self._player.play if self._player else None
        rate = self._engine.runner.spec.output_rate
        self._active = Response(wanted, self._emit, conversation=self.conversation, rate=rate, play=play)
        self._silent_at = self._last = None
        self._owed, self._more, self._said = False, (), 0.0
        self._active.begin()
        return self._active

    def _free(self) -> bool:
        """The model does nothing, and nothing waits to be answered."""
        return self._active is None and self._ears.hearing is None and self._ears.speech is None

    def _idle(self) -> bool:
        """The model does nothing."""
        return self._active is None or not self._active.started

    def _free_to_feed(self) -> bool:
        """It may hear what may yet be taken back."""
        return self._free() and not self._owed

    def _settle(self) -> None:
        """Does what could not be done before."""
        if self.over:
            return
        self._stale |= self._ears.taken_back and bool(unanswered(self.conversation.items))
        self._ears.taken_back = False
        self._ears.feed()
        if self._ears.busy or self._ears.fed:
            self._last = None  # to stop it now would stop the turn that has begun
        active = self._active
        if active is not None and not active.started and not self._ears.busy:
            self._start(active)
        elif self._stale and self._free() and not self._ears.fed:
            self._remind()
        answering = active is not None and active.started
        if answering or self._awaited is not self._ears.hearing:
            self._awaited, self._unheard_since = self._ears.hearing, self._clock()

    def _remind(self, instructions: str | None = None, items: list[Item] | None = None) -> None:
        """Has the model forget everything, and tells it what it is to know."""
        items = self.conversation.items if items is None else items
        system = instructed(self.settings.instructions if instructions is None else instructions, items)
        turns = told(items, most=self._limits.memory)
        self._seat.forget(*([("system", system)] if system else []), *turns)
        self._stale, self._last = False, None

    def _start(self, active: Response) -> None:
        """Asks the model."""
        wanted, items = active.wanted, self._items
        questions = unanswered(self.conversation.items if items is None else items)
        own = wanted.instructions is not None and bool(questions)
        if items is not None or own or self._stale:
            self._remind(wanted.instructions, items)
            self._stale = items is not None or own
        elif not questions:
            self._seat.write("user", wanted.instructions or self._options.opening)
        self._read(active, items)
        words = " ".join(item.text for item in questions if item.role == "user")
        results = any(item.kind == "function_call_output" for item in questions)
        policy = replace(self._seat.policy, tools=offered(active.settings), forced=forced(active.settings))
        decision = Decision() if results else policy.decide(words)
        policy.sure()
        active.started = decision.call is None
        self._follow(active, decision, ask=True)

    def _read(self, active: Response, items: list[Item] | None = None) -> None:
        items = self.conversation.items if items is None else items
        active.reads(Reading(active.settings.instructions, items))

    def _follow(self, active: Response, decision: Decision, *, ask: bool) -> None:
        """Does what was decided about an answer."""
        if decision.call is not None:
            active.call(*decision.call)
            self._seat.witness.happen(Called(decision.call[0]))
            self._owed = True
            return self._finish("completed")
        active.started = True
        self._more = decision.said[1:]
        if ask:
            self._seat.answer(*decision.said[:1])

    def _finish(self, status: str, reason: str | None = None) -> None:
        active, self._active = self._active, None
        if active is None:
            return
        active.finish(status, reason)
        if self._player is not None:
            self._player.finish()
        self._items = None
        self._spoken |= active.seconds > 0
        self._last = active if status == "completed" and active.item else None
        self.conversation.forget_audio(longest=self._limits.kept_audio)
        turns, now = self.settings.turn_detection, self._clock()
        played = max(0.0, self._first_sound + active.seconds - now) if active.seconds else 0.0
        self._played_at = now + played if status == "completed" else now
        if turns is not None and turns.idle_timeout_ms is not None and status == "completed":
            self._silent_at = now + played + turns.idle_timeout_ms / 1000
            self._silence_ms = self._ears.now + played * 1000

    def _break_silence(self) -> None:
        self._silent_at = None
        if not self._free():
            return
        self._ears.timed_out(self._silence_ms)
        self._say((self._options.silence,))

    def _say(self, texts: tuple[str, ...]) -> None:
        """Says something that nobody asked for, as a response of its own."""
        active = self._respond(Wanted(settings=self.settings))
        if self._stale:
            self._remind()
        self._read(active)
        self._follow(active, Decision(said=texts), ask=True)

    def _seconds_to_alarm(self) -> float | None:
        return self._options.alarms.seconds_to_due() if self._options.alarms else None

    def _ring_if_quiet(self, now: float) -> None:
        """Says what timers have to say, unless somebody speaks, or the client seems to be about to."""
        if self._due_since is None:
            self._due_since = now
        by_hand = self.settings.turn_detection is None
        asking = self._owed or (by_hand and self._ears.uncommitted > 0 and now < self._last_word + 1.0)
        patient = asking and now < self._due_since + _POLITE
        if patient or not self._free() or self._ears.busy or now < self._played_at or self._options.alarms is None:
            return
        self._due_since, self._last_word = None, now
        self._ears.take_back()
        self._say(tuple(piece for text in self._options.alarms.due() for piece in pieces(text)))

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
            case engine_events.Text(text) if self._active is not None:
                self._active.write(text)
                self._measure(self._active)
            case engine_events.Audio(samples) if self._active is not None:
                if not self._active.seconds:
                    self._first_sound = self._clock()
                self._active.speak(samples)
                self._tell_played(self._active)
                self._measure(self._active)
            case engine_events.Done(metrics) if self._active is not None and self._active.started:
                self._go_on(self._active, metrics)
            case engine_events.Paused(heard):
                self._stand(True)
                self._beyond("duologue.paused", audio_end_ms=round(heard * 1000))
            case engine_events.Resumed():
                self._stand(False)
                self._beyond("duologue.resumed")
            case engine_events.Interrupted(heard):
                self._cut = heard
            case engine_events.Failed(message):
                self.fail(message, code="model_failed")
        self._settle()

    def _tell_played(self, active: Response) -> None:
        """Tells the engine, which cuts its memory by it."""
        if self._player is not None and active.seconds:
            self._seat.playing(self._player.played(active) - self._said)

    def _stand(self, still: bool) -> None:
        if self._player is not None:
            self._player.stand(still)

    def _beyond(self, kind: str, **fields: Any) -> None:
        """Sends what the protocol has no event for, to a client that asked for it."""
        if self._options.beyond:
            self._emit(server_event(kind, **fields))

    def _go_on(self, active: Response, metrics: engine_events.Metrics) -> None:
        """What was to be said was said."""
        active.metrics = active.metrics or metrics
        if not self._more:
            about = {"audio_seconds": round(active.seconds, 3), "real_time_factor": active.metrics.real_time_factor}
            self._beyond(
                "duologue.metrics", response_id=active.id, first_audio_ms=active.metrics.first_audio_ms, **about
            )
            return self._finish("completed")
        self._said = active.seconds
        first, *rest = self._more
        self._more = tuple(rest)
        self._seat.answer(first)

    def _measure(self, active: Response) -> None:
        """Stops a response that has become too long."""
        if active.too_long:
            self._seat.stop(active.seconds)
            self._finish("incomplete", "max_output_tokens")

    def _speech_started(self, at: float) -> None:
        self._silent_at = None
        self._ears.started(at)
        heard, self._cut = self._cut, None
        if heard is None:
            turns = self.settings.turn_detection
            if turns is not None and turns.interrupt_response:  # what is left of an answer, if anything
                self._show_cut(self._hush(), known=None)
            return
        ended, cut = self._active or self._last, self._hush()
        if self._player is None and ended is not None and ended.item is not None and ended.item.parts:
            ended.item.parts[0].heard = (self._said + heard) * 1000
        if ended is not None:
            self._stale |= ended.settings.modality == "text"
        if self._active is not None:
            self._finish("cancelled", "turn_detected")
        self._show_cut(cut, known=ended)
        self._last = None

    def _heard(self, text: str, final: bool, decision: Decision | None) -> None:
        item = self._ears.heard(text, final=final)
        if not final:
            return
        if decision is None:
            self._owed |= item is not None and self._active is None
            return
        active = self._active
        if active is None:
            active = self._respond(Wanted(settings=self.settings))
            self._items = None
        if not active.started:
            self._read(active, self._items)
            self._follow(active, decision, ask=False)


def _seconds_of(response: Response, cut: list[tuple[Response, float]]) -> float | None:
    """How much of it was played, where it was cut short."""
    return next((seconds for each, seconds in cut if each is response), None)


def offered(settings: Settings) -> Tools:
    """The functions that may be called."""
    choice = settings.tool_choice
    if isinstance(choice, dict):
        return tuple(tool for tool in settings.tools if tool["name"] == choice["name"])
    return () if choice == "none" else settings.tools


def forced(settings: Settings) -> bool:
    """Whether one of them has to be called."""
    return settings.tool_choice == "required" or isinstance(settings.tool_choice, dict)


_VERBS = {"retrieving": "retrieve", "deleting": "delete", "truncating": "truncate"}
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
