"""A conversation on one time axis: what the user says on one side, what was heard of the answers on the other.

Time is handed in, in seconds since the beginning. Sound that was given stays where it is; of an answer, which comes
ahead of time, what was not heard is taken back.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from duologue.audio.io import Resampler
from duologue.server.witness import Called, Happening, Wrote
from duologue.streaming.events import (
    Audio,
    Done,
    Heard,
    Interrupted,
    Paused,
    Resumed,
    SpeechStarted,
    SpeechStopped,
    Text,
)

_LATE = 0.3  # seconds that audio may come late without a gap
_PAUSE = 1.5  # seconds without a word, after which the next begins an entry of its own, where there are no turns


class Lane:
    """Pieces of sound one after another; positions count samples."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[int, np.ndarray]] = deque()
        self._taken = self.end = 0  # before `_taken` all was given

    def put(self, at: int, samples: np.ndarray) -> None:
        """Adds a piece, not before the end of the last."""
        begin = max(at, self.end, self._taken)
        self._pieces.append((begin, samples))
        self.end = begin + len(samples)

    def lift(self, at: int) -> np.ndarray:
        """Takes back what comes after a position and was not given."""
        at, lifted = max(at, self._taken), [np.zeros(0, np.float32)]
        while self._pieces and self._pieces[-1][0] + len(self._pieces[-1][1]) > at:
            begin, samples = self._pieces.pop()
            if begin < at:
                self._pieces.append((begin, samples[: at - begin]))
            lifted.insert(1, samples[max(0, at - begin) :])
            if begin < at:
                break
        self.end = min(self.end, at)
        return np.concatenate(lifted)

    def take(self, until: int) -> np.ndarray:
        """The sound up to a position, from where it was taken last."""
        out = np.zeros(max(0, until - self._taken), np.float32)
        while self._pieces and self._pieces[0][0] < until:
            begin, samples = self._pieces.popleft()
            count = min(len(samples), until - begin)
            out[begin - self._taken : begin - self._taken + count] = samples[:count]
            if count < len(samples):
                self._pieces.appendleft((begin + count, samples[count:]))
        self._taken = max(self._taken, until)
        return out


@dataclass
class _Answer:
    begin: int | None = None  # position of its first sound
    text: str = ""
    done: bool = False  # whether all of it was made


class Streams:
    """A conversation without turns: two sounds that go on all the time, and words as they come; see `Timeline`."""

    def __init__(self, rate_in: int, rate: int):
        self.rate, self._rate_in = rate, rate_in
        self._resampler = Resampler(rate_in, rate)
        self._user, self._model = Lane(), Lane()
        self._heard = ""  # all of it
        self._said: dict[str, dict[str, Any]] = {}  # by role: the entry that may yet go on
        self._entries: list[dict[str, Any]] = []

    @property
    def end(self) -> float:
        return max(self._user.end, self._model.end) / self.rate

    def hear(self, at: float, samples: np.ndarray) -> None:
        self._put(self._user, at - len(samples) / self._rate_in, self._resampler(samples))

    def happen(self, at: float, event: Happening) -> None:
        match event:
            case Heard(text):
                more = text[len(self._heard) :] if text.startswith(self._heard) else f" {text}"
                self._heard = text
                self._add("user", more, at)
            case Text(text):
                self._add("assistant", text, at)
            case Audio(samples):
                self._put(self._model, at, samples)
            case Wrote(role, text):
                self._entries.append(_entry(role, text, at, at))
            case Called(name):
                self._entries.append(_entry("function_call", name, at, at))

    def take(self, until: float) -> np.ndarray:
        self._finish(until - _PAUSE)
        place = round(until * self.rate)
        return np.stack([self._user.take(place), self._model.take(place)], axis=1)

    def close(self) -> None:
        self._finish(math.inf)

    def entries(self) -> list[dict[str, Any]]:
        entries, self._entries = self._entries, []
        return entries

    def _put(self, lane: Lane, at: float, samples: np.ndarray) -> None:
        begin = round(at * self.rate)
        lane.put(begin if begin > lane.end + _LATE * self.rate else lane.end, samples)

    def _add(self, role: str, text: str, at: float) -> None:
        entry = self._said.get(role)
        if entry is not None and at - entry["to"] > _PAUSE:
            self._finish(at - _PAUSE)
        if role not in self._said:
            self._said[role] = _entry(role, "", at, at)
        self._said[role]["text"] += text
        self._said[role]["to"] = round(at, 3)

    def _finish(self, before: float) -> None:
        """What had its last word before a time goes on no more."""
        for role, entry in sorted(self._said.items(), key=lambda each: each[1]["from"]):
            if entry["to"] < before:
                self._entries.append({**entry, "text": entry["text"].strip()})
                del self._said[role]


