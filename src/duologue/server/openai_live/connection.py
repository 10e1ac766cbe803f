"""One client of the Live API, whatever carries its events: client events in, server events out, and the clock.

Nothing here waits, and all of it runs in one thread: the events of the engine are handed over by `soon`. There are no
turns in the protocol. A family that has some finds them as always, and its answers go out as a stream without an end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from duologue.audio.io import Resampler
from duologue.engine import Engine
from duologue.errors import BusyError
from duologue.server.openai_live.events import answer, check, error_event
from duologue.server.openai_live.settings import Settings, start, update
from duologue.server.openai_live.talk import Talk
from duologue.server.openai_live.text_model import TextModel
from duologue.server.openai_live.voice import Piece, Voice
from duologue.server.realtime.audio import PCM16, Format, Incoming
from duologue.server.realtime.events import ClientError, Event, decode_base64, encode_base64, new_id, read
from duologue.server.realtime.limits import MOST_AUDIO, RealtimeLimits
from duologue.server.realtime.options import Options
from duologue.server.realtime.responses import Emit
from duologue.server.realtime.seat import Decision, Seat
from duologue.server.session_log import short
from duologue.server.witness import Wrote
from duologue.streaming import events as engine_events
from duologue.streaming.turns import TurnConfig

_PIECE = 0.04  # seconds of an event with sound, where a turn family speaks
_LATE = 0.1  # seconds behind, from which the stream goes on from now
_GAP = 0.3  # seconds without sound from the client that are silence
_USAGE = 10.0  # seconds between two reports
_STARTING = 20.0  # seconds until the client begins the session
_BACKLOG = 60.0  # seconds of audio that may wait to be heard
_LONGEST_NOTE = 4_000  # characters of a text that is appended: 500 tokens are less


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """What a server does in its own way."""

    base: Options = field(default_factory=Options)
    text_model: TextModel | None = None  # what `responses` delegates to; None: the client's functions alone
    patience: float = 10.0  # seconds that a client may take for what was delegated to it, before the model answers


class LiveConnection:
    """Follows the protocol for one client.

    Args:
        emit: takes the events to be sent, in order.
        soon: calls a function with arguments in this thread; from any thread.
        clock: seconds, ever growing.
        wall: seconds since 1970.
        pulled: the sound is taken by `take`; else it goes out in events.
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
        options: LiveOptions | None = None,
        pulled: bool = False,
    ):
        self._engine, self._own_emit, self._soon, self._clock, self._wall = engine, emit, soon, clock, wall
        self._limits, self._options, self._pulled = limits or RealtimeLimits(), options or LiveOptions(), pulled
        self.id, self.over = new_id("live"), False
        self.watchers: list[Emit] = []  # who sees everything that happens: sockets at the side
        self.settings: Settings | None = None
        self._begun = self._last_word = clock()
        self._seat: Seat | None = None
        self._started = False  # whether the client was greeted

    # -- the life of a session ----------------------------------------------------------------------------------------

    @property
    def input_format(self) -> Format:
        """Of the sound that comes outside events."""
        return PCM16

    def open(self, settings: Settings) -> None:
        """Takes a place.

        Raises:
            BusyError: the engine has none left.
        """
        spec, base = self._engine.runner.spec, self._options.base
        seat = Seat(
            self._engine,
            self._happened,
            self._soon,
            turns=TurnConfig(),
            overlap=base.overlap,
            echo=base.echo,
            ahead=not self._pulled,
            backlog=_BACKLOG,
            name=short(self.id),
        )
        seat.witness = base.witnesses("live", self.id)
        format = settings.format or PCM16
        self.settings, self._seat, self._duplex = settings, seat, spec.duplex
        self._incoming = Incoming(format, spec.input_rate)
        self._voice = Voice(spec.output_rate, format.rate, duplex=spec.duplex)
        self._encode, self._muted = format.encode, False
        self._heard_until = 0.0  # seconds of the client's sound that were handed on
        self._reflect, self._reflect_out = Incoming(format, PCM16.rate), Resampler(format.rate, PCM16.rate)
        self._late, self._told_late = 0.0, -1.0
        self._talk = Talk(
            seat,
            self.emit,
            soon=self._soon,
            clock=self._clock,
            now_ms=self._now_ms,
            options=base,
            text_model=self._options.text_model,
            patience=self._options.patience,
            duplex=spec.duplex,
            longest=self._limits.text,
            name=short(self.id),
        )
        self._talk.delegate(settings.delegation)
        if settings.turns:
            seat.forget(*settings.turns)

    def begin(self, to: Event | None = None) -> None:
        """Greets the client. The session's time begins."""
        if self.settings is None:
            return
        now, self._started = self._clock(), True
        self._voice.restart()
        self._begun = self._due = self._last_word = now
        self._usage_at = now + _USAGE
        self._expires = int(self._wall() + self._limits.longest_session)
        self.emit(answer("session.started", to, session=self._session()))

    def close(self, reason: str = "connection_lost", to: Event | None = None) -> None:
        """Gives the place back, and tells the client."""
        if self.over:
            return
        self.over = True
        if self._seat is None:
            return
        self._talk.close()
        self._seat.close()
        if not self._started:
            return
        usage = {"seconds": round(self._clock() - self._begun, 3)}
        self.emit(answer("session.closed", to, reason=reason, session=self._session(), usage=usage))

    def hang_up(self) -> None:
        """Somebody has asked for the end over HTTP."""
        self.close("close_requested")

    def _session(self) -> dict[str, Any]:
        assert self.settings is not None
        return {"id": self.id, "expires_at": self._expires, "status": "active", **self.settings.as_dict()}

    def _now_ms(self) -> int:
        return round((self._clock() - self._begun) * 1000)

    # -- events -------------------------------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Sends an event to the client, and to who watches."""
        if self.settings is None or not self._pulled or self.settings.permissions.sends(event):
            self._own_emit(event)
        self._reflected(event)

    def _reflected(self, event: Event) -> None:
        for watcher in list(self.watchers):
            watcher(event)

    def receive(self, raw: str | bytes) -> None:
        """Takes an event as JSON. What is wrong with it is told to the client."""
        self._receive(raw, self._own_emit, aside=False)

    def receive_aside(self, raw: str | bytes, emit: Emit) -> None:
        """... from who watches."""
        self._receive(raw, emit, aside=True)

    def _receive(self, raw: str | bytes, emit: Emit, *, aside: bool) -> None:
        event: Event | None = None
        try:
            event = read(raw, longest=self._limits.event)
            check(event)
            kind = event["type"]
            if aside and kind in ("session.start", "session.input_audio.append"):
                raise ClientError(
                    f"'{kind}' is for the session's own connection.", code="event_not_allowed", param="type"
                )
            if self._pulled and not aside and self.settings is not None and not self.settings.permissions.takes(kind):
                raise ClientError(f"'{kind}' may not be sent here.", code="event_not_allowed", param="type")
            if self._seat is None and kind != "session.start":
                raise ClientError("A session begins with 'session.start'.", code="session_not_started", param="type")
            self._last_word = self._clock()
            _HANDLERS[kind](self, event)
        except ClientError as error:
            emit(error_event(error, event))

    def fail(self, message: str, *, code: str, reason: str = "connection_lost") -> None:
        """Ends the session."""
        if not self.over:
            self.emit(error_event(ClientError(message, code=code, kind="server_error")))
            self.close(reason)

    # -- what the client wants ----------------------------------------------------------------------------------------

    def _start(self, event: Event) -> None:
        if self._seat is not None:
            raise ClientError("The session has started already.", code="session_already_started", param="type")
        settings = start(event["session"], self._limits, media=False)
        try:
            self.open(settings)
        except BusyError as error:
            self._own_emit(error_event(ClientError(f"{error}.", code="server_busy", kind="server_error"), event))
            self.over = True
            return
        self.begin(event)

    def _update(self, event: Event) -> None:
        assert self.settings is not None
        self.settings = update(self.settings, event["session"], self._limits)
        self._talk.delegate(self.settings.delegation)
        self.emit(answer("session.updated", event, session=self._session()))

    def _append(self, event: Event) -> None:
        if self._pulled:
            raise _not_allowed(event["type"], "has no place here: sound comes over the track")
        self._hear(decode_base64(event["audio"], most=MOST_AUDIO, param="audio"))

    def hear(self, data: bytes) -> None:
        """Takes audio that did not come inside an event, in `input_format`."""
        if self._seat is not None and not self.over:
            self._last_word = self._clock()
            self._hear(data)

    def _hear(self, data: bytes) -> None:
        samples = self._incoming(data)
        if self.watchers:
            sound = encode_base64(PCM16.encode(self._reflect(data)))
            self._reflected({"type": "session.input_audio.append", "audio": sound})
        if not self._muted:
            self._listen(samples)

    def _listen(self, samples: np.ndarray) -> None:
        assert self._seat is not None
        try:
            self._seat.listen(samples)
        except BusyError as error:
            raise ClientError(f"{error}", code="input_audio_buffer_full", param="audio") from error
        self._heard_until += len(samples) / self._seat.rate
        self._seat.witness.hear(samples)

    def _mute(self, event: Event) -> None:
        self._muted = True
        self.emit(answer("session.input_audio.muted", event))

    def _unmute(self, event: Event) -> None:
        self._muted = False
        self.emit(answer("session.input_audio.unmuted", event))

    def _note(self, event: Event) -> None:
        kind, content = event["type"].split(".")[1], event["content"]
        if not content.strip() or len(content) > _LONGEST_NOTE:
            why = f"expected 1 to {_LONGEST_NOTE} characters, but got {len(content)}"
            raise ClientError(f"Invalid 'content': {why}.", param="content")
        assert self._seat is not None
        self._talk.note(kind, content.strip(), event["delegation_id"])
        self._seat.witness.happen(Wrote(kind, content.strip()))
        at = self._now_ms()
        self.emit(answer(f"session.{kind}.appended", event, start_ms=at, end_ms=at))

    def _create_item(self, event: Event) -> None:
        self._talk.add_item(event["item"])

    def _create(self, event: Event) -> None:
        self._talk.create()

    def _close(self, event: Event) -> None:
        self.close("close_requested", event)

    # -- what the engine tells ----------------------------------------------------------------------------------------

    def _happened(self, event: engine_events.Event, decision: Decision | None) -> None:
        if self.over:
            return
        if not self._voice.add(event):
            return self.fail("The server cannot keep up with this session.", code="overloaded")
        match event:
            case engine_events.Audio() if self._duplex and not self._pulled:
                self._voice.keep_up(self._now_ms())
                self._send(self._voice.all())
            case engine_events.Late(seconds):
                self._late += seconds
            case engine_events.Declined(message):
                self.emit(answer("info", code="not_supported", message=f"{message}."))
            case engine_events.Failed(message):
                return self.fail(message, code="model_failed")
        self._talk.happened(event, decision)

    def _send(self, piece: Piece | None) -> None:
        """Sound and words that go out now."""
        if piece is None or not self._started:
            return
        for text in piece.texts:
            self.emit(
                answer("session.output_transcript.delta", delta=text, start_ms=piece.start_ms, end_ms=piece.end_ms)
            )
        if not self._pulled:
            self._own_emit({"type": "session.output_audio.delta", "delta": encode_base64(self._encode(piece.samples))})
        if self.watchers:
            sound = encode_base64(PCM16.encode(self._reflect_out(piece.samples)))
            times = {"start_ms": piece.start_ms, "end_ms": piece.end_ms}
            self._reflected({"type": "session.output_audio.delta", "delta": sound, **times})

    def take(self, size: int) -> np.ndarray:
        """The next sound, for what carries it outside events."""
        self._voice.keep_up(self._now_ms())
        piece = self._voice.take(size)
        if not self.over:
            self._send(piece)
        return piece.samples

    # -- the clock ----------------------------------------------------------------------------------------------------

    def poll(self) -> float:
        """Does what it is time for. Returns the seconds until there may be more of it."""
        now = self._clock()
        if self._seat is None:
            if now - self._begun > _STARTING:
                self.fail(f"No session was started within {_STARTING:g} seconds.", code="session_not_started")
                self.over = True
            return 0.5
        if self.over or not self._started:
            return _PIECE
        if now - self._begun >= self._limits.longest_session:
            self.close("expired")
        elif now - self._last_word >= self._limits.idle:
            self.fail(f"Nothing came for {self._limits.idle:g} seconds; the session is over.", code="session_idle")
        else:
            self._tell(now)
            self._fill(now)
            self._talk.poll(playing=self._voice.waits)
            if not self._duplex and not self._pulled:
                while now >= self._due and not self.over:
                    self._due = max(self._due, now - _LATE) + _PIECE
                    self._voice.keep_up(self._now_ms())
                    self._send(self._voice.take(round(_PIECE * self._voice.rate)))
        return max(0.005, self._due - self._clock()) if not self._duplex and not self._pulled else _PIECE

    def _tell(self, now: float) -> None:
        if now >= self._usage_at:
            self._usage_at = now + _USAGE
            self.emit(answer("session.usage.updated", usage={"seconds": round(now - self._begun, 3)}))
        if self._late and now - self._told_late >= 1.0:
            message = f"{self._late:.2f} seconds of audio came too late to be heard."
            self._late, self._told_late = 0.0, now
            self.emit(answer("info", code="late_audio", message=message))

    def _fill(self, now: float) -> None:
        """Silence where a client of a turn family sends nothing; a duplex family's ticks have their own."""
        missing = now - self._begun - self._heard_until
        if not self._duplex and missing > _GAP:
            assert self._seat is not None
            self._heard_until += missing
            samples = np.zeros(round(min(missing, 1.0) * self._seat.rate), np.float32)
            try:
                self._seat.listen(samples)
            except BusyError:  # the model is behind: time does not count
                return


def _not_allowed(kind: str, why: str) -> ClientError:
    return ClientError(f"'{kind}' {why}.", code="event_not_allowed", param="type")


_HANDLERS: dict[str, Callable[[LiveConnection, Event], None]] = {
    "session.start": LiveConnection._start,
    "session.update": LiveConnection._update,
    "session.input_audio.append": LiveConnection._append,
    "session.input_audio.mute": LiveConnection._mute,
    "session.input_audio.unmute": LiveConnection._unmute,
    "session.instructions.append": LiveConnection._note,
    "session.thinking.append": LiveConnection._note,
    "session.commentary.append": LiveConnection._note,
    "response.item.create": LiveConnection._create_item,
    "response.create": LiveConnection._create,
    "session.close": LiveConnection._close,
}
