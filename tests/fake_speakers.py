"""Speakers that hum: a letter lasts 50 ms, a space is 50 ms of silence, a comma or stop 100 ms more of it."""

from __future__ import annotations

import numpy as np

from duologue.data.dialogue import DialogueConfig
from duologue.data.dialogue.config import ChannelConfig
from duologue.data.speakers import Voice
from duologue.data.word_times import Word
from duologue.errors import DataError

RATE = 24_000
LETTER = RATE // 20  # samples
ASSISTANT = Voice(kind="hibari", name="hum", licence="CC0")
USERS = (Voice(kind="hibari", name="drone", licence="CC0"), Voice(kind="hibari", name="whine", licence="CC0"))


class Hum:
    """Does not know when it says what. Silence of 0.2 s on both ends."""

    sample_rate = RATE

    def __init__(self, name: str = "hum", hertz: float = 200.0):
        self.name, self.hertz, self.said = name, hertz, list[tuple[str, int]]()

    def speak(self, text: str, seed: int) -> np.ndarray:
        return self._hum(text, seed)[0]

    def _hum(self, text: str, seed: int) -> tuple[np.ndarray, list[Word]]:
        self.said.append((text, seed))
        if "unsayable" in text:
            raise DataError("cannot say that")
        pieces, words, at = [np.zeros(RATE // 5, np.float32)], [], RATE // 5
        for written in text.split():
            length = LETTER * sum(map(str.isalnum, written))
            silence = LETTER * (1 + 2 * (not written[-1].isalnum()))
            tone = 0.1 * np.sin(2 * np.pi * (self.hertz + seed % 50) * np.arange(length) / RATE)
            pieces += [tone.astype(np.float32), np.zeros(silence, np.float32)]
            words.append(Word(written, at / RATE, (at + length) / RATE))
            at += length + silence
        return np.concatenate([*pieces, np.zeros(RATE // 5, np.float32)]), words


class TimedHum(Hum):
    """Knows when it says each word."""

    def speak_words(self, text: str, seed: int) -> tuple[np.ndarray, list[Word]]:
        return self._hum(text, seed)


def hums() -> dict[str, Hum]:
    """Speakers for ASSISTANT and USERS."""
    return {"hum": TimedHum(), "drone": TimedHum("drone", 120.0), "whine": TimedHum("whine", 300.0)}


def recipe(sources, **changes) -> DialogueConfig:
    """A recipe that the speakers above can speak; without noise and rooms, which take their time."""
    clean = ChannelConfig(noise_chance=0.0, reverb_chance=0.0)
    given = {"name": "hums", "assistant": ASSISTANT, "voices": USERS, "people": 3, "dev": 0.0, "test": 0.0}
    return DialogueConfig(sources=tuple(sources), **given | {"channels": clean} | changes)
