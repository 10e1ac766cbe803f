"""The cascade that a user would build instead: a recogniser, the same language model, a synthesiser, one after another.

Made as fast as it can be in this form: the recogniser decodes greedily, the language model runs in our own loop, and
the synthesiser speaks the first sentence as soon as it is whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from duologue.data.recognisers import Recogniser
from duologue.eval.context import first_sentence, milliseconds_since

Voice = Callable[[str], tuple[np.ndarray, int]]


@dataclass(frozen=True, kw_only=True)
class FirstSound:
    """When the first sound came after the question's end, and what the time went into (milliseconds)."""

    transcript: str
    sentence: str
    recognise_ms: float
    think_ms: float  # to the end of the first sentence
    speak_ms: float
    first_audio_ms: float


class Cascade:
    """Recogniser, language model and synthesiser.

    Args:
        think: the text of an answer as it is decoded.
    """

    def __init__(self, recogniser: Recogniser, think: Callable[[str], Iterator[str]], voice: Voice):
        self.recogniser, self.think, self.voice = recogniser, think, voice

    def first_sound(self, audio: np.ndarray, rate: int) -> FirstSound:
        """Asks a question that has just ended and stops at the first sentence's sound."""
        start = time.perf_counter()
        transcript = self.recogniser.transcribe(audio, rate)
        recognised = milliseconds_since(start)
        pieces = self.think(transcript)
        sentence = first_sentence(pieces)
        thought = milliseconds_since(start)
        if sentence:
            self.voice(sentence)
        spoken = milliseconds_since(start)
        if callable(close := getattr(pieces, "close", None)):
            close()
        return FirstSound(
            transcript=transcript,
            sentence=sentence,
            recognise_ms=recognised,
            think_ms=thought - recognised,
            speak_ms=spoken - thought,
            first_audio_ms=spoken,
        )
