"""Malformed messages of Moshi's protocol: most are passed over, some end the conversation with a word and a code.

A connection is sent some that are to be passed over, then one that ends it. Had one of the first done harm, the end
would not be the one that is known.
"""

from __future__ import annotations

import asyncio
import functools
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from duologue.audio.ogg import page
from duologue.audio.opus import OpusWriter
from duologue.eval.hostile import Wrong, noise
from duologue.eval.wire import room

Maker = Callable[[random.Random], list[bytes | str]]

_AUDIO = b"\x01"
_ERROR = 5
_WAIT = 20.0  # seconds for the end
_TAGS = b"OpusTags" + struct.pack("<I8sI", 8, b"duologue", 0)


@dataclass(frozen=True)
class End:
    """Messages that end a conversation, the code of the close, and a word of the reason."""

    name: str
    code: int
    word: str
    messages: list[bytes | str]


def head(
    *, version: int = 1, channels: int = 1, skip: int = 312, rate: int = 24_000, gain: int = 0, family: int = 0
) -> bytes:
    """The first packet of a stream of Opus."""
    return struct.pack("<8sBBHIhB", b"OpusHead", version, channels, skip, rate, gain, family)


def pages(*packets: bytes, serial: int = 7, sequence: int = 0) -> bytes:
    """A page a packet."""
    made = [
        page([packet], serial=serial, sequence=sequence + number, position=960 * number, first=not (sequence + number))
        for number, packet in enumerate(packets)
    ]
    return b"".join(made)


def sound(chance: random.Random, seconds: float = 0.2) -> bytes:
    """Some pages as they should be: headers, then packets."""
    samples = np.random.default_rng(chance.randrange(2**32)).normal(0, 0.05, round(seconds * 24_000)).astype(np.float32)
    return OpusWriter(24_000, serial=chance.randrange(2**32)).push(samples)


