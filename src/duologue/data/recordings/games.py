"""The spoken lines of two adventure games of the nineties, whose owners gave them away, with their subtitles.

Both packages hold every line twice: as an actor's recording and as the text on the screen. The file layouts were worked
out from the files themselves. Flight of the Amazon Queen (1995) is one big-endian archive of named pieces; Drascula
(1996) is a folder of raw recordings and one table of texts.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from duologue.errors import DataError

_AMIGA_HEADER = b"AmBk"
_COMMAND = re.compile(r"\*(?:..|.?$)")  # how an actor stands or looks; the next words are a new recording
_RESPONSES = (1187, 40)  # lines of QUEEN2.JAS before the hero's stock answers, and how many these are


class QueenArchive:
    """The pieces of `queen.1c` by name.

    Raises:
        DataError: the file is not such an archive.
    """

    def __init__(self, path: Path):
        try:
            self.data = path.read_bytes()
        except OSError as error:
            raise DataError(f"recordings: {path} is not in the package as expected: {error}") from error
        if self.data[:4] != b"QTBL" or len(self.data) < 15:
            raise DataError(f"recordings: {path.name} is not the game's archive, it begins with {self.data[:4]!r}")
        (count,) = struct.unpack_from(">H", self.data, 13)
        rows = struct.iter_unpack(">12sBII", self.data[15 : 15 + 21 * count])
        self.pieces = {name.rstrip(b"\0").decode("latin1"): (start, size) for name, _, start, size in rows}

    def __getitem__(self, name: str) -> bytes:
        start, size = self.pieces[name]
        piece = self.data[start : start + size]
        return piece[20:] if piece[:4] == _AMIGA_HEADER else piece

    def names(self, ending: str) -> list[str]:
        return [name for name in self.pieces if name.endswith(ending)]

    def lines(self) -> Iterator[tuple[str, str, str]]:
        """(piece with the recording, character, subtitle) of every line that was recorded."""
        for prefix, character, text in self._texts():
            for number, words in enumerate(_COMMAND.split(text), start=1):
                name = f"{prefix}{number:X}.SB"
                if words.strip() and name in self.pieces:
                    yield name, character, words.strip()

    def _texts(self) -> Iterator[tuple[str, str, str]]:
        for name in self.names(".DOG"):
            yield from self._dialogue(name)
        for name in self.names(".CUT"):
            stem = name.removesuffix(".CUT").ljust(5, "_")
            for number, text in enumerate(_even_strings(self[name])):
                yield f"{stem}{number:02d}", "cast", text
        texts = self["QUEEN2.JAS"].decode("latin1").split("\r\n")
        before, answers = _RESPONSES
        for number, text in enumerate(texts[before : before + answers], start=1):
            yield f"JOE{number:04d}", "joe", text
        for number, text in enumerate(texts[:before], start=answers + 1):
            yield f"JOE{number:04d}", "joe", text

    def _dialogue(self, name: str) -> Iterator[tuple[str, str, str]]:
        """A conversation: what the hero may say, then what the other says, each string with its number."""
        piece = self[name]
        levels, _, key, hero_lines, other_lines = struct.unpack_from(">5h", piece)
        others_at, end = struct.unpack_from(">2H", piece, 22)
        character = name.removesuffix(".DOG").rstrip("0123456789").lower()
        for number, text in _numbered_strings(piece, 32 + abs(levels) * 96, others_at, hero_lines):
            yield f"{key:02d}{number:04X}J", "joe", text
        for number, text in _numbered_strings(piece, others_at, end, other_lines):
            yield f"{key:02d}{number:04X}P", character, text


def _numbered_strings(piece: bytes, start: int, end: int, count: int) -> Iterator[tuple[int, str]]:
    """Records of two zero bytes, a number, a length and the characters, each begun at a multiple of four."""
    for _ in range(count):
        if start + 5 > end:
            return
        number, length = struct.unpack_from(">2xHB", piece, start)
        yield number, piece[start + 5 : start + 5 + length].decode("latin1")
        start = (start + 5 + length + 3) // 4 * 4


def _even_strings(piece: bytes) -> Iterator[str]:
    """The strings of a cut scene: a length and the characters, the next at an even place; an empty one is one byte."""
    (at,) = struct.unpack_from(">H", piece, 8)
    while at < len(piece):
        length = piece[at]
        yield piece[at + 1 : at + 1 + length].decode("latin1")
        at += 1 + length
        at += at % 2 if length else 0


DRASCULA_VOICES = {  # the first letters of a recording's name, and the table of texts that it is numbered by
    "": (0, "hacker"),
    "D": (1, "drascula"),
    "B": (2, "drunk"),
    "BJ": (3, "billie-jean"),
    "E": (4, "buried-drunkard"),
    "I": (5, "igor"),
    "L": (6, "lunatic"),
    "P": (7, "pianist"),
    "T": (8, "bartender"),
    "VB": (9, "von-braun"),
}


def drascula_lines(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """(file of raw unsigned 8-bit samples at 11025 Hz, character, subtitle) of every line that was recorded."""
    tables = _drascula_tables(folder / "drascula.dat", count=len(DRASCULA_VOICES))
    for prefix, (table, character) in DRASCULA_VOICES.items():
        for number, text in enumerate(tables[table]):
            path = folder / f"{prefix}{number}.ALS"
            if text and path.is_file():
                yield path, character, text


def _drascula_tables(path: Path, *, count: int) -> list[list[str]]:
    """The English texts: each table is its number of texts and then, for six languages, a size and the texts."""
    try:
        data = path.read_bytes()
        if not data.startswith(b"DRASCULA"):
            raise DataError(f"recordings: {path.name} is not the game's table, it begins with {data[:8]!r}")
        at = data.index(b"THAT'S THE SECOND BIGGEST") - 12
        tables = []
        for _ in range(count):
            (num_texts,) = struct.unpack_from(">H", data, at)
            at += 2
            languages = []
            for _ in range(6):
                texts, at = _padded_strings(data, at + 4, num_texts)
                languages.append(texts)
            tables.append(languages[0])
    except (OSError, ValueError, struct.error) as error:
        raise DataError(f"recordings: {path} does not hold the texts as expected: {error}") from error
    return tables


def _padded_strings(data: bytes, at: int, count: int) -> tuple[list[str], int]:
    texts = []
    for _ in range(count):
        (size,) = struct.unpack_from(">H", data, at)  # with its own two bytes
        texts.append(data[at + 2 : at + size].rstrip(b"\0").decode("cp437"))
        at += size
    return texts, at
