"""The spoken lines of Beneath a Steel Sky (1994), whose owner gave it away, with their subtitles.

`sky.dsk` is all of the game's files one after the other, `sky.dnr` the table of where each begins. A line has a number:
its section and its place in it. The texts of a section are one file, each packed with the same Huffman code, which
stands in the game's program; a recording is a file of its own, packed by Rob Northen's method 1. The code and the
layouts are those of version 0.0372, the one in Debian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from duologue.errors import DataError

SKY_RATE = 11_025  # Hz
_HEADER = 22  # bytes before a packed file, of no use for sound
_TEXTS = 60_600  # the English texts of section 0; the next section's are the next file
_SPEECH = (50_000, 50_600, 51_100, 52_430, 53_380, 54_530, 55_080, 55_230)  # the first line's recording, a section
# The code's leaves from left to right as far as English needs them: their depth, and the characters at that depth.
_LEAVES = (
    (3, " "),
    (4, "ea"),
    (5, "ostn.i"),
    (4, "r"),
    (6, "\0E"),
    (5, "umA"),
    (6, "lIdRNS"),
    (5, "T"),
    (7, "Oh"),
    (6, "cDg"),
    (7, "LCpU!y"),
    (6, "M"),
    (8, "Pv"),
    (7, "H?b"),
    (8, "'f"),
    (7, ",GB"),
    (9, "Vk"),
    (8, "Fqw"),
    (9, "K-"),
    (8, "WJ*"),
    (9, "zYj+"),
    (10, "Q\x85"),
    (9, ")"),
    (10, "Z\x8b"),
    (9, "<"),
    (11, "\x95~"),
    (10, "\x8a\x87:"),
    (11, "\x7f]"),
    (10, "#"),
    (11, "xX"),
    (10, "\x91"),
    (12, "\x88`"),
    (11, "2"),
    (12, "0\x83"),
    (11, "1"),
    (12, "/("),
    (11, "=\x86^"),
    (12, "39\x984"),
)


def _codes() -> dict[str, str]:
    """Bits to character: each leaf is as wide as half to the power of its depth."""
    codes, start = {}, 0.0
    for depth, characters in _LEAVES:
        for character in characters:
            codes[f"{round(start * 2**depth):0{depth}b}"] = character
            start += 2.0**-depth
    return codes


class SkyArchive:
    """The game's files by number.

    Raises:
        DataError: the folder does not hold this version of the game.
    """

    def __init__(self, folder: Path):
        self.disk = folder / "sky.dsk"
        try:
            table = (folder / "sky.dnr").read_bytes()
        except OSError as error:
            raise DataError(f"recordings: {folder} does not hold the game as expected: {error}") from error
        if len(table) < 4 or len(table) != 4 + 8 * int.from_bytes(table[:4], "little"):
            raise DataError(f"recordings: {folder / 'sky.dnr'} is not the game's table of files")
        self.places: dict[int, tuple[int, int]] = {}
        for row in range(4, len(table), 8):
            number, start, size = (
                int.from_bytes(table[row + a : row + b], "little") for a, b in ((0, 2), (2, 5), (5, 8))
            )
            in_sixteens = start >> 23
            self.places[number] = (start & 0x7FFFFF) * (16 if in_sixteens else 1), size & 0x3FFFFF

    def __getitem__(self, number: int) -> bytes:
        """The file as it is kept."""
        if number not in self.places:
            raise DataError(f"recordings: {self.disk} has no file {number}; another version?")
        start, size = self.places[number]
        try:
            with self.disk.open("rb") as disk:
                disk.seek(start)
                data = disk.read(size)
        except OSError as error:
            raise DataError(f"recordings: cannot read {self.disk}: {error}") from error
        if len(data) != size:
            raise DataError(f"recordings: {self.disk} ends within file {number}; another version?")
        return data

    def recording(self, number: int) -> bytes:
        """Unsigned 8-bit samples at `SKY_RATE`."""
        return unpack(self[number][_HEADER:])

    def lines(self) -> Iterator[tuple[int, str]]:
        """(number of the recording's file, subtitle) of every line that was recorded. Who speaks is not kept there."""
        codes = _codes()
        for section, first in enumerate(_SPEECH):
            data = self[_TEXTS + section]
            for number, start in enumerate(_starts(data), start=first):
                if number in self.places:
                    yield number, _text(data, start, codes)


def _starts(data: bytes) -> Iterator[int]:
    """Where each text of a section begins, in bits. They lie in blocks of 32.

    The head has the sizes of the blocks, behind it stand the sizes of each block's first 31 texts, and then the texts.
    A size counts pairs of bits; one with the highest bit of its byte set counts eights of them.
    """
    sizes_at, texts_at = struct.unpack_from("<2H", data)
    if not 4 <= sizes_at <= texts_at < len(data):
        raise DataError("recordings: a file of the game is not the texts of a section; another version?")
    blocks = struct.unpack_from(f"<{sizes_at // 2 - 2}H", data, 4)
    sizes = [8 * (size & 0x7F) if size & 0x80 else size for size in data[sizes_at:texts_at]]
    block_at = 8 * texts_at
    for number, block in enumerate((*blocks, 0)):
        at = block_at
        yield at
        for size in sizes[32 * number : 32 * number + 31]:
            at += 2 * size
            yield at
        block_at += 2 * block


def _text(data: bytes, start: int, codes: dict[str, str]) -> str:
    text = code = ""
    for at in range(start, 8 * len(data)):
        code += "01"[data[at // 8] >> 7 - at % 8 & 1]
        if code in codes:
            if codes[code] == "\0":
                return text
            text, code = text + codes[code], ""
    raise DataError("recordings: a text of the game is packed with another code; another version?")


class _Bits:
    """Bits out of little-endian words of 16, the lowest first. A word is read when it is needed, so that `at` is free
    to move on between two words: whole bytes lie there."""

    def __init__(self, data: bytes, at: int):
        self.data, self.at, self.held, self.left = data, at, 0, 0

    def take(self, count: int) -> int:
        if self.left < count:
            self.held |= int.from_bytes(self.data[self.at : self.at + 2], "little") << self.left
            self.at += 2
            self.left += 16
        taken = self.held & ((1 << count) - 1)
        self.held >>= count
        self.left -= count
        return taken

    def table(self) -> dict[int, int]:
        """A canonical Huffman code: a one and the code's bits, to what it stands for."""
        lengths = [self.take(4) for _ in range(self.take(5))]
        codes, code = {}, 0
        for length in range(1, 16):
            code *= 2
            for symbol, its_length in enumerate(lengths):
                if its_length == length:
                    codes[1 << length | code] = symbol
                    code += 1
        return codes

    def value(self, table: dict[int, int]) -> int:
        """A symbol is how many bits the value has; all but its first follow."""
        code = 1
        while code not in table:
            if code >> 16:
                raise DataError("recordings: a file of the game is packed in another way than expected")
            code = 2 * code | self.take(1)
        symbol = table[code]
        return symbol if symbol < 2 else 1 << symbol - 1 | self.take(symbol - 1)


def unpack(data: bytes) -> bytes:
    """Undoes Rob Northen's method 1: in turns, bytes as they are and repetitions of what came before.

    Raises:
        DataError: it is not packed so, or damaged.
    """
    if data[:4] != b"RNC\1" or len(data) < 18:
        raise DataError(f"recordings: not packed by Rob Northen's method 1, it begins with {data[:4]!r}")
    size, num_blocks = int.from_bytes(data[4:8], "big"), data[17]
    bits = _Bits(data, 18)
    bits.take(2)  # flags
    out = bytearray()
    for _ in range(num_blocks):
        plain, distance, length = bits.table(), bits.table(), bits.table()
        for left in range(bits.take(16), 0, -1):
            count = bits.value(plain)
            out += data[bits.at : bits.at + count]
            bits.at += count
            if left > 1:
                back, count = bits.value(distance) + 1, bits.value(length) + 2
                if back > len(out):
                    raise DataError("recordings: a file of the game is damaged: it repeats what was not there")
                piece = out[-back:]
                out += (piece * (count // back + 1))[:count]
    if len(out) != size:
        raise DataError(f"recordings: a file of the game unpacks to {len(out)} bytes, and says {size}")
    return bytes(out)
