"""Audio files: any format, rate and channel count in, mono blocks out; a WAV out that is valid at every moment."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from duologue.errors import AudioError

SHORTEST = 0.2  # seconds of a question
LONGEST = 600.0  # seconds of a question
_BLOCK = 65_536  # samples read from a file at a time
_LOUDEST = 100.0  # a float file beyond this does not hold samples in [-1, 1]
_WAV_LIMIT = 2**32 - 64  # bytes of samples: the header counts in 32 bits


@dataclass(frozen=True, kw_only=True)
class AudioInfo:
    """What a file says of itself."""

    path: Path
    sample_rate: int  # Hz
    channels: int
    seconds: float


def inspect(path: str | Path) -> AudioInfo:
    """Looks at a file without reading its samples.

    Raises:
        AudioError: missing, unreadable, not audio, or without a sample.
    """
    import soundfile

    path = Path(path)
    with _reading(path), open(path, "rb") as file:
        head = file.read(64)
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise AudioError(f"{path}: not a regular file; give the path of an audio file")
        if not head:
            raise AudioError(f"{path}: the file is empty (0 bytes); record the question again")
        try:
            info = soundfile.info(str(path))
        except (RuntimeError, ValueError, TypeError) as error:
            raise AudioError(f"{path}: not an audio file{_looks_like(head)}; {_FORMATS}") from error
    if info.frames == 0:
        raise AudioError(f"{path}: the audio has no samples in it; record the question again")
    return AudioInfo(
        path=path, sample_rate=info.samplerate, channels=info.channels, seconds=info.frames / info.samplerate
    )


def check_question(path: str | Path) -> AudioInfo:
    """`inspect`, and that the length is one of a question.

    Raises:
        AudioError: as `inspect`, or shorter than `SHORTEST`, or longer than `LONGEST`.
    """
    info = inspect(path)
    check_length(info.seconds, where=str(path))
    return info


def check_length(seconds: float, *, where: str) -> None:
    """Raises AudioError if this is not the length of a question."""
    if seconds < SHORTEST:
        raise AudioError(f"{where}: {seconds:.2f} s long, too short for a question; need at least {SHORTEST} s")
    if seconds > LONGEST:
        raise AudioError(
            f"{where}: {seconds / 60:.1f} minutes long; the longest question is {LONGEST / 60:.0f} minutes; cut it"
        )


def read_blocks(path: str | Path, sample_rate: int) -> Iterator[np.ndarray]:
    """Reads a file as mono float32 blocks in [-1, 1] at `sample_rate`, never holding all of it.

    Channels are averaged. Blocks have any length; together they are the whole file.

    Raises:
        AudioError: as `inspect`, or a sample that is not a number, or samples far outside [-1, 1], or damaged data.
    """
    import soundfile

    info = inspect(path)
    resampler = Resampler(info.sample_rate, sample_rate)
    position = 0
    with _reading(info.path):
        try:
            with soundfile.SoundFile(str(path)) as file:
                while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                    _check_samples(block, where=f"{path}", position=position, rate=info.sample_rate)
                    position += len(block)
                    yield resampler(block.mean(axis=1).clip(-1.0, 1.0))
        except RuntimeError as error:  # soundfile's own errors are RuntimeErrors
            reason = str(error).strip().rstrip(".")
            raise AudioError(
                f"{path}: damaged after {position / info.sample_rate:.1f} s ({reason}); convert or record it again"
            ) from error
    yield resampler(np.zeros(0, np.float32), final=True)


def load(path: str | Path, sample_rate: int) -> np.ndarray:
    """The whole of a file, as `read_blocks` reads it."""
    return np.concatenate(list(read_blocks(path, sample_rate)))


def as_mono(samples: np.ndarray, *, where: str = "the audio") -> np.ndarray:
    """Samples from a program ([N] or [N, channels], float in [-1, 1] or int16) as mono float32 in [-1, 1].

    Raises:
        AudioError: another shape or type, no samples, samples that are not numbers or far outside [-1, 1].
    """
    samples = np.asarray(samples)
    if samples.dtype == np.int16:
        samples = samples.astype(np.float32) / 32_768
    if samples.ndim not in (1, 2) or not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"{where}: need samples [N] or [N, channels] of float or int16, got {samples.dtype} {list(samples.shape)}"
        )
    if samples.ndim == 2 and samples.shape[1] > 32:
        raise AudioError(
            f"{where}: need [N, channels], got {list(samples.shape)}, which would be {samples.shape[1]} channels; "
            "transpose it"
        )
    if samples.shape[0] == 0:
        raise AudioError(f"{where}: there are no samples in it")
    _check_samples(samples, where=where)
    return (samples.mean(axis=1) if samples.ndim == 2 else samples).astype(np.float32).clip(-1.0, 1.0)


class Resampler:
    """One stream from one rate to another; the filter's memory is kept between pieces."""

    def __init__(self, rate_in: int, rate_out: int):
        import soxr

        self._stream = None if rate_in == rate_out else soxr.ResampleStream(rate_in, rate_out, 1, dtype="float32")

    def __call__(self, samples: np.ndarray, *, final: bool = False) -> np.ndarray:
        """The next mono float32 samples; `final` gives what the filter still holds and ends the stream."""
        return samples if self._stream is None else self._stream.resample_chunk(samples, last=final)


