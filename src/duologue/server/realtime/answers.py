"""The answers of one conversation: the response that is being given, and what is yet playing of those before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from duologue.server.realtime.conversation import Conversation, Item, unanswered
from duologue.server.realtime.events import ClientError, server_event
from duologue.server.realtime.memory import Memory
from duologue.server.realtime.options import Options, Player
from duologue.server.realtime.responses import Emit, Response
from duologue.server.realtime.seat import Decision, Seat, Tools
from duologue.server.realtime.session import Settings, Wanted
from duologue.server.realtime.usage import Reading
from duologue.server.witness import Called
from duologue.streaming.events import Metrics

_TAIL = 0.25  # seconds at the end of an answer that are too short to be missed


class Answers:
    """Asks the model for responses one after another, and cuts its memory and the client's items alike.

    Args:
        rate: Hz of the model's speech.
        kept_audio: seconds of audio that can be retrieved.
        completed: called where an answer has come to its end, with the seconds that are yet to be played of it.
    """

    def __init__(
        self,
        seat: Seat,
        conversation: Conversation,
        memory: Memory,
        emit: Emit,
        *,
        clock: Callable[[], float],
        rate: int,
        kept_audio: float,
        options: Options,
        player: Player | None,
        completed: Callable[[float], object],
    ):
        self._seat, self._conversation, self._memory, self._emit = seat, conversation, memory, emit
        self._clock, self._rate, self._kept_audio = clock, rate, kept_audio
        self._options, self._player, self._completed = options, player, completed
        self.active: Response | None = None
        self.last: Response | None = None  # whose memory can still be cut in the engine
        self.spoken = False  # whether there was speech of the model's
        self.owed = False  # whether a turn was heard that has no answer yet
        self.played_at = 0.0  # when the last one was played whole
        self._items: list[Item] | None = None  # what it reads instead of the conversation
        self._more: tuple[str, ...] = ()  # what is to be said after what is being said
        self._said = 0.0  # seconds of the response that the engine gave before what it is saying now
        self._cut: float | None = None  # seconds that were heard of an answer that was just interrupted
        self._first_sound = 0.0

    # -- from its beginning to its end --------------------------------------------------------------------------------

    def begin(self, wanted: Wanted, items: list[Item] | None = None) -> Response:
        """Begins a response; the model is asked by `start`, or tells by itself.

        Args:
            items: what it reads instead of the conversation.
        """
        play = self._player.play if self._player else None
        self.active = Response(wanted, self._emit, conversation=self._conversation, rate=self._rate, play=play)
        self.last, self._items = None, items
        self.owed, self._more, self._said = False, (), 0.0
        self.active.begin()
        return self.active

    def start(self, active: Response) -> None:
        """Asks the model."""
        wanted, items = active.wanted, self._items
        questions = unanswered(self._conversation.items if items is None else items)
        own = wanted.instructions is not None and bool(questions)
        if items is not None or own or self._memory.stale:
            self._memory.renew(wanted.instructions, items)
            self._memory.stale = items is not None or own
        elif not questions:
            self._seat.write("user", wanted.instructions or self._options.opening)
        self._read(active)
        words = " ".join(item.text for item in questions if item.role == "user")
        results = any(item.kind == "function_call_output" for item in questions)
        policy = replace(self._seat.policy, tools=offered(active.settings), forced=forced(active.settings))
        decision = Decision() if results else policy.decide(words)
        policy.sure()
        active.started = decision.call is None
        self._follow(active, decision, ask=True)

    def say(self, wanted: Wanted, texts: tuple[str, ...]) -> None:
        """Says something that nobody asked for, as a response of its own."""
        active = self.begin(wanted)
        if self._memory.stale:
            self._memory.renew()
        self._read(active)
        self._follow(active, Decision(said=texts), ask=True)

    def heard(self, wanted: Wanted, decision: Decision) -> None:
        """The user's turn was heard, and this follows it."""
        active = self.active or self.begin(wanted)
        if not active.started:
            self._read(active)
            self._follow(active, decision, ask=False)

    def _read(self, active: Response) -> None:
        items = self._conversation.items if self._items is None else self._items
        active.reads(Reading(active.settings.instructions, items))

    def _follow(self, active: Response, decision: Decision, *, ask: bool) -> None:
        """Does what was decided about an answer."""
        if decision.call is not None:
            active.call(*decision.call)
            self._seat.witness.happen(Called(decision.call[0]))
            self.owed = True
            return self.finish("completed")
        active.started = True
        self._more = decision.said[1:]
        if ask:
            self._seat.answer(*decision.said[:1])

    def write(self, text: str) -> None:
        """The model's next words."""
        if self.active is not None:
            self.active.write(text)
            self._measure(self.active)

    def speak(self, samples: np.ndarray) -> None:
        """The model's next speech."""
        if self.active is None:
            return
        if not self.active.seconds:
            self._first_sound = self._clock()
        self.active.speak(samples)
        self.tell_played()
        self._measure(self.active)

    def _measure(self, active: Response) -> None:
        """Stops a response that has become too long."""
        if active.too_long:
            self._seat.stop(active.seconds)
            self.finish("incomplete", "max_output_tokens")

    def go_on(self, metrics: Metrics) -> None:
        """What was to be said was said."""
        active = self.active
        if active is None or not active.started:
            return
        active.metrics = active.metrics or metrics
        if not self._more:
            about = {"audio_seconds": round(active.seconds, 3), "real_time_factor": active.metrics.real_time_factor}
            self._beyond(
                "duologue.metrics", response_id=active.id, first_audio_ms=active.metrics.first_audio_ms, **about
            )
            return self.finish("completed")
        self._said = active.seconds
        first, *rest = self._more
        self._more = tuple(rest)
        self._seat.answer(first)

    def finish(self, status: str, reason: str | None = None) -> None:
        """The active response is over."""
        active, self.active = self.active, None
        if active is None:
            return
        active.finish(status, reason)
        if self._player is not None:
            self._player.finish()
        self._items = None
        self.spoken |= active.seconds > 0
        self.last = active if status == "completed" and active.item else None
        self._conversation.forget_audio(longest=self._kept_audio)
        now = self._clock()
        left = max(0.0, self._first_sound + active.seconds - now) if active.seconds else 0.0
        self.played_at = now + left if status == "completed" else now
        if status == "completed":
            self._completed(left)

    def fail(self, error: dict[str, str]) -> None:
        """The active response fails with the session."""
        if self.active is not None:
            self.active.finish("failed", error=error)
            self.active = None

    # -- what cuts it short -------------------------------------------------------------------------------------------

    def cancel(self, reason: str, *, heard: float | None = None) -> None:
        """Ends the active response. `heard`: seconds of it; None: as many as can have been."""
        active = self.active
        if active is None:
            return
        cut = self._hush()
        played = _seconds_of(active, cut) or 0.0
        if active.started:
            self._stop_at(played if heard is None and self._player is not None else heard)
        self._memory.stale |= active.settings.modality == "text"
        self.finish("cancelled", reason)
        self._show_cut([each for each in cut if heard is None or each[0] is not active], known=active)

    def cut(self, item: Item, seconds: float) -> bool:
        """The client has heard so much of an item. Returns whether the engine could still be told."""
        if self.active is not None and self.active.item is item:
            self.cancel("client_cancelled", heard=seconds)
        elif self.last is not None and self.last.item is item:
            self._stop_at(seconds)
            self.last = None
        else:
            return False
        return True

    def clear(self) -> None:
        """The client wants to hear no more of what is playing.

        Raises:
            ClientError: it plays the answers itself.
        """
        if self._player is None:
            raise ClientError(
                "There is no output audio buffer on a WebSocket: stop playing, and send 'response.cancel' and "
                "'conversation.item.truncate'.",
                code="unsupported_event",
            )
        if self.active is not None and self.active.seconds:
            return self.cancel("client_cancelled")
        last, cut = self.last, self._hush()
        if last is not None and (played := _seconds_of(last, cut)) is not None:
            self._stop_at(played)
            self.last = None
        self._show_cut(cut, known=last)

    def interrupted(self, heard: float) -> None:
        """The engine has stopped the answer where so many seconds of it were heard: the user speaks."""
        self._cut = heard

    def talked_over(self, *, interrupts: bool) -> None:
        """The user has begun to speak. `interrupts`: what is left of an answer is not to be heard then."""
        heard, self._cut = self._cut, None
        if heard is None:
            if interrupts:
                self._show_cut(self._hush(), known=None)
            return
        ended, cut = self.active or self.last, self._hush()
        if self._player is None and ended is not None and ended.item is not None and ended.item.parts:
            ended.item.parts[0].heard = (self._said + heard) * 1000
        if ended is not None:
            self._memory.stale |= ended.settings.modality == "text"
        if self.active is not None:
            self.finish("cancelled", "turn_detected")
        self._show_cut(cut, known=ended)
        self.last = None

    def _stop_at(self, heard: float | None) -> None:
        """Has the engine stop where so much of the response was heard; None: as much as can have been."""
        if heard is None:
            return self._seat.stop()
        self._memory.stale |= heard < self._said
        self._seat.stop(max(0.0, heard - self._said))

    def _hush(self) -> list[tuple[Response, float]]:
        """Stops what is playing, where the server plays it. Gives what that cuts short."""
        return self._player.clear() if self._player is not None else []

    def _show_cut(self, cut: list[tuple[Response, float]], *, known: Response | None) -> None:
        """Cuts the items of responses to what was played of them. `known`: the one whose rest the model forgets."""
        for ended, seconds in cut:
            item = ended.item
            if item is None or self._conversation.find(item.id) is None:
                continue
            end = round(seconds * 1000)
            self._memory.stale |= ended is not known and ended.seconds - seconds > _TAIL
            item.parts[0].cut(end)
            truncated = {"item_id": item.id, "content_index": 0, "audio_end_ms": end}
            self._emit(server_event("conversation.item.truncated", **truncated))

    # -- while it plays -----------------------------------------------------------------------------------------------

    def tell_played(self) -> None:
        """Tells the engine, which cuts its memory by it."""
        if self._player is not None and self.active is not None and self.active.seconds:
            self._seat.playing(self._player.played(self.active) - self._said)

    def pause(self, heard: float) -> None:
        """Somebody speaks, and it is not known yet whether that stops it. `heard`: seconds of it so far."""
        self._stand(True)
        self._beyond("duologue.paused", audio_end_ms=round(heard * 1000))

    def resume(self) -> None:
        """It did not."""
        self._stand(False)
        self._beyond("duologue.resumed")

    def _stand(self, still: bool) -> None:
        if self._player is not None:
            self._player.stand(still)

    def _beyond(self, kind: str, **fields: Any) -> None:
        """Sends what the protocol has no event for, to a client that asked for it."""
        if self._options.beyond:
            self._emit(server_event(kind, **fields))


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