def _changed(chance: random.Random) -> list[bytes | str]:
    data = bytearray(sound(chance))
    for _ in range(chance.randint(1, 20)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return [_AUDIO + bytes(data)]


def _cut(chance: random.Random) -> list[bytes | str]:
    data = sound(chance)
    return [_AUDIO + data[: chance.randrange(1, len(data))], _AUDIO + data[chance.randrange(1, len(data)) :]]


def _crumbs(chance: random.Random) -> list[bytes | str]:
    data = sound(chance, 0.04)
    return [_AUDIO + data[n : n + 9] for n in range(0, min(len(data), 180), 9)]


def _strange_heads(chance: random.Random) -> list[bytes | str]:
    made = head(
        channels=chance.choice([1, 2]),
        skip=chance.choice([0, 312, 65_535]),
        rate=chance.choice([0, 1, 8_000, 44_100, 48_000, 2**32 - 1]),
        gain=chance.choice([0, 32_767, -32_768]),
    )
    return [_AUDIO + pages(made, _TAGS, *(noise(chance, 1, 60) for _ in range(5)))]


def _strange_pages(chance: random.Random) -> list[bytes | str]:
    """Other serials, numbers out of order, positions before the beginning."""
    begin = pages(head(), _TAGS)
    some = page([noise(chance, 1, 50)], serial=chance.choice([7, 8, 0]), sequence=chance.randrange(2**32), position=-1)
    return [_AUDIO + begin + some + page([], serial=7, sequence=9, position=2**62, last=chance.random() < 0.5)]


PASSED: dict[str, Maker] = {
    "text": lambda chance: [chance.choice(["", "hello", "{}", "\x01\x01"])],
    "nothing": lambda chance: [b""],
    "an unknown kind": lambda chance: [
        bytes([chance.choice([0, 2, 4, 5, 6, 7, 8, 9, 100, 255])]) + noise(chance, 0, 300)
    ],
    "control of a wrong length": lambda chance: [b"\x03" + noise(chance, 2, 9), b"\x03"],
    "unknown control": lambda chance: [bytes([3, chance.randint(4, 255)])],
    "sound without sound": lambda chance: [_AUDIO],
    "noise for sound": lambda chance: [_AUDIO + noise(chance, 1, 2_000)],
    "changed pages": _changed,
    "pages that are cut": _cut,
    "pages in crumbs": _crumbs,
    "strange heads": _strange_heads,
    "strange pages": _strange_pages,
    "no head": lambda chance: [_AUDIO + pages(noise(chance, 1, 50), sequence=5)],
    "a head twice": lambda chance: [_AUDIO + pages(head(), _TAGS) * 2],
    "two streams": lambda chance: [_AUDIO + sound(chance) + sound(chance)],
    "noise for packets": lambda chance: [_AUDIO + pages(head(), _TAGS, *(noise(chance, 1, 200) for _ in range(9)))],
}


def caught_up() -> list[bytes | str]:
    """Good pages, so many that no page is unfinished any more behind them whose rest never comes."""
    return [_AUDIO + pages(head(), _TAGS + bytes(60_000), serial=9)] * 2


def ends(chance: random.Random) -> End:
    """One draw."""
    return chance.choice(_ENDS)(chance)


def _ahead() -> list[bytes | str]:
    silence = b"\xf8\xff\xfe"
    rest = [_AUDIO + pages(*[silence] * 50, sequence=2 + 50 * number) for number in range(40)]
    return [_AUDIO + pages(head(), _TAGS), *rest]


def _begins(name: str, word: str, packet: Callable[[random.Random], bytes]) -> Callable[[random.Random], End]:
    """A stream whose first packet is none."""
    return lambda chance: End(name, 1008, word, [_AUDIO + pages(packet(chance))])


@functools.cache
def _long_packet() -> list[bytes | str]:
    """A packet over many pages."""
    begin: list[bytes | str] = [_AUDIO + pages(head(), _TAGS)]
    whole = page([bytes(254 * 255)], serial=7, sequence=2, position=0)
    table = bytearray(whole)
    table[27 + 254] = 255  # its last segment is full: the packet goes on
    table += b"\x00" * 255
    return [*begin, _AUDIO + _summed(bytes(table)), _AUDIO + _summed(_continued(bytes(table), 3))]


def _continued(data: bytes, sequence: int) -> bytes:
    return data[:5] + b"\x01" + data[6:18] + struct.pack("<I", sequence) + data[22:]


def _summed(data: bytes) -> bytes:
    """A page with its checksum set right, by the polynomial itself."""
    data, value = data[:22] + bytes(4) + data[26:], 0
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
    return data[:22] + struct.pack("<I", value) + data[26:]


_ENDS: list[Callable[[random.Random], End]] = [
    lambda chance: End("a message past every limit", 1009, "65536 bytes", [_AUDIO + bytes(70_000)]),
    lambda chance: End("no Ogg at all", 1008, "Ogg", [_AUDIO + bytes(40_000)] * 2),
    lambda chance: End("a packet past every limit", 1008, "packet", _long_packet()),
    lambda chance: End("sound ahead of time", 1008, "ahead", _ahead()),
    lambda chance: End("too many messages", 1008, "messages a second", [b"\x06"] * 700),
    _begins("Vorbis", "Opus", lambda chance: b"\x01vorbis" + bytes(22)),
    _begins("a strange number of channels", "channels", lambda chance: head(channels=chance.choice([0, 3, 255]))),
    _begins("another family", "family", lambda chance: head(family=chance.choice([1, 3, 255]))),
    _begins("another version", "version", lambda chance: head(version=chance.choice([16, 255]))),
    _begins("a head cut off", "Opus", lambda chance: head()[: chance.randrange(8, 18)]),
]


async def check(address: str, chance: random.Random, count: int) -> list[Wrong]:
    """One conversation: so many messages that are passed over, then its end."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    names = [chance.choice(list(PASSED)) for _ in range(count)]
    passed, end = [PASSED[name](chance) for name in names], ends(chance)
    said, code = "", -1
    await room(address)
    async with connect(f"ws://{address}/api/chat", compression=None, proxy=None, max_size=None) as socket:

        async def read() -> None:
            nonlocal said
            async for message in socket:
                if isinstance(message, bytes) and message[:1] == bytes([_ERROR]):
                    said += message[1:].decode("utf-8", "replace")

        reading = asyncio.create_task(read())
        try:
            for messages in [*passed, caught_up(), end.messages]:
                for message in messages:
                    await socket.send(message)
                await asyncio.sleep(0.01)
            await asyncio.wait_for(reading, _WAIT)
        except (ConnectionClosed, asyncio.TimeoutError):
            await asyncio.wait([reading], timeout=1)
        finally:
            reading.cancel()
        code = socket.close_code or -1
    if code == end.code and end.word in said:
        return []
    shown = f"{end.name}, after {', '.join(sorted(set(names)))}"
    return [Wrong("moshi", shown, f"closed with {end.code}, saying '{end.word}'", f"{code}: {said[:200]!r}")]
