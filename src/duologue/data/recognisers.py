"""Recognisers that check speech: training data, where what they cannot understand is not taught, and spoken answers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from duologue.errors import DataError

RATE = 16_000  # Hz
WINDOW = 30  # seconds, which Whisper hears at once


class Recogniser(Protocol):
    """Anything that writes down what it hears."""

    def transcribe(self, audio: np.ndarray, rate: int) -> str:
        """The words in mono audio of [-1, 1] at `rate` Hz; empty where there is nothing to hear."""
        ...


class WhisperRecogniser:
    """Whisper through faster-whisper, in int8; greedy and on one thread the same audio gives the same words.

    Args:
        folder: a CTranslate2 folder with model.bin, config.json, tokenizer.json and a vocabulary.
        beam: more than 1 where it judges others, 1 where its speed counts.
    Raises:
        DataError: faster-whisper or the folder is missing.
    """

    def __init__(self, folder: str | Path, *, threads: int = 1, beam: int = 1):
        folder = Path(folder)
        lacking = [name for name in ("model.bin", "config.json", "tokenizer.json") if not (folder / name).is_file()]
        if lacking:
            raise DataError(f"{folder}: need a CTranslate2 Whisper folder, without {', '.join(lacking)} it is none")
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise DataError(f"faster-whisper is missing ({error}): pip install duologue[train]") from error
        self.beam = beam
        self._model: Any = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=threads)

    def transcribe(self, audio: np.ndarray, rate: int) -> str:
        import soxr

        if not len(audio):
            return ""
        audio = np.asarray(audio if rate == RATE else soxr.resample(audio, rate, RATE), np.float32)
        segments, _ = self._model.transcribe(
            audio,
            language="en",
            beam_size=self.beam,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
            max_new_tokens=12 + int(8 * min(len(audio) / RATE, WINDOW)),  # nobody says more; a decoder that loops does
        )
        return " ".join(segment.text.strip() for segment in segments).strip()


def word_error_rate(reference: str, heard: str) -> float:
    """Words wrong over words said, after Whisper's English normaliser; 1 where nothing was said and something heard.

    Raises:
        DataError: jiwer or whisper-normalizer is missing.
    """
    try:
        import jiwer
    except ImportError as error:
        raise DataError(f"scoring needs jiwer ({error}): pip install duologue[train]") from error
    said, found = _normaliser()(reference).strip(), _normaliser()(heard).strip()
    if not said:
        return float(bool(found))
    return float(jiwer.wer(said, found))


@functools.lru_cache(maxsize=1)
def _normaliser() -> Callable[[str], str]:
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise DataError(f"scoring needs whisper-normalizer ({error}): pip install duologue[train]") from error
    return EnglishTextNormalizer()
