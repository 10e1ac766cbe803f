"""Ogg pages: what is written is read, in any cuts; what is damaged is passed over; nothing grows."""

from __future__ import annotations

import pytest

from duologue.audio.ogg import LONGEST_PACKET, MOST_GARBAGE, PacketReader, page
from duologue.errors import AudioError

SIZES = [0, 1, 254, 255, 256, 510, 3_000]


def stream(packets: list[bytes], *, serial: int = 7) -> list[bytes]:
    """One page for each."""
    return [
        page([packet], serial=serial, sequence=number, position=number, first=number == 0)
        for number, packet in enumerate(packets)
    ]


def parts(packet: bytes, *, sequence: int, cut: int, serial: int = 7) -> list[bytes]:
    """A packet on two pages, of which the second goes on with it."""
    assert cut % 255 == 0
    first, second = (
        page([packet[:cut]], serial=serial, sequence=sequence, position=-1),
        page([packet[cut:]], serial=serial, sequence=sequence + 1, position=1),
    )
    without_end = bytearray(first)
    del without_end[27 + cut // 255]  # the segment of no length that ended it
    without_end[26] -= 1
    onward = bytearray(second)
    onward[5] |= 1
    return [sound(without_end), sound(onward)]


def sound(data: bytearray) -> bytes:
    """With the checksum that belongs to it, found bit by bit."""
    data[22:26] = bytes(4)
    register = 0
    for byte in data:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ 0x104C11DB7) if register & 0x80000000 else register << 1
    data[22:26] = register.to_bytes(4, "little")
    return bytes(data)


def read(reader: PacketReader, *pieces: bytes) -> list[bytes]:
    return [packet.data for piece in pieces for packet in reader.push(piece)]


def test_the_checksum_is_the_one_of_the_format():
    whole = page([b"abc", bytes(300)], serial=7, sequence=3, position=99)
    assert sound(bytearray(whole)) == whole


@pytest.mark.parametrize("cut", [1, 2, 27, 100, 100_000])
def test_packets_come_back_in_any_cuts(cut):
    packets = [bytes([size % 251]) * size for size in SIZES]
    data = b"".join([*stream(packets[:3]), page(packets[3:], serial=7, sequence=3, position=3)])
    assert read(PacketReader(), *(data[at : at + cut] for at in range(0, len(data), cut))) == packets


def test_a_packet_goes_on_over_pages():
    head, long = stream([b"head"])[0], bytes(range(256)) * 4
    first, second = parts(long, sequence=1, cut=510)
    after = page([b"after"], serial=7, sequence=3, position=3)
    assert read(PacketReader(), head, first, second, after) == [b"head", long, b"after"]
    assert read(PacketReader(), head, second, after) == [b"head", b"after"]  # its beginning is lost
    assert read(PacketReader(), head, first, after) == [b"head", b"after"]  # its end is lost
    late = parts(long, sequence=2, cut=510)[1]
    assert read(PacketReader(), head, first, late, after) == [b"head", b"after"]  # a page in between is lost


def test_damage_costs_the_page_that_is_damaged():
    pages = stream([b"head", b"one" * 50, b"two" * 50, b"three" * 50])
    flipped = bytearray(pages[1])
    flipped[60] ^= 1
    assert read(PacketReader(), pages[0], bytes(flipped), *pages[2:]) == [b"head", b"two" * 50, b"three" * 50]
    assert read(PacketReader(), pages[0], pages[1][:40], *pages[2:]) == [b"head", b"two" * 50, b"three" * 50]
    assert read(PacketReader(), b"noise OggS noise" * 9, *pages)[0] == b"head"


def test_other_streams_are_passed_over_and_a_new_one_takes_over():
    mine, other = stream([b"head", b"one"]), stream([b"other", b"two"], serial=8)
    assert read(PacketReader(), mine[0], other[1], mine[1]) == [b"head", b"one"]
    assert read(PacketReader(), *mine, *other, mine[1]) == [b"head", b"one", b"other", b"two"]


def test_a_stream_that_is_none_is_refused_and_little_of_it_is_kept():
    reader = PacketReader()
    with pytest.raises(AudioError, match="begin with OggS"):
        for _ in range(MOST_GARBAGE // 1_000 + 2):
            read(reader, b"\x00" * 1_000)
            assert len(reader._bytes) < 4
    endless = stream([b"head"], serial=8)[0].replace(b"\x02", b"\x00", 1)
    reader = PacketReader()
    with pytest.raises(AudioError, match="begin with OggS"):
        for _ in range(MOST_GARBAGE):
            read(reader, sound(bytearray(endless)))  # pages of no stream that has begun


def test_a_packet_without_end_is_refused():
    reader = PacketReader()
    read(reader, stream([b"head"])[0])
    onward = bytearray(b"OggS" + bytes([0, 1]) + bytes(8) + bytes([7, 0, 0, 0]) + bytes(8) + bytes([40]))
    onward += b"\xff" * 40 + bytes(40 * 255)
    with pytest.raises(AudioError, match=f"at most {LONGEST_PACKET} bytes"):
        for number in range(1, 100):
            onward[5], onward[18] = int(number > 1), number
            read(reader, sound(onward))


def test_a_page_has_room_for_255_segments():
    with pytest.raises(AudioError, match="256 segments"):
        page([b""] * 256, serial=1, sequence=0, position=0)
