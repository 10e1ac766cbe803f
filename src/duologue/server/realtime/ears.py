"""The input audio buffer: what a client says, cut into turns by the engine or by the client, and its transcripts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from duologue.errors import BusyError
from duologue.server.realtime.audio import Incoming, Track
from duologue.server.realtime.conversation import Conversation, Item, Part
from duologue.server.realtime.events import ClientError, decode_base64, new_id, server_event
from duologue.server.realtime.limits import MOST_AUDIO, RealtimeLimits
from duologue.server.realtime.responses import Emit
from duologue.server.realtime.seat import Seat
from duologue.server.realtime.session import Settings
from duologue.server.realtime.transcripts import Transcript
from duologue.server.realtime.usage import transcription_usage

_SHORTEST = 100.0  # milliseconds that can be committed


class Ears:
    """One connection's input audio.

    Where the engine finds the turns, all audio goes to it at once. Where the client does, audio goes to it as long as
    it is `free`, and waits here while it answers; what was not committed can be taken back. What is committed is heard
    as soon as the model is `idle`, also where an answer is wanted already.
    """

    def __init__(
        self,
        seat: Seat,
        conversation: Conversation,
        settings: Settings,
        emit: Emit,
        *,
        limits: RealtimeLimits,
        idle: Callable[[], bool],
        free: Callable[[], bool],
    ):
        self._seat, self._conversation, self._emit, self._limits = seat, conversation, emit, limits
        self._idle, self._free, self._settings = idle, free, settings
        self.speech: str | None = None  # the item that the user is speaking
        self.hearing: Item | None = None  # the item that was spoken, until it is known what was said
        self.fed = False  # whether the model has heard audio that is not committed
        self.taken_back = False  # whether the model heard something that it was not to hear
        self._queue: deque[tuple[Item, np.ndarray]] = deque()  # turns that wait to be heard
        self._transcript = Transcript()
        self._speech_at = 0.0
        self._open(0.0)

    def _open(self, begin: float) -> None:
        format = self._settings.input_format
        self._incoming = Incoming(format, self._seat.rate)
        self._track = Track(format, longest=self._limits.longest_turn + 5.0, begin=begin)
        self._forget(begin)

    def _forget(self, begin: float) -> None:
        """What was not committed is forgotten."""
        self._begin = begin
        self._given: list[np.ndarray] = []  # not committed, and heard by the model
        self._waiting: deque[np.ndarray] = deque()  # not committed, and not heard yet
        self._samples = 0  # of both
        self._patient = False  # whether it is heard only when it is committed, as it is much

    @property
    def now(self) -> float:
        """Milliseconds of audio written so far."""
        return self._track.end

    @property
    def uncommitted(self) -> float:
        """Milliseconds in the buffer, where the client cuts the turns."""
        return self.now - self._begin

    @property
    def busy(self) -> bool:
        """Something is being said or heard, or waits to be."""
        return self.speech is not None or self.hearing is not None or bool(self._queue)

    def set(self, settings: Settings) -> None:
        """Follows a change of the settings."""
        before, self._settings = self._settings, settings
        if settings.input_format is not before.input_format:
            self.take_back()
            self._open(self.now)
        turns, old = settings.turn_detection, before.turn_detection
        if turns != old:
            self.take_back()
            self._drop()
            self._tell_turns()

    def _tell_turns(self) -> None:
        turns = self._settings.turn_detection
        self._seat.set_turns(turns.turns() if turns else None, interrupts=turns is None or turns.interrupt_response)

    # -- what the client does -----------------------------------------------------------------------------------------

    def append(self, audio: str) -> None:
        """Takes audio in base64."""
        self.hear(decode_base64(audio, most=MOST_AUDIO, param="audio"))

    def hear(self, data: bytes) -> None:
        """Takes audio as bytes.

        Raises:
            ClientError: half a sample, or more than may wait.
        """
        samples = self._incoming(data)
        self._track.append(data)
        self._seat.witness.hear(samples)
        if self._settings.turn_detection is not None:
            return self._listen(samples)
        self._waiting.append(samples)
        self._samples += len(samples)
        most = round(self._limits.longest_turn * self._seat.rate)
        if self._samples > most:  # the oldest is forgotten
            self.take_back()
            self._patient = True
            while self._samples > most:
                self._samples -= len(self._waiting.popleft())
            self._begin = self.now - self._samples / self._seat.rate * 1000
        self.feed()

    def _listen(self, samples: np.ndarray) -> None:
        try:
            self._seat.listen(samples)
        except BusyError as error:
            raise ClientError(f"{error}", code="input_audio_buffer_full", param="audio") from error

    def commit(self) -> None:
        """The client says that the turn is over.

        Raises:
            ClientError: there is nothing in the buffer.
        """
        if self._settings.turn_detection is not None:
            if self.speech is None:
                raise self._too_short(0.0)
            self._seat.end_turn()
            return self._commit(self._speech_at)
        if (length := self.uncommitted) < _SHORTEST:
            raise self._too_short(length)
        samples = np.concatenate([*self._waiting, self._incoming.rest()])
        fed, self.fed = self.fed, False
        item = self._new_item(new_id("item"), self._begin)
        self._forget(self.now)
        self._show(item)
        if fed:
            self._end(item, samples)
        else:
            self.listen_to(item, samples)

    @staticmethod
    def _too_short(length: float) -> ClientError:
        return ClientError(
            "Error committing input audio buffer: buffer too small. Expected at least "
            f"{_SHORTEST:.0f}ms of audio, but buffer only has {length:.2f}ms of audio.",
            code="input_audio_buffer_commit_empty",
        )

    def clear(self) -> None:
        if self._settings.turn_detection is None:
            self.take_back()
        elif self.speech is not None:
            self._tell_turns()
        self._drop()
        self._emit(server_event("input_audio_buffer.cleared"))

    def _drop(self) -> None:
        self.speech = None
        self._incoming.rest()
        self._forget(self.now)

    def take_back(self) -> None:
        """The model forgets what was not committed; it can be heard again."""
        if self.fed:
            self._tell_turns()
            self.taken_back = True
        self._waiting.extendleft(reversed(self._given))
        self.fed, self._given = False, []

    # -- what the model hears by hand ---------------------------------------------------------------------------------

    def feed(self) -> None:
        """Gives the model what waits, if it is free to listen."""
        while self._queue and self._idle() and self.hearing is None and self.speech is None:
            self._end(*self._queue.popleft())
        if self._settings.turn_detection is not None or self._patient or not self._free():
            return
        while self._waiting:
            self._listen(self._waiting[0])
            self._given.append(self._waiting.popleft())
            self.fed = True

    def listen_to(self, item: Item, samples: np.ndarray) -> None:
        """Has the model hear a whole turn once it is free."""
        self._queue.append((item, samples))
        self.feed()

    def _end(self, item: Item, samples: np.ndarray) -> None:
        finds = self._settings.turn_detection is not None
        if finds:
            self._seat.set_turns(None, interrupts=True)
        self._listen(samples)
        self._seat.end_turn()
        if finds:
            self._tell_turns()
        self.hearing, self._transcript = item, Transcript()

    def end_speech(self) -> None:
        """What the user is saying is their turn as it stands."""
        if self.speech is not None:
            self._seat.end_turn()
            self._stopped(self.now)

    def samples(self, part: Part) -> np.ndarray:
        """The audio of an item as the model hears it."""
        return Incoming(part.format, self._seat.rate).whole(bytes(part.audio))

    # -- what the engine finds ----------------------------------------------------------------------------------------

    def started(self, at: float) -> None:
        """The user began to speak, so many seconds into the audio."""
        self.speech, self._speech_at = new_id("item"), at * 1000
        if self.hearing is None:
            self._transcript = Transcript()
        self._emit(
            server_event("input_audio_buffer.speech_started", audio_start_ms=round(at * 1000), item_id=self.speech)
        )

    def stopped(self, at: float) -> None:
        """... and stopped."""
        if self.speech is not None:
            self._stopped(at * 1000)

    def _stopped(self, at: float) -> None:
        ended = server_event("input_audio_buffer.speech_stopped", audio_end_ms=round(at), item_id=self.speech)
        self._emit(ended)
        self._commit(self._speech_at, at)

    def _commit(self, begin: float, end: float | None = None) -> None:
        if self.hearing is not None:  # two turns that the model takes as one
            self.heard("", final=True)
        item = self._new_item(self.speech or new_id("item"), begin, end)
        self.speech, self.hearing = None, item
        self._show(item)

    def timed_out(self, begin: float) -> None:
        """Nothing was said for so long that the model is to say something."""
        item_id, now = new_id("item"), self.now
        begin = min(begin, now)
        times = {"audio_start_ms": round(begin), "audio_end_ms": round(now)}
        self._emit(server_event("input_audio_buffer.timeout_triggered", **times, item_id=item_id))
        self._show(self._new_item(item_id, begin))

    def heard(self, text: str, *, final: bool) -> Item | None:
        """What was said so far. Returns the item, once that is known for good."""
        if final and self.hearing is None and self.speech is not None:
            self._stopped(self.now)  # a turn so long that it was ended
        item_id = self.hearing.id if self.hearing else self.speech
        if item_id is None:
            return None
        new = self._transcript.final(text) if final else self._transcript.guess(text)
        if new and self._settings.transcription is not None:
            self._tell("delta", item_id, delta=new)
        if not final or self.hearing is None:
            return None
        item, self.hearing, self._transcript = self.hearing, None, Transcript()
        part = item.parts[0]
        part.text, part.shown = text, self._settings.transcription is not None
        if part.shown:
            self._tell("completed", item_id, transcript=text, usage=transcription_usage(part.milliseconds, text))
        return item

    def given_up(self) -> None:
        """It will not be known what was said."""
        item, self.hearing = self.hearing, None
        if item is not None and self._settings.transcription is not None:
            error = {"type": "server_error", "code": "transcription_failed", "message": "The turn was not heard."}
            self._tell("failed", item.id, error=error)

    def _tell(self, what: str, item_id: str, **fields: Any) -> None:
        kind = f"conversation.item.input_audio_transcription.{what}"
        self._emit(server_event(kind, item_id=item_id, content_index=0, **fields))

    # -- items --------------------------------------------------------------------------------------------------------

    def _new_item(self, item_id: str, begin: float, end: float | None = None) -> Item:
        end = self.now if end is None else end
        data = bytearray(self._track.cut(begin, end))
        part = Part("input_audio", "", False, data, self._settings.input_format, max(0.0, end - begin))
        return Item("message", role="user", id=item_id, parts=[part])

    def _show(self, item: Item) -> None:
        """Adds an item that was spoken."""
        previous = self._conversation.last_id
        self._emit(server_event("input_audio_buffer.committed", previous_item_id=previous, item_id=item.id))
        self._conversation.add(item)
        for kind in ("added", "done"):
            self._emit(server_event(f"conversation.item.{kind}", previous_item_id=previous, item=item.as_dict()))
