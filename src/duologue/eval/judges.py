"""Independent judges: a recogniser that mini has never seen, and a model of what listeners say about quality.

They run on the CPU in int8 or through onnxruntime, and are never part of what is being measured.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soxr

from duologue.errors import CheckpointError, DataError
from duologue.eval.metrics import TRAIN_EXTRA

RATE = 16_000  # Hz, of both judges
DNSMOS_SECONDS = 9.01  # the model's window
DNSMOS_OVERALL = (-0.06766283, 1.11546468, 0.04602535)  # raw score -> mean opinion, P.835 (Reddy et al. 2022)


class Recogniser(Protocol):
    """Anything that writes down what it hears."""

    def transcribe(self, audio: np.ndarray, rate: int) -> str: ...


class Quality(Protocol):
    """Anything that scores how clean speech sounds, 1 to 5."""

    def score(self, audio: np.ndarray, rate: int) -> float: ...


class WhisperJudge:
    """Whisper through faster-whisper in int8.

    Args:
        folder: a CTranslate2 folder with model.bin, config.json, tokenizer.json and a vocabulary.
        beam: 5 where it judges, 1 where its speed is what counts.
    """

    def __init__(self, folder: Path, *, threads: int = 1, beam: int = 5):
        folder = Path(folder)
        for name in ("model.bin", "config.json", "tokenizer.json"):
            if not (folder / name).is_file():
                raise CheckpointError(f"{folder}: need a CTranslate2 Whisper folder, {name} is missing")
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise DataError(f"faster-whisper is missing; {TRAIN_EXTRA}") from error
        self.beam = beam
        self.model: Any = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=threads)

    def transcribe(self, audio: np.ndarray, rate: int) -> str:
        """The words in audio of [-1, 1]; empty where there is nothing to hear."""
        if not len(audio):
            return ""
        segments, _ = self.model.transcribe(
            resample(audio, rate, RATE),
            language="en",
            beam_size=self.beam,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return " ".join(segment.text.strip() for segment in segments).strip()


class Dnsmos:
    """DNSMOS P.835 overall score, with the weights inside the `speechmos` wheel.

    The wheel's own code needs librosa for a score not used here, so only its weights are read.
    """

    def __init__(self, *, threads: int = 1):
        spec = importlib.util.find_spec("speechmos")
        if spec is None or not spec.submodule_search_locations:
            raise DataError(f"speechmos is missing; {TRAIN_EXTRA}")
        try:
            import onnxruntime
        except ImportError as error:
            raise DataError(f"onnxruntime is missing; {TRAIN_EXTRA}") from error
        weights = Path(spec.submodule_search_locations[0]) / "dnsmos_models" / "sig_bak_ovr.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        self.session: Any = onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])

    def score(self, audio: np.ndarray, rate: int) -> float:
        """Mean overall opinion over windows of 9.01 s, one a second; shorter audio is repeated to fill one.

        Raises:
            DataError: no samples.
        """
        windows = dnsmos_windows(resample(audio, rate, RATE))
        raw = [float(self.session.run(None, {"input_1": window[None]})[0][0][2]) for window in windows]
        return float(np.mean(np.polyval(DNSMOS_OVERALL, raw)))


def dnsmos_windows(audio: np.ndarray) -> list[np.ndarray]:
    """Cuts 16 kHz audio into the model's windows, as the published scorer does.

    Raises:
        DataError: no samples.
    """
    if not len(audio):
        raise DataError("DNSMOS: need at least one sample of audio, got none")
    size = int(DNSMOS_SECONDS * RATE)
    while len(audio) < size:
        audio = np.concatenate([audio, audio])
    count = int(np.floor(len(audio) / RATE) - DNSMOS_SECONDS) + 1
    starts = [index * RATE for index in range(max(count, 1))]
    return [audio[start : start + size] for start in starts if start + size <= len(audio)]


def resample(audio: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Mono float32 at the target rate, clipped to [-1, 1]."""
    audio = np.asarray(audio, dtype=np.float32)
    if rate != target:
        audio = np.asarray(soxr.resample(audio, rate, target), dtype=np.float32)
    return np.clip(audio, -1.0, 1.0)
