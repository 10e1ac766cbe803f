"""Who says what in a Live session: what the user said, what follows from it, texts that are to be said, and delegation.

What the model does not do itself is delegated only where the client has named who does it. The client is then given
every request, and answers with commentary; a Responses backend is described in `work`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from duologue.server.openai_live.events import answer
from duologue.server.openai_live.settings import Delegation
from duologue.server.openai_live.text_model import TextModel
from duologue.server.openai_live.work import Work
from duologue.server.realtime.events import ClientError, Event, new_id
from duologue.server.realtime.options import Options
from duologue.server.realtime.seat import Decision, Policy, Seat, pieces
from duologue.streaming import events as engine_events

_ACKNOWLEDGEMENT = "One moment."
_APOLOGY = "Sorry, I have no answer to that yet."
_MOST_DELEGATIONS = 64  # that a client may still answer
_MOST_SAYINGS = 64
_QUIET = 0.8  # seconds without another word, after which words that a duplex family heard are a request


class Talk:
    """What is said in one session.

    Args:
        now_ms: the present place on the session's timeline.
        patience: seconds that the client may take for a request.
        longest: characters of an item for the backend.
        name: of the session, in the log.
    """

    def __init__(
        self,
        seat: Seat,
        emit: Callable[[Event], None],
        *,
        soon: Callable[..., object],
        clock: Callable[[], float],
        now_ms: Callable[[], int],
        options: Options,
        text_model: TextModel | None,
        patience: float,
        duplex: bool,
        longest: int,
        name: str,
    ):
        self._seat, self._emit, self._clock, self._now_ms = seat, emit, clock, now_ms
        self._options, self._text_model, self._patience = options, text_model, patience
        self._duplex, self._name = duplex, name
        self._work = Work(
            emit, say=self.say, given_up=self._answer_after_all, soon=soon, model=text_model, longest=longest
        )
        self._delegation = Delegation()
        self._delegated: OrderedDict[str, None] = OrderedDict()  # requests that the client was given
        self._acknowledge_at: float | None = None
        self._answer_at: float | None = None  # when the model answers what the client has not
        self._acknowledged = False
        self._sayings: deque[str] = deque()
        self._wanted = False  # whether the model is to answer as soon as it can
        self._speaking = self._stopped = self._answering = False  # the user speaks; has stopped; the model answers
        self._turn_ms = (0, 0)  # when the user's turn began and ended
        self._said = ""
        self._heard = ""  # of a family without turns: all of it
        self._request, self._heard_ms, self._quiet_at = "", 0, 0.0  # ... and what of it was not looked at yet

    def close(self) -> None:
        self._work.stop()

    def delegate(self, delegation: Delegation) -> None:
        """Who is given what the model does not do itself, from now on."""
        self._delegation, options = delegation, self._options
        own = delegation.type == "responses" and self._text_model is None
        answers = not delegation.given or own
        tools = delegation.functions if own else ()
        self._seat.policy = Policy(
            answers,
            tools,
            options.router,
            options.reply if answers else None,
            options.alarms,
            forced=delegation.responses.get("tool_choice") == "required",
            name=self._name,
        )

    # -- what the client wants ----------------------------------------------------------------------------------------

    def note(self, kind: str, content: str, delegation_id: str | None) -> None:
        """Text for the model: "commentary" is said, what else there is is known.

        Raises:
            ClientError: it answers no request that the client was given.
        """
        if delegation_id is not None and delegation_id not in self._delegated:
            raise ClientError(
                "There is no delegation to the client with this id.", code="delegation_not_found", param="delegation_id"
            )
        if kind in ("commentary", "thinking"):
            self._acknowledge_at = None
        if kind == "commentary":
            self._answer_at = None
            self.say(content)
        elif self._duplex:
            self._seat.write("system", content)
        else:
            self._seat.write("user", f"({content})")

    def add_item(self, item: dict[str, Any]) -> None:
        self._need_backend()
        self._work.add(item)

    def create(self) -> None:
        """The backend is to respond."""
        self._need_backend()
        if self._duplex and self._text_model is None:
            raise ClientError("This server has no text model that could respond.", code="unsupported_value")
        told = self._work.create(self._delegation, self._now_ms())
        if told is None:
            return
        for role, text in told:
            self._seat.write(role, text)
        self._wanted = True
        self._go_on()

    def _need_backend(self) -> None:
        if self._delegation.type != "responses":
            raise ClientError("This needs a session that delegates to 'responses'.", code="invalid_request")

    # -- what is said -------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Has a text said as soon as nobody else speaks."""
        for piece in pieces(text):
            if self._duplex:
                self._seat.answer(piece)
            elif len(self._sayings) < _MOST_SAYINGS:
                self._sayings.append(piece)
        self._go_on()

    def _go_on(self) -> None:
        if self._duplex or self._answering or self._speaking or self._stopped:
            return
        if self._wanted:
            self._wanted, self._answering = False, True
            self._seat.answer()
        elif self._sayings:
            self._answering = True
            self._seat.answer(self._sayings.popleft())

    def _answer_after_all(self) -> None:
        """Nobody else has answered the request."""
        if self._acknowledged or self._duplex:
            self.say(_APOLOGY)
        else:
            self._wanted = True
            self._go_on()

    # -- what happens -------------------------------------------------------------------------------------------------

    def happened(self, event: engine_events.Event, decision: Decision | None) -> None:
        match event:
            case engine_events.SpeechStarted(at):
                self._speaking = True
                self._acknowledge_at = self._answer_at = None
                self._turn_ms = (self._at(at), self._at(at))
            case engine_events.SpeechStopped(at):
                self._speaking, self._stopped = False, True
                self._turn_ms = (self._turn_ms[0], max(self._turn_ms[0], self._at(at)))
            case engine_events.Heard(text, final):
                if self._duplex:
                    self._heard_more(text)
                elif final and self._stopped:
                    self._turn(text, decision)
            case engine_events.Text(text):
                self._said += text
            case engine_events.Done():
                self._over()
                self._go_on()
            case engine_events.Interrupted():
                self._sayings.clear()
                self._wanted = False
                self._work.stop()
                self._over()

    def _at(self, seconds: float) -> int:
        return max(0, min(round(seconds * 1000), self._now_ms()))

    def _over(self) -> None:
        self._answering, said, self._said = False, self._said, ""
        self._work.answered(said.strip())

    def _turn(self, text: str, decision: Decision | None) -> None:
        """The user has said something."""
        self._stopped = False
        self._sayings.clear()
        begin, end = self._turn_ms
        if text:
            self._emit(answer("session.input_transcript.delta", delta=f"{text} ", start_ms=begin, end_ms=end))
        if decision is None:
            if text:
                self._hand_over(text)
        elif decision.call is not None:
            self._call(decision.call, text)
        else:
            self._answering = True
            self._sayings.extend(decision.said[1:])

    def _heard_more(self, text: str) -> None:
        more = text[len(self._heard) :] if text.startswith(self._heard) else f" {text}"
        self._heard, now = text, self._now_ms()
        if more:
            begin, self._heard_ms = min(self._heard_ms, now) if self._request else now, now
            self._emit(answer("session.input_transcript.delta", delta=more, start_ms=begin, end_ms=now))
            self._request += more
            self._quiet_at = self._clock() + _QUIET

    # -- delegation ---------------------------------------------------------------------------------------------------

    def _hand_over(self, text: str) -> None:
        """A request goes to who does such."""
        if self._delegation.type == "responses":
            self._work.turn(text, self._delegation, self._now_ms())
            return
        name, now = new_id("dlg"), self._clock()
        self._delegated[name] = None
        if len(self._delegated) > _MOST_DELEGATIONS:
            self._delegated.popitem(last=False)
        self._acknowledge_at = now + self._delegation.acknowledgement_delay_ms / 1000
        self._answer_at, self._acknowledged = now + self._patience, False
        about = {"id": name, "type": "delegation", "target": "client"}
        self._emit(answer("session.delegation.created", delegation=about, offset_ms=self._now_ms()))

    def _call(self, call: tuple[str, str], said: str) -> None:
        name, arguments = call
        self._work.call(name, arguments, said=said, delegation=self._delegation, offset_ms=self._now_ms())

    def _look_at_request(self) -> None:
        """What a family without turns has heard."""
        said, self._request = self._request.strip(), ""
        if not self._delegation.given:
            return
        if self._delegation.type == "client" or self._text_model is not None:
            return self._hand_over(said)
        decision = self._seat.policy.decide(said)
        if decision.call is not None:
            self._call(decision.call, said)

    def poll(self, *, playing: bool) -> None:
        """Does what it is time for.

        Args:
            playing: what was said is still on its way to the user.
        """
        now, alarms = self._clock(), self._options.alarms
        if self._request.strip() and now >= self._quiet_at:
            self._look_at_request()
        if self._acknowledge_at is not None and now >= self._acknowledge_at:
            self._acknowledge_at, self._acknowledged = None, True
            self.say(_ACKNOWLEDGEMENT)
        if self._answer_at is not None and now >= self._answer_at:
            self._acknowledge_at = self._answer_at = None
            self._answer_after_all()
        quiet = not (playing or self._answering or self._speaking or self._stopped or self._sayings)
        if alarms is not None and quiet and (soon := alarms.seconds_to_due()) is not None and soon <= 0:
            for text in alarms.due():
                self.say(text)
