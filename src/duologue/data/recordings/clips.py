"""What a source gives: a stretch of audio and what is known of it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from duologue.errors import DataError

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One utterance of a real person, with its words."""

    audio: Samples  # mono, [-1, 1]
    sample_rate: int  # Hz
    text: str
    source: str  # a key of `speech.SPEECH`
    name: str  # the file or the cut, unique within the source
    speaker: str  # unique over all sources
    licence: str
    kind: str  # reading | prompt | acted | radio | conversational

    @property
    def seconds(self) -> float:
        return len(self.audio) / self.sample_rate


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A sound without a word in it."""

    audio: Samples  # mono, [-1, 1]
    sample_rate: int  # Hz
    source: str  # a key of `noises.NOISES`
    name: str
    licence: str
    kind: str  # keyboard | music | effect | voice (a sigh, a sneeze, a gulp)

    @property
    def seconds(self) -> float:
        return len(self.audio) / self.sample_rate


def read(data: Path | bytes, *, name: str = "") -> tuple[Samples, int]:
    """Decodes a file, or one held in memory, to mono samples and their rate in Hz."""
    import soundfile

    if isinstance(data, Path) and data.suffix == ".g722":
        return _read_g722(data)
    try:
        file = io.BytesIO(data) if isinstance(data, bytes) else str(data)
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (RuntimeError, OSError) as error:
        raise DataError(f"recordings: cannot decode {name if isinstance(data, bytes) else data}: {error}") from error
    return samples.mean(axis=1), int(rate)


def _read_g722(path: Path) -> tuple[Samples, int]:
    """G.722, the telephone's wide band: one channel at 16 kHz, which soundfile cannot read."""
    try:
        import av
    except ImportError as error:
        raise DataError(f"recordings: {path.name} needs the package av; pip install duologue[train]") from error
    try:
        with av.open(str(path), format="g722") as container:
            frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    except (OSError, ValueError) as error:
        raise DataError(f"recordings: cannot decode {path}: {error}") from error
    samples = np.concatenate(frames) if frames else np.zeros(0, np.int16)
    return samples.astype(np.float32) / 32_768.0, 16_000


def raw_pcm16(path: Path) -> Samples:
    return np.frombuffer(_bytes(path), dtype="<i2").astype(np.float32) / 32_768.0


def raw_pcm8(path: Path) -> Samples:
    """Unsigned 8-bit samples, the usual form of the nineties."""
    return pcm8(_bytes(path))


def pcm8(data: bytes) -> Samples:
    return (np.frombuffer(data, dtype=np.uint8).astype(np.float32) - 128.0) / 128.0


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"recordings: {path} is not in the package as expected: {error}") from error


def cut(samples: Samples, rate: int, spans: Sequence[tuple[float, float, str]]) -> Iterator[tuple[str, Samples, str]]:
    """Cuts (start, end, text) in seconds out of a long reading; end 0 is the end of the file.

    Raises:
        DataError: a span lies outside of the audio, so that this is another file than the one the spans were made for.
    """
    length = len(samples) / rate
    for start, end, text in spans:
        stop = end or length
        if not 0 <= start < stop <= length + 0.05:
            raise DataError(f"recordings: no {start:.1f} to {stop:.1f} s in a file of {length:.1f} s; another version?")
        yield f"{start:.2f}", samples[round(start * rate) : round(stop * rate)], text
