"""Ogg pages, in memory and within bounds: packets in, pages out; bytes in any cuts in, packets out.

Source: RFC 3533. A page is a header, a table of segment lengths and at most 65,025 bytes of segments; a packet is a run
of segments that ends with one shorter than 255 bytes, perhaps on a later page.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from duologue.errors import AudioError

LONGEST_PACKET = 61_440  # bytes; RFC 7845 lets a reader of Opus refuse what is longer
LONGEST_PAGE = 27 + 255 + 255 * 255  # bytes
MOST_GARBAGE = 65_536  # bytes that may pass before the next page that is of use
_CAPTURE = b"OggS"
_HEADER = struct.Struct("<4sBBqIIIB")  # capture, version, flags, position, serial, sequence, checksum, segments
_CONTINUED, _FIRST, _LAST = 1, 2, 4  # flags
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class Packet:
    """One packet of a stream, and whether its page is the first of that stream."""

    data: bytes
    first: bool


def page(
    packets: Sequence[bytes], *, serial: int, sequence: int, position: int, first: bool = False, last: bool = False
) -> bytes:
    """One page of whole packets.

    Args:
        position: of the last packet's end in the stream; samples at 48 kHz for Opus.
    Raises:
        AudioError: the packets do not fit into a page.
    """
    table = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    if len(table) > 255:
        raise AudioError(f"Ogg: {len(packets)} packets need {len(table)} segments, a page holds 255; use more pages")
    flags = _FIRST * first | _LAST * last
    header = _HEADER.pack(_CAPTURE, 0, flags, position, serial, sequence & 0xFFFFFFFF, 0, len(table))
    body = table + b"".join(packets)
    return header[:22] + struct.pack("<I", _checksum(header + body)) + header[26:] + body


class PacketReader:
    """Gives the packets of one stream after the other; what is damaged is passed over.

    Never holds more than a page, a packet and what was pushed last.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._garbage = 0
        self._serial: int | None = None
        self._sequence = 0
        self._begun: bytes | None = None  # of a packet that goes on in the next page

    def push(self, data: bytes) -> Iterator[Packet]:
        """Takes the next bytes and gives the packets that they complete. To be exhausted before the next `push`.

        Raises:
            AudioError: no page of use in `MOST_GARBAGE` bytes, or a packet longer than `LONGEST_PACKET`.
        """
        self._bytes += data
        while (size := self._find_page()) is not None:
            whole = bytes(self._bytes[:size])
            del self._bytes[:size]
            yield from self._packets(whole)

    def _find_page(self) -> int | None:
        """Moves the next sound page to the front. Gives its length, or None where it is not all there yet."""
        held = self._bytes
        while True:
            start = held.find(_CAPTURE)
            self._drop(start if start >= 0 else max(0, len(held) - len(_CAPTURE) + 1))
            if len(held) < _HEADER.size:
                return None
            end = _HEADER.size + held[26]
            size = end + sum(held[_HEADER.size : end])
            if held[4] == 0 and (len(held) < end or len(held) < size):
                return None
            (checksum,) = struct.unpack_from("<I", held, 22)
            if held[4] == 0 and checksum == _checksum(bytes(held[:22]) + bytes(4) + bytes(held[26:size])):
                return size
            self._drop(len(_CAPTURE))

    def _drop(self, size: int) -> None:
        del self._bytes[:size]
        self._count(size)

    def _count(self, size: int) -> None:
        self._garbage += size
        if self._garbage > MOST_GARBAGE:
            raise AudioError(f"Ogg: need Ogg pages (they begin with OggS), got {self._garbage} bytes of something else")

    def _packets(self, whole: bytes) -> Iterator[Packet]:
        _, _, flags, _, serial, sequence, _, segments = _HEADER.unpack_from(whole)
        if flags & _FIRST:
            self._serial, self._begun = serial, None
        elif serial != self._serial:
            return self._count(len(whole))
        self._garbage = 0
        goes_on = self._begun is not None and bool(flags & _CONTINUED) and sequence == self._sequence
        self._sequence = (sequence + 1) & 0xFFFFFFFF
        packet = self._begun if goes_on else None if flags & _CONTINUED else b""  # None: its beginning is lost
        position = _HEADER.size + segments
        for length in whole[_HEADER.size : position]:
            if packet is not None:
                packet += whole[position : position + length]
                if len(packet) > LONGEST_PACKET:
                    raise AudioError(f"Ogg: a packet has at most {LONGEST_PACKET} bytes here, got one that is longer")
            position += length
            if length < 255:
                if packet is not None:
                    yield Packet(packet, first=bool(flags & _FIRST))
                packet = b""
        self._begun = packet if segments and whole[_HEADER.size + segments - 1] == 255 else None


def _checksum(data: bytes) -> int:
    """CRC-32 without the mirroring and inverting of the usual one: so the mirror image of the usual one's."""
    usual = zlib.crc32(data.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(usual.to_bytes(4, "little").translate(_MIRRORED), "big")