class Timeline:
    """One conversation.

    Args:
        rate_in: Hz of the user's audio.
        rate: Hz of the answers, and of the axis.
    """

    def __init__(self, rate_in: int, rate: int):
        self.rate, self._rate_in = rate, rate_in
        self._resampler = Resampler(rate_in, rate)
        self._user, self._model = Lane(), Lane()
        self._answer: _Answer | None = None
        self._held: np.ndarray | None = None  # the rest of an answer that stands still
        self._spoke: tuple[float | None, float | None] = (None, None)  # when the user's turn began and ended
        self._entries: list[dict[str, Any]] = []

    @property
    def end(self) -> float:
        """Seconds after which nothing is known yet."""
        return max(self._user.end, self._model.end) / self.rate

    def hear(self, at: float, samples: np.ndarray) -> None:
        """The user's audio, as it came."""
        begin = round((at - len(samples) / self._rate_in) * self.rate)
        gap = begin > self._user.end + _LATE * self.rate
        if gap and self._spoke[0] is None:
            self._spoke = (max(0, begin) / self.rate, None)
        self._user.put(begin if gap else self._user.end, self._resampler(samples))

    def happen(self, at: float, event: Happening) -> None:
        match event:
            case SpeechStarted():
                self._spoke = (at, None)
            case SpeechStopped():
                self._spoke = (self._spoke[0], at)
            case Heard(text, True):
                begin, end = self._spoke
                self._spoke = (None, None)
                if text:
                    self._note("user", text, at if begin is None else begin, at if end is None else end)
            case Wrote(role, text):
                self._note(role, text, at, at)
            case Called(name):
                self._note("function_call", name, at, at)
            case Text(text):
                self._current().text += text
            case Audio(samples):
                self._speak(at, samples)
            case Done() if self._answer is not None:
                self._answer.done = True
            case Paused(heard):
                self._held = self._model.lift(self._reached(at, heard))
            case Resumed() if self._held is not None:
                held, self._held, begin = self._held, None, self._model.end
                self._model.put(round(at * self.rate), held)
                if self._answer is not None and self._answer.begin is not None:  # what is heard is counted from here
                    self._answer.begin += max(0, self._model.end - len(held) - begin)
            case Interrupted(heard):
                self._held = None
                self._model.lift(self._reached(at, heard))
                self._finish(interrupted=True)

    def take(self, until: float) -> np.ndarray:
        """The sound up to a time, [N, 2]: user, answers."""
        place = round(until * self.rate)
        if self._answer is not None and self._answer.done and self._held is None and self._model.end <= place:
            self._finish()
        return np.stack([self._user.take(place), self._model.take(place)], axis=1)

    def close(self) -> None:
        """The conversation is over."""
        if self._held is not None:
            self._held = None
        self._finish(interrupted=self._answer is not None and not self._answer.done)

    def entries(self) -> list[dict[str, Any]]:
        """What was said since this was asked last, each with the seconds from which and to which it was."""
        entries, self._entries = self._entries, []
        return entries

    def _current(self) -> _Answer:
        if self._answer is None or self._answer.done:
            self._finish()
            self._answer = _Answer()
        return self._answer

    def _speak(self, at: float, samples: np.ndarray) -> None:
        answer = self._current()
        if self._held is not None:
            self._held = np.concatenate([self._held, samples])
            return
        begin = max(round(at * self.rate), self._model.end, self._user.end) if answer.begin is None else self._model.end
        self._model.put(begin, samples)
        answer.begin = begin if answer.begin is None else answer.begin

    def _reached(self, at: float, heard: float) -> int:
        """The position up to which an answer was heard."""
        now = round(at * self.rate)
        if self._answer is None or self._answer.begin is None:
            return now
        return min(now, self._answer.begin + round(min(heard, 1e6) * self.rate))

    def _finish(self, *, interrupted: bool = False) -> None:
        answer, self._answer = self._answer, None
        if answer is None or not (answer.text or answer.begin is not None):
            return
        end = self._model.end / self.rate
        more = {"interrupted": True} if interrupted else {}
        self._note(
            "assistant", answer.text.strip(), end if answer.begin is None else answer.begin / self.rate, end, **more
        )

    def _note(self, role: str, text: str, begin: float, end: float, **more: Any) -> None:
        self._entries.append({**_entry(role, text, begin, end), **more})


def _entry(role: str, text: str, begin: float, end: float) -> dict[str, Any]:
    return {"from": round(begin, 3), "to": round(end, 3), "role": role, "text": text}
