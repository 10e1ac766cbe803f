"""The promises of `duologue.data.recordings.sky`, kept with a small game that is made here."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from duologue.data import recordings as package
from duologue.data.recordings import notes
from duologue.data.recordings.sky import SkyArchive, unpack
from duologue.errors import DataError

CODES = {  # some of the game's, bit for bit
    " ": "000",
    "e": "0010",
    "a": "0011",
    "s": "01001",
    "t": "01010",
    ".": "01100",
    "i": "01101",
    "\0": "100000",
    "h": "1100001",
    "H": "1110001",
}
LONG = "He hates his seat at this heat. He is at a test that he hates. His teas taste. He is his test."
Turn = tuple[bytes, tuple[int, int] | None]  # bytes as they are, then how far to go back and how many to repeat


def packed(turns: list[Turn], size: int) -> bytes:
    """One block of Rob Northen's method 1, with codes that all have four bits."""
    out, word, free = bytearray(), 0, 0

    def put(value: int, count: int) -> None:
        nonlocal word, free
        for at in range(count):
            if not free:
                word, free = len(out), 16
                out.extend(b"\0\0")
            filled = int.from_bytes(out[word : word + 2], "little") | (value >> at & 1) << 16 - free
            out[word : word + 2] = filled.to_bytes(2, "little")
            free -= 1

    def put_value(value: int) -> None:
        symbol = value.bit_length()
        put(int(f"{symbol:04b}"[::-1], 2), 4)
        put(value & (1 << max(0, symbol - 1)) - 1, max(0, symbol - 1))

    put(0, 2)
    for _ in range(3):
        put(16, 5)
        for _ in range(16):
            put(4, 4)
    put(len(turns), 16)
    for plain, again in turns:
        put_value(len(plain))
        out.extend(plain)
        if again:
            put_value(again[0] - 1)
            put_value(again[1] - 2)
    return b"RNC\1" + struct.pack(">2I2H2B", size, len(out), 0, 0, 0, 1) + bytes(out)