def check_writable(path: str | Path) -> None:
    """That a file can be made here, before there is anything to put into it.

    Raises:
        AudioError: a folder of that name, no folder to put it in, or no permission.
    """
    path = Path(path)
    if path.is_dir():
        raise AudioError(f"{path}: is a folder; give a file name to write to, such as {path}/answer.wav")
    if not path.parent.is_dir():
        raise AudioError(f"{path}: there is no folder {path.parent}; make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise AudioError(f"{path}: no permission to write there; choose another place")


class WavWriter:
    """Writes a 16-bit WAV as its samples come. After every write the file is a whole, valid WAV.

    The file is made at the first write, so that nothing is overwritten before there is something to put there. As a
    context manager: an interrupted answer (Ctrl-C) stays, valid as far as it went; after any other error the file is
    removed.

    Raises:
        AudioError: the file cannot be written (and it is removed).
    """

    def __init__(self, path: str | Path, sample_rate: int, *, channels: int = 1):
        self.path, self.sample_rate, self.channels = Path(path), sample_rate, channels
        self.samples = 0  # of all channels
        self._file: IO[bytes] | None = None
        check_writable(self.path)

    def write(self, samples: np.ndarray) -> None:
        """Appends samples in [-1, 1], [N] or [N, channels]."""
        data = encode_pcm16(samples)
        if self.samples * 2 + len(data) > _WAV_LIMIT:
            self.remove()
            raise AudioError(f"{self.path}: a WAV holds at most 4 GiB; write the audio to several files")
        try:
            if self._file is None:
                self._file = open(self.path, "wb", buffering=0)  # noqa: SIM115 - closed by close()
                _write_all(self._file, self._header(0))
            _write_all(self._file, data)
            self.samples += len(data) // 2
            self._file.seek(0)  # sizes last: the header never promises samples that are not there
            _write_all(self._file, self._header(self.samples * 2))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            self.remove()
            raise AudioError(
                f"{self.path}: cannot write the audio ({error.strerror or error}); the unfinished file was removed. "
                "Free some space or choose another place."
            ) from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Closes and deletes what was written; devices and the like are left alone."""
        begun = self._file is not None
        self.close()
        if begun and self.path.is_file():
            self.path.unlink()

    def __enter__(self) -> WavWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None and issubclass(kind, Exception):
            self.remove()
        self.close()

    def _header(self, size: int) -> bytes:
        rate, width = self.sample_rate, 2 * self.channels
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, self.channels, rate, rate * width, width, 16)  # PCM of 16 bits
        return struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE") + form + struct.pack("<4sI", b"data", size)


def encode_pcm16(samples: np.ndarray) -> bytes:
    """Samples in [-1, 1] as little-endian 16-bit PCM."""
    return np.rint(np.clip(samples, -1.0, 1.0) * 32_767).astype("<i2").tobytes()


def decode_pcm16(data: bytes) -> np.ndarray:
    """Little-endian 16-bit PCM as float32 in [-1, 1].

    Raises:
        AudioError: half a sample.
    """
    if len(data) % 2:
        raise AudioError(f"16-bit PCM needs an even number of bytes, got {len(data)}")
    return np.frombuffer(data, "<i2").astype(np.float32) / 32_768


_FORMATS = "WAV, FLAC, OGG, MP3 and what else libsndfile reads will do"


def _looks_like(head: bytes) -> str:
    if all(byte in b"\t\r\n" or byte >= 32 for byte in head) and head[:4] not in (b"RIFF", b"fLaC", b"OggS"):
        return " (it looks like a text file)"
    return " (or a format that cannot be read here)"


def _check_samples(block: np.ndarray, *, where: str, position: int = 0, rate: int | None = None) -> None:
    finite = np.isfinite(block).reshape(len(block), -1).all(axis=1)
    if not finite.all():
        first = position + int(np.argmin(finite))
        at = f"sample {first}" + (f", {first / rate:.2f} s in" if rate else "")
        raise AudioError(
            f"{where}: {int((~finite).sum())} samples are not numbers (NaN or infinite; the first is {at}). "
            "Export the audio again."
        )
    if len(block) and (peak := float(np.abs(block).max())) > _LOUDEST:
        raise AudioError(
            f"{where}: samples reach {peak:.0f}, need [-1, 1]; it looks like integers saved as floats: divide by 32768"
        )


def _write_all(file: IO[bytes], data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


class _reading:
    """Turns what the operating system says while a file is read into one clear line."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        if not self.path.exists() and not self.path.is_symlink():
            raise AudioError(f"{self.path}: there is no such file; check the name")
        if self.path.is_dir():
            raise AudioError(f"{self.path}: is a folder; give the path of an audio file")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, OSError):
            raise AudioError(f"{self.path}: cannot be read ({error.strerror or error})") from error
