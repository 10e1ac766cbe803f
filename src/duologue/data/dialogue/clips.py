"""Utterances as sound and words: said once, kept for the next conversation, lengthened by pauses, cut at a word."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import soxr

from duologue.data.speakers import Speaker, Voice, make_speaker
from duologue.data.word_times import FRAMES, QUIET_DB, Word, loudness, say, sound_span
from duologue.errors import DataError

Array = np.ndarray
RATE = 24_000  # Hz, of everything in this folder
EDGE = 0.02  # seconds kept around the sound
FADE = 0.008  # seconds over which sound begins and ends where it is cut
AFTER_WORD = 0.03  # seconds of sound that are kept behind a word that is the last


@dataclass(frozen=True)
class Clip:
    """One utterance from its first to its last sound; word times from its first sample."""

    audio_N: Array  # float32 at 24 kHz, [-1, 1]
    words: tuple[Word, ...]

    @property
    def seconds(self) -> float:
        return len(self.audio_N) / RATE

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    def cut_after(self, word: int) -> Clip:
        """Falls silent behind a word."""
        if word + 1 >= len(self.words):
            return self
        end = min(self.words[word].end + AFTER_WORD, self.words[word + 1].start + EDGE)
        return Clip(_faded(self.audio_N[: max(round(end * RATE), 1)], begin=False), self.words[: word + 1])

    def with_pauses(self, pauses: Mapping[int, float]) -> Clip:
        """Lengthens the silence behind words to so many seconds; a silence that is longer already stays.

        Args:
            pauses: number of a word, not the last -> seconds to the next word.
        """
        parts: list[Array] = []
        words, begin, moved = [], 0, 0.0
        for number, word in enumerate(self.words):
            words.append(word.moved(moved))
            silence = pauses.get(number, 0.0) - (self.words[number + 1].start - word.end if number in pauses else 0.0)
            if silence > 0:
                end = self._quietest(word.end, self.words[number + 1].start)
                parts += [
                    _faded(self.audio_N[begin:end], begin=bool(parts)),
                    np.zeros(round(silence * RATE), np.float32),
                ]
                begin, moved = end, moved + round(silence * RATE) / RATE
        if not parts:
            return self
        return Clip(np.concatenate([*parts, _faded(self.audio_N[begin:], end=False)]), tuple(words))

    def _quietest(self, start: float, end: float) -> int:
        """The sample between two words at which a cut is heard least."""
        hop = RATE // FRAMES
        first, last = round((start - EDGE) * FRAMES), round((end + EDGE) * FRAMES)
        frames = self.audio_N[max(first, 0) * hop : max(last, first + 1) * hop]
        levels = loudness(frames, RATE)
        return max(first, 0) * hop + int(np.argmin(levels)) * hop + hop // 2


def _faded(audio_N: Array, *, begin: bool = True, end: bool = True) -> Array:
    length = min(round(FADE * RATE), len(audio_N))
    audio_N, ramp = audio_N.copy(), np.linspace(0, 1, length, dtype=np.float32)
    if begin:
        audio_N[:length] *= ramp
    if end and length:
        audio_N[-length:] *= ramp[::-1]
    return audio_N


def trimmed(audio_N: Array, words: list[Word]) -> Clip:
    """Cuts silence off both ends, and off the end of words that a silence follows.

    Raises:
        DataError: there is no sound, or no word.
    """
    levels = loudness(audio_N, RATE)
    if not words or not np.isfinite(levels).any():
        raise DataError("a synthesiser gave no sound or no word")
    start, end = sound_span(audio_N, RATE)
    first, last = max(0, round((start - EDGE) * RATE)), min(len(audio_N), round((end + EDGE) * RATE))
    kept = []
    for word in words:
        heard = np.flatnonzero(levels[int(word.start * FRAMES) : int(np.ceil(word.end * FRAMES))] > QUIET_DB)
        stop = min(word.end, (int(word.start * FRAMES) + heard[-1] + 1) / FRAMES) if len(heard) else word.end
        begin = min(max(word.start, start), end - 0.01) - first / RATE
        kept.append(Word(word.text, begin, max(begin + 0.01, min(stop, end) - first / RATE)))
    return Clip(_faded(audio_N[first:last].astype(np.float32)), tuple(kept))


class Clips:
    """Makes clips and keeps those that were used last, so that what is said again is not synthesised again.

    A clip is as if it had been a 16-bit file, kept or not: what is made does not depend on what was made before.

    Args:
        most_bytes: of sound that is kept.
        speakers: ready-made speakers by the voice's name.
    """

    def __init__(self, *, most_bytes: int = 256 * 2**20, speakers: Mapping[str, Speaker] | None = None):
        self._most, self._held = most_bytes, 0
        self._speakers = dict(speakers or {})
        self._kept: OrderedDict[tuple[str, int, str], tuple[Array, tuple[Word, ...], bool]] = OrderedDict()

    def get(self, voice: Voice, text: str, seed: int) -> Clip:
        """Says a text in a voice.

        Raises:
            ConfigError: the synthesiser is not installed.
            DataError: it failed, or found nothing to say.
        """
        key = (voice.name, seed, text)
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            self._keep(key, *self._make(voice, text, seed))
        pcm_N, words, _ = self._kept[key]
        return Clip(pcm_N.astype(np.float32) / 32_768, words)

    def counted(self, voice: Voice, text: str, seed: int) -> bool:
        """Whether the synthesiser told the word times of a clip that was just got."""
        return self._kept[voice.name, seed, text][2]

    def _make(self, voice: Voice, text: str, seed: int) -> tuple[Array, tuple[Word, ...], bool]:
        if voice.name not in self._speakers:
            self._speakers[voice.name] = make_speaker(voice)
        speaker = self._speakers[voice.name]
        said = say(speaker, text, seed)
        rate = speaker.sample_rate
        audio_N = said.audio_N if rate == RATE else soxr.resample(said.audio_N, rate, RATE, quality="HQ")
        clip = trimmed(np.asarray(audio_N, np.float32), said.words)
        return np.round(np.clip(clip.audio_N, -1, 1) * 32_767).astype(np.int16), clip.words, said.counted

    def _keep(self, key: tuple[str, int, str], pcm_N: Array, words: tuple[Word, ...], counted: bool) -> None:
        self._kept[key] = (pcm_N, words, counted)
        self._held += pcm_N.nbytes
        while self._held > self._most and len(self._kept) > 1:
            _, (oldest_N, _, _) = self._kept.popitem(last=False)
            self._held -= oldest_N.nbytes