def section(texts: list[str]) -> bytes:
    bits = ["".join(CODES[character] for character in text + "\0") for text in texts]
    bits = [text + "0" * (-len(text) % (16 if len(text) >= 256 else 2)) for text in bits]
    pairs = [len(text) // 2 for text in bits]
    sizes = bytes(size // 8 | 0x80 if size >= 128 else size for at, size in enumerate(pairs) if at % 32 < 31)
    blocks = [sum(pairs[at : at + 32]) for at in range(0, len(pairs) - 32, 32)]
    whole = "".join(bits)
    head = 4 + 2 * len(blocks)
    body = bytes(int(whole[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(whole), 8))
    return struct.pack(f"<{2 + len(blocks)}H", head, head + len(sizes), *blocks) + sizes + body


def game(tmp_path: Path, *, silent: int = 8000) -> Path:
    """Two sections with words, six without; four recordings, the third much too short for its words."""
    texts = ["He is.", "Hi.", LONG, *["he"] * 29, "...at the sea.", "He has it."]
    files = {60_600 + number: section(["a"]) for number in range(8)}
    files |= {60_600: section(texts), 60_602: section(["a", "He hates tea."])}
    sound = packed([(b"\x80\xff", (2, silent - 3)), (b"\0", None)], silent)
    short = packed([(b"\x80" * 90, None)], 90)
    files |= {number: bytes(22) + sound for number in (50_000, 50_032, 51_101)} | {50_002: bytes(22) + short}
    folder = tmp_path / "debian/beneath-a-steel-sky/usr/share/scummvm/beneath-a-steel-sky"
    folder.mkdir(parents=True)
    table, disk = struct.pack("<I", len(files)), bytearray(b"sky")
    for number, data in sorted(files.items()):
        in_sixteens = number % 2 == 0
        if in_sixteens:
            disk.extend(bytes(-len(disk) % 16))
        start = len(disk) // 16 | 0x800000 if in_sixteens else len(disk)
        disk.extend(data)
        table += struct.pack("<H", number) + start.to_bytes(3, "little") + (len(data) | 0x800000).to_bytes(3, "little")
    (folder / "sky.dnr").write_bytes(table)
    (folder / "sky.dsk").write_bytes(disk)
    return folder


def test_every_recorded_line_finds_its_words_whatever_block_and_section_it_is_in(tmp_path):
    assert list(SkyArchive(game(tmp_path)).lines()) == [
        (50_000, "He is."),
        (50_002, LONG),
        (50_032, "...at the sea."),
        (51_101, "He hates tea."),
    ]


def test_lines_are_training_data_and_one_too_short_for_its_words_is_left_out(tmp_path):
    game(tmp_path)
    clips = package.recordings("train", tmp_path, only=["sky"])
    assert [(clip.name, clip.text) for clip in clips] == [
        ("50000", "He is."),
        ("50032", "At the sea."),
        ("51101", "He hates tea."),
    ]
    assert {(clip.sample_rate, len(clip.audio), clip.audio.dtype.name) for clip in clips} == {(11_025, 8000, "float32")}
    np.testing.assert_allclose(clips[0].audio[[0, 1, 2, -1]], [0.0, 127 / 128, 0.0, -1.0])
    assert package.recordings("dev", tmp_path, only=["sky"]) == package.recordings("test", tmp_path, only=["sky"]) == []


def test_a_line_known_to_be_said_in_other_words_is_left_out(tmp_path, monkeypatch):
    game(tmp_path)
    monkeypatch.setattr(notes, "SKY_OTHERWISE", frozenset({50_032}))
    assert [clip.name for clip in package.recordings("train", tmp_path, only=["sky"])] == ["50000", "51101"]


@pytest.mark.parametrize(
    ("turns", "whole"),
    [
        ([(b"", None)], b""),
        ([(b"a", (1, 5)), (b"", (6, 2)), (b"bcd", None)], b"aaaaaaaabcd"),
        (
            [(bytes(range(200)), (200, 150)), (bytes(700), (3, 2)), (b"", None)],
            bytes([*range(200), *range(150)] + [0] * 702),
        ),
    ],
)
def test_what_was_packed_is_unpacked(turns, whole):
    assert unpack(packed(turns, len(whole))) == whole


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"RIFF" + bytes(30), "not packed by Rob Northen's method 1"),
        (b"RNC\2" + bytes(30), "not packed by Rob Northen's method 1"),
        (b"RNC\1" + bytes(13) + b"\1\0\0\xfe\0" + bytes(8), "packed in another way"),
        (packed([(b"a", (2, 2)), (b"", None)], 3), "repeats what was not there"),
        (packed([(b"abc", None)], 4), "unpacks to 3 bytes, and says 4"),
        (packed([(b"abc", None)], 3)[:-2], "unpacks to 1 bytes, and says 3"),
    ],
)
def test_what_is_packed_otherwise_or_damaged_is_refused(data, said):
    with pytest.raises(DataError, match=said):
        unpack(data)


def test_another_version_of_the_game_is_refused(tmp_path):
    folder = game(tmp_path)
    archive = SkyArchive(folder)
    with pytest.raises(DataError, match="no file 7"):
        archive[7]
    disk = folder / "sky.dsk"
    whole = disk.read_bytes()
    disk.write_bytes(whole[:-10])
    with pytest.raises(DataError, match="ends within file"):
        list(archive.lines())
    disk.write_bytes(b"\xff" * len(whole))
    with pytest.raises(DataError, match="not the texts of a section"):
        list(archive.lines())
    places = archive.places[60_600]
    texts = whole[places[0] : sum(places)]
    disk.write_bytes(whole.replace(texts, texts[:-60] + b"\xff" * 60))
    with pytest.raises(DataError, match="another code"):
        list(archive.lines())
    (folder / "sky.dnr").write_bytes(b"\5\0\0\0")
    with pytest.raises(DataError, match="not the game's table"):
        SkyArchive(folder)
