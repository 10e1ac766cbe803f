"""Independent judges, never part of what is being measured: a model of what listeners say about quality.

The recogniser that judges words is `data.recognisers.WhisperRecogniser` with a model that mini has never seen.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soxr

from duologue.errors import DataError
from duologue.eval.metrics import TRAIN_EXTRA

RATE = 16_000  # Hz, of the judge
DNSMOS_SECONDS = 9.01  # the model's window
DNSMOS_OVERALL = (-0.06766283, 1.11546468, 0.04602535)  # raw score -> mean opinion, P.835 (Reddy et al. 2022)


class Quality(Protocol):
    """Anything that scores how clean speech sounds, 1 to 5."""

    def score(self, audio: np.ndarray, rate: int) -> float: ...


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
