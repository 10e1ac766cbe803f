"""Opus in Ogg as a live stream: samples in, pages out; bytes in any cuts in, samples out.

The codec is libopus through PyAV, a packet at a time. The pages are read here (`ogg`), so that what a stranger sends is
measured before the library sees any of it. Source of the format: RFC 7845.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from duologue.audio.frames import Framer
from duologue.audio.ogg import PacketReader, page
from duologue.errors import AudioError

if TYPE_CHECKING:
    import av

RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # Hz, those that Opus codes
_CLOCK = 48_000  # Hz, in which Opus counts whatever the rate
_FRAME = 0.02  # seconds of a packet
_PAGE_PACKETS = 50  # a second of them
_MOST_BAD = 100  # packets in a row
_HEAD = struct.Struct("<8sBBHIhB")  # OpusHead, version, channels, pre-skip, rate, gain, mapping family


class OpusWriter:
    """Codes one live stream. Holds back what does not fill a packet of 20 ms; the codec itself looks 2.5 ms ahead.

    Args:
        rate: Hz, one of `RATES`.
        bit_rate: bits a second of speech; silence needs 1,200.
    Raises:
        AudioError: another rate.
    """

    def __init__(self, rate: int, *, bit_rate: int = 48_000, serial: int = 1):
        import av

        _check_rate(rate)
        self.rate, self._serial = rate, serial
        self._framer = Framer(round(rate * _FRAME))
        codec = av.codec.CodecContext.create("libopus", "w")
        assert isinstance(codec, av.AudioCodecContext)
        codec.sample_rate, codec.layout, codec.format = rate, "mono", "flt"  # type: ignore[assignment]
        codec.bit_rate, codec.time_base = bit_rate, Fraction(1, rate)
        codec.options = {"application": "lowdelay", "frame_duration": "20", "compression_level": "5"}
        codec.open()
        self._codec = codec
        self._frames = self._pages = 0

    def push(self, samples: np.ndarray) -> bytes:
        """Takes the next mono float samples in [-1, 1] and gives the pages that they complete, perhaps none.

        The first pages are the stream's headers.
        """
        packets = [packet for frame in self._framer.push(samples) for packet in self._encode(frame)]
        if not packets:
            return b""
        pages = [] if self._pages else [self._page([bytes(self._codec.extradata or b"")]), self._page([_TAGS])]
        for start in range(0, len(packets), _PAGE_PACKETS):
            some = packets[start : start + _PAGE_PACKETS]
            self._frames += len(some)
            pages.append(self._page(some))
        return b"".join(pages)

    def _encode(self, samples: np.ndarray) -> Iterator[bytes]:
        import av

        frame = av.AudioFrame.from_ndarray(np.clip(samples, -1, 1)[None].astype(np.float32), "flt", "mono")
        frame.sample_rate = self.rate
        yield from (bytes(packet) for packet in self._codec.encode(frame))

    def _page(self, packets: list[bytes]) -> bytes:
        number, self._pages = self._pages, self._pages + 1
        position = round(self._frames * _FRAME * _CLOCK)
        return page(packets, serial=self._serial, sequence=number, position=position, first=number == 0)


class OpusReader:
    """Decodes one live stream, or several one after the other. Stereo is mixed down; damage is passed over.

    Holds back 1 ms, for the resampling from 48 kHz, and nothing else. What fills up the last packet is not cut off.

    Args:
        rate: Hz, of what comes out.
    Raises:
        AudioError: not one of `RATES`.
    """

    def __init__(self, rate: int):
        _check_rate(rate)
        self.rate = rate
        self._packets = PacketReader()
        self._codec: av.AudioCodecContext | None = None  # None before the header
        self._bad = 0

    def push(self, data: bytes) -> Iterator[np.ndarray]:
        """Takes the next bytes and gives mono float32 samples in [-1, 1], one array (at most 120 ms) for every packet.

        To be exhausted before the next `push`. A few bytes can hold minutes of sound: count what comes out.

        Raises:
            AudioError: it is not a stream of Ogg pages with Opus of one or two channels.
        """
        for packet in self._packets.push(data):
            if packet.first:
                self._begin(packet.data)
            elif self._codec is not None and not packet.data.startswith(b"OpusTags"):
                samples = self._decode(self._codec, packet.data)
                if len(samples):
                    yield samples

    def _begin(self, head: bytes) -> None:
        import av

        if len(head) < _HEAD.size or not head.startswith(b"OpusHead"):
            raise AudioError(f"Ogg: need a stream of Opus, got one that begins with {head[:8]!r}")
        _, version, channels, skip, _, gain, family = _HEAD.unpack_from(head)
        if version >> 4 or channels not in (1, 2) or family:
            raise AudioError(
                "Opus: need version 0 or 1, 1 or 2 channels and mapping family 0, "
                f"got version {version}, {channels} channels and family {family}"
            )
        codec = av.codec.CodecContext.create("libopus", "r")
        assert isinstance(codec, av.AudioCodecContext)
        codec.layout, codec.sample_rate = "mono", _CLOCK  # type: ignore[assignment]
        self._codec = codec
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=self.rate)
        self._skip = round(skip * self.rate / _CLOCK)  # samples before the stream's beginning
        self._gain = 10 ** (gain / 256 / 20)

    def _decode(self, codec: av.AudioCodecContext, packet: bytes) -> np.ndarray:
        import av

        pieces: list[np.ndarray] = []
        try:
            frames = codec.decode(av.Packet(packet)) if packet else []
            pieces = [piece.to_ndarray()[0] for frame in frames for piece in self._resampler.resample(frame)]
        except av.error.FFmpegError:
            frames = []
        self._bad = 0 if frames else self._bad + 1
        if self._bad > _MOST_BAD:
            raise AudioError(f"Opus: {self._bad} packets in a row are not Opus; code the audio again")
        samples = np.concatenate([np.zeros(0, np.float32), *pieces])
        skipped = min(self._skip, len(samples))
        self._skip -= skipped
        return np.clip(samples[skipped:] * self._gain, -1.0, 1.0).astype(np.float32)


_TAGS = b"OpusTags" + struct.pack("<I8sI", 8, b"duologue", 0)


def _check_rate(rate: int) -> None:
    if rate not in RATES:
        raise AudioError(f"Opus: need a rate of {', '.join(map(str, RATES))} Hz, got {rate}; resample first")
