"""Audio as the protocol writes it: its formats, streams of it in both directions, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from duologue.audio import g711, io
from duologue.errors import AudioError
from duologue.server.realtime.events import ClientError


@dataclass(frozen=True)
class Format:
    """One way to write mono audio as bytes."""

    name: str
    rate: int  # Hz
    width: int  # bytes of a sample
    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], np.ndarray]

    def as_dict(self) -> dict[str, object]:
        return {"type": self.name, "rate": self.rate} if self is PCM16 else {"type": self.name}

    def milliseconds(self, data: bytes | bytearray) -> float:
        return len(data) / (self.width * self.rate) * 1000

    def read(self, data: bytes, *, param: str) -> np.ndarray:
        """Samples from a client's bytes.

        Raises:
            ClientError: half a sample.
        """
        try:
            return self.decode(data)
        except AudioError as error:
            raise ClientError(f"{error}.", param=param) from error


PCM16 = Format("audio/pcm", 24_000, 2, io.encode_pcm16, io.decode_pcm16)
FORMATS = {
    each.name: each
    for each in (
        PCM16,
        Format("audio/pcmu", g711.SAMPLE_RATE, 1, g711.encode_mulaw, g711.decode_mulaw),
        Format("audio/pcma", g711.SAMPLE_RATE, 1, g711.encode_alaw, g711.decode_alaw),
    )
}


class Incoming:
    """One client's audio on its way to the model."""

    def __init__(self, format: Format, rate: int):
        self.format, self._rate = format, rate
        self._resampler = io.Resampler(format.rate, rate)

    def __call__(self, data: bytes) -> np.ndarray:
        """The next samples at the model's rate.

        Raises:
            ClientError: half a sample.
        """
        return self._resampler(self.format.read(data, param="audio"))

    def rest(self) -> np.ndarray:
        """What of it is still on its way; what comes next is another piece."""
        rest = self._resampler(np.zeros(0, np.float32), final=True)
        self._resampler = io.Resampler(self.format.rate, self._rate)
        return rest

    def whole(self, data: bytes) -> np.ndarray:
        """A piece of audio of its own."""
        samples = self.format.read(data, param="item.content.audio")
        return io.Resampler(self.format.rate, self._rate)(samples, final=True)


class Outgoing:
    """One answer's audio on its way to the client."""

    def __init__(self, format: Format, rate: int):
        self.format = format
        self._resampler = io.Resampler(rate, format.rate)

    def __call__(self, samples: np.ndarray, *, final: bool = False) -> bytes:
        return self.format.encode(self._resampler(samples, final=final))


class Track:
    """The latest audio that a client wrote, addressed by milliseconds since the first.

    Args:
        longest: seconds that are kept.
    """

    def __init__(self, format: Format, *, longest: float, begin: float = 0.0):
        self.format, self._most = format, round(longest * format.rate) * format.width
        self._data, self.begin = bytearray(), begin  # ms before the first byte that is kept

    @property
    def end(self) -> float:
        """Milliseconds up to now."""
        return self.begin + self.format.milliseconds(self._data)

    def append(self, data: bytes) -> None:
        self._data += data
        if (over := len(self._data) - self._most) > 0:
            self.forget(self.begin + over / (self.format.width * self.format.rate) * 1000)

    def cut(self, begin: float, end: float) -> bytes:
        """What is kept of the audio between two times."""
        return bytes(self._data[self._place(begin) : self._place(end)])

    def forget(self, until: float) -> None:
        """Drops what came before a time."""
        place = self._place(until)
        self.begin += self.format.milliseconds(self._data[:place])
        del self._data[:place]

    def _place(self, at: float) -> int:
        samples = round((at - self.begin) * self.format.rate / 1000)
        return min(len(self._data), max(0, samples) * self.format.width)
