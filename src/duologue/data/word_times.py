"""When each word of an utterance is said: counted by the synthesiser, or spread over the sound where it cannot count.

said = say(speaker, "What is two plus two?", seed=7)
said.words[0]  # Word(text="What", start=0.21, end=0.34), seconds from the first sample
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from duologue.data.speakers import Speaker

Array = np.ndarray
PUNCTUATION = frozenset(';:,.!?—…"()“”')  # phonetic symbols that are no sound
QUIET_DB = -40.0  # below the loudest 10 ms: silence
FRAMES = 100  # a second, at which loudness is looked at
PAUSE_LETTERS = 3  # a mark of punctuation takes as long as so many letters, in the spread


class Word(NamedTuple):
    """A written word, with its punctuation, and when it is said."""

    text: str
    start: float  # seconds
    end: float

    def moved(self, seconds: float) -> Word:
        return Word(self.text, self.start + seconds, self.end + seconds)


@runtime_checkable
class TimedSpeaker(Protocol):
    """A speaker that also knows when it says each word."""

    def speak_words(self, text: str, seed: int) -> tuple[Array, list[Word]]:
        """As `Speaker.speak`, the same samples, and the words in order."""
        ...


@dataclass(frozen=True)
class Said:
    """An utterance: mono float32 at the speaker's rate."""

    audio_N: Array
    words: list[Word]
    counted: bool  # the synthesiser told the times; else they are spread


def say(speaker: Speaker, text: str, seed: int) -> Said:
    """Says a text; raises what `Speaker.speak` raises."""
    if isinstance(speaker, TimedSpeaker):
        return Said(*speaker.speak_words(text, seed), counted=True)
    audio_N = speaker.speak(text, seed)
    return Said(audio_N, spread_words(text, audio_N, speaker.sample_rate), counted=False)


def spread_words(text: str, audio_N: Array, rate: int) -> list[Word]:
    """The fallback: every letter takes the same time between the first and the last sound, punctuation some of it.

    Good to some tenths of a second; a forced alignment would be better.
    """
    texts = text.split()
    start, end = sound_span(audio_N, rate)
    sounds = [max(1, sum(map(str.isalnum, each))) for each in texts]
    pauses = [PAUSE_LETTERS * any(map(PUNCTUATION.__contains__, each)) for each in texts]
    if texts:
        pauses[-1] = 0
    edges = np.cumsum([0, *(length for pair in zip(sounds, pauses, strict=True) for length in pair)])
    times = start + (end - start) * edges / max(edges[-1], 1)
    return [Word(each, float(times[2 * i]), float(times[2 * i + 1])) for i, each in enumerate(texts)]


def sound_span(audio_N: Array, rate: int) -> tuple[float, float]:
    """Seconds at which the first and the last sound of an utterance begin and end; all of it if it is silent."""
    hop = rate // FRAMES
    heard = np.flatnonzero(loudness(audio_N, rate) > QUIET_DB)
    if not len(heard):
        return 0.0, len(audio_N) / rate
    return float(heard[0] * hop / rate), min(float((heard[-1] + 1) * hop / rate), len(audio_N) / rate)


def loudness(audio_N: Array, rate: int) -> Array:
    """Decibels of each 10 ms under the loudest of them; silence throughout is -inf."""
    hop = rate // FRAMES
    frames = np.pad(audio_N, (0, -len(audio_N) % hop)).reshape(-1, hop).astype(np.float64)
    power = np.square(frames).mean(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(10 * np.log10(power / power.max(initial=0)), nan=-np.inf, neginf=-np.inf)


def counted_words(spelled: Sequence[tuple[str, str]], pieces: Sequence[tuple[str, Array, float]]) -> list[Word]:
    """Words from the times of phonetic symbols.

    Args:
        spelled: every written word with its phonetic symbols. Words without a sound are left out of the result.
        pieces: what was synthesised, one behind the other: the symbols, the seconds at which each of them begins and
            the last one ends, and the seconds at which the piece begins. Together the symbols are those of the words,
            spaces aside.
    """
    spans = [
        (symbol, begin + starts[i], begin + starts[i + 1])
        for symbols, starts, begin in pieces
        for i, symbol in enumerate(symbols)
        if symbol != " "
    ]
    words, at = [], 0
    for text, symbols in spelled:
        own = spans[at : at + len(symbols.replace(" ", ""))]
        at += len(own)
        heard = [span for span in own if span[0] not in PUNCTUATION]
        if heard:
            words.append(Word(text, max(0.0, float(heard[0][1])), float(heard[-1][2])))
    return words


def hibari_spelling(hibari: Any, text: str) -> list[tuple[str, str]]:
    """The written words of a text, each with the phonetic symbols that hibari-tts finds for it."""
    from hibari.g2p import normalize

    found: list[tuple[str, str]] = []
    for sentence in hibari.split_sentences(text):
        tokens = hibari.g2p.phonemize_tokens(hibari.g2p.tokenize(normalize(sentence)))
        own = list(_joined(tokens, hibari.vocab))
        written = sentence.split()
        found += [(w, s) for w, (_, s) in zip(written, own, strict=True)] if len(written) == len(own) else own
    return found


def _joined(tokens: Sequence[Any], known: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Tokens up to the next space are one word."""
    text = symbols = ""
    for token in tokens:
        text += token.text
        symbols += "".join(symbol for symbol in token.phonemes or "" if symbol in known)
        if token.whitespace:
            yield text, symbols
            text = symbols = ""
    if text:
        yield text, symbols
