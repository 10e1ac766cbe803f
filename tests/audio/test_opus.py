"""Live Ogg-Opus: round trips in any cuts, other people's streams, and strangers."""

from __future__ import annotations

import io
import random
import struct

import numpy as np
import pytest
import soundfile

from duologue.audio.ogg import page
from duologue.audio.opus import OpusReader, OpusWriter
from duologue.errors import AudioError

RATE = 24_000


def sound(seconds: float, rate: int = RATE) -> np.ndarray:
    """A gliding tone."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (300 * t + 200 * t**2))).astype(np.float32)


def write(samples: np.ndarray, rate: int = RATE) -> bytes:
    return OpusWriter(rate).push(samples)


def read(data: bytes, rate: int = RATE, *, cut: int = 1_000_000) -> np.ndarray:
    reader = OpusReader(rate)
    pieces = [piece for at in range(0, len(data), cut) for piece in reader.push(data[at : at + cut])]
    return np.concatenate([np.zeros(0, np.float32), *pieces])


def head(
    *, magic: bytes = b"OpusHead", version: int = 1, channels: int = 1, skip: int = 0, gain: int = 0, family: int = 0
) -> bytes:
    return page(
        [struct.pack("<8sBBHIhB", magic, version, channels, skip, 48_000, gain, family)],
        serial=1,
        sequence=0,
        position=0,
        first=True,
    )


def body(packets: list[bytes]) -> bytes:
    return page(packets, serial=1, sequence=1, position=0)


@pytest.mark.parametrize("cut", [1, 7, 100, 5_000])
def test_bytes_in_any_cuts_give_the_same_samples(cut):
    data = write(sound(0.5))
    assert np.array_equal(read(data, cut=cut), read(data))


@pytest.mark.parametrize("chunk", [1, 333, 480, 1_920, 100_000])
def test_samples_in_any_chunks_give_the_same_packets(chunk):
    samples, writer = sound(0.2), OpusWriter(RATE)
    data = b"".join(writer.push(samples[at : at + chunk]) for at in range(0, len(samples), chunk))
    assert np.array_equal(read(data), read(write(samples)))


@pytest.mark.parametrize("rate_in", [8_000, 16_000, 24_000, 48_000])
@pytest.mark.parametrize("rate_out", [16_000, 24_000])
def test_sound_comes_back_at_any_rate_in_time(rate_in, rate_out):
    heard = read(write(sound(1.0, rate_in), rate_in), rate_out)
    want = sound(1.0, rate_out)
    held = len(want) - len(heard)
    assert 0 < held <= 0.004 * rate_out  # 2.5 ms that the codec looks ahead, 1 ms of resampling; skipped: none
    middle = slice(rate_out // 10, len(heard) - rate_out // 10)
    error = heard[middle] - want[: len(heard)][middle]
    assert np.square(error).mean() < 0.01 * np.square(want).mean()


def test_nothing_is_held_back_but_what_does_not_fill_a_packet():
    writer, reader = OpusWriter(RATE), OpusReader(RATE)
    assert writer.push(np.zeros(479, np.float32)) == b""
    pages = writer.push(np.zeros(1, np.float32))
    assert sum(map(len, reader.push(pages))) == 480 - 60 - 16
    assert sum(map(len, reader.push(writer.push(np.zeros(960, np.float32))))) == 960


def test_libsndfile_reads_what_is_written():
    samples, rate = soundfile.read(io.BytesIO(write(sound(1.0))), dtype="float32")
    assert rate == RATE and len(samples) == RATE - 60  # what the header says is to be skipped
    assert np.square(samples - sound(1.0)[: len(samples)]).mean() < 1e-3


def test_what_libsndfile_writes_is_read_and_stereo_is_mixed():
    both = np.stack([sound(1.0, 48_000), np.zeros(48_000, np.float32)], axis=1)
    file = io.BytesIO()
    soundfile.write(file, both, 48_000, format="OGG", subtype="OPUS")
    heard = read(file.getvalue())[:RATE]  # the last packet is filled up
    assert len(heard) == RATE and np.square(heard - sound(1.0) / 2).mean() < 1e-3


def test_silence_is_small():
    assert len(write(np.zeros(RATE * 2, np.float32))) < 600


def test_a_second_stream_begins_afresh():
    one = write(sound(0.2))
    assert np.array_equal(read(one + one), np.concatenate([read(one)] * 2))


def test_the_header_is_kept_to():
    pages = write(sound(0.4))
    plain = read(pages)
    quiet = with_head(pages, head(skip=120, gain=-6 * 256))
    assert np.allclose(read(quiet), plain * 10 ** (-6 / 20), atol=1e-6)
    later = with_head(pages, head(skip=120 + 4_800))
    assert np.array_equal(read(later), plain[2_400:])
    assert np.abs(read(with_head(pages, head(gain=32_767)))).max() <= 1.0
    assert len(read(with_head(pages, head(skip=65_535)))) == 0


def with_head(pages: bytes, other: bytes) -> bytes:
    """A stream of ours with another first page."""
    return other + pages[len(head()) :]


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (head(magic=b"OpusTags"), "begins with b'OpusTags'"),
        (page([b"\x01vorbis" + bytes(23)], serial=1, sequence=0, position=0, first=True), "need a stream of Opus"),
        (page([b"OpusHead"], serial=1, sequence=0, position=0, first=True), "need a stream of Opus"),
        (head(channels=0), "0 channels"),
        (head(channels=6, family=1), "6 channels and family 1"),
        (head(version=16), "version 16"),
        (b"RIFF" * 20_000, "need Ogg pages"),
        (head() + body([b"\xff\xff\xff"] * 150), "are not Opus"),
        (head() + body([b""] * 150), "are not Opus"),
    ],
)
def test_what_is_not_opus_is_refused(first, told):
    with pytest.raises(AudioError, match=told):
        read(first)


def test_a_bad_packet_costs_itself_alone():
    packets = [b"\xff\xff\xff", b"", b"\xfc"]  # nonsense, nothing, a packet without sound
    pages = write(sound(0.4))
    assert len(read(pages + page(packets, serial=1, sequence=9, position=0))) == len(read(pages)) + 480


def test_a_few_bytes_that_hold_minutes_come_out_bit_by_bit():
    reader = OpusReader(16_000)
    list(reader.push(head()))
    pieces = reader.push(body([b"\x0b\x06"] * 100))  # 120 ms in two bytes
    assert len(next(pieces)) <= 1_920 and sum(map(len, pieces)) == 99 * 1_920


def test_strangers_get_samples_or_an_error():
    chance, seen = random.Random(5), set()
    whole = write(sound(0.6))
    for number in range(200):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data) if number % 2 else 120)] = chance.randrange(256)
        if number % 3 == 0:
            data = data[: chance.randrange(len(data))] + data[chance.randrange(len(data)) :]
        if number % 5 == 1:
            data = head(
                channels=chance.choice([1, 2, 3]), family=chance.choice([0, 0, 1]), gain=chance.randint(-999, 999)
            )
            data += whole[47:]
        elif number % 5 == 2:
            data = head() + body([chance.randbytes(chance.choice([1, 2, 40, 1_000])) for _ in range(10)])
        try:
            heard = read(bytes(data), 16_000, cut=chance.choice([1, 50, 10_000]))
            assert np.isfinite(heard).all() and np.abs(heard).max(initial=0.0) <= 1.0
            seen.add(len(heard) > 0)
        except AudioError:
            seen.add("refused")
    assert seen == {True, False, "refused"}


@pytest.mark.parametrize("make", [OpusReader, OpusWriter])
def test_rates_that_opus_has_not_are_refused(make):
    with pytest.raises(AudioError, match="got 44100; resample first"):
        make(44_100)
