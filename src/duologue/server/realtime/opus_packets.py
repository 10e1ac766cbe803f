"""How long a packet of Opus is, and whether it is one: RFC 6716, section 3. Nothing is decoded."""

from __future__ import annotations

_LONGEST_FRAME = 1_275  # bytes
_LONGEST = 0.12  # seconds of a packet


def seconds_of(packet: bytes) -> float | None:
    """Seconds of sound in a packet; None: it is not Opus."""
    if not packet:
        return None
    sizes = _sizes(packet)
    if not sizes or min(sizes) < 0 or max(sizes) > _LONGEST_FRAME:
        return None
    seconds = len(sizes) * _frame(packet[0] >> 3)
    return seconds if seconds <= _LONGEST + 1e-9 else None


def _frame(config: int) -> float:
    """Seconds of a frame."""
    if config < 12:
        return (0.01, 0.02, 0.04, 0.06)[config % 4]
    if config < 16:
        return (0.01, 0.02)[config % 2]
    return (0.0025, 0.005, 0.01, 0.02)[config % 4]


def _sizes(packet: bytes) -> list[int]:
    """Bytes of every frame; empty, or with one below 0, where they do not fit."""
    code, rest = packet[0] & 3, len(packet) - 1
    if code == 0:
        return [rest]
    if code == 1:
        return [rest // 2] * 2 if rest % 2 == 0 else []
    if code == 2:
        size, at = _size(packet, 1)
        return [size, len(packet) - at - size]
    return _many(packet)


def _many(packet: bytes) -> list[int]:
    if len(packet) < 2:
        return []
    count, padded, varies = packet[1] & 63, packet[1] & 64, packet[1] & 128
    at, end = 2, len(packet)
    while padded:
        if at >= len(packet):
            return []
        more = packet[at]
        end -= 254 if more == 255 else more
        at += 1
        padded = more == 255
    if not count:
        return []
    if not varies:
        return [(end - at) // count] * count if (end - at) % count == 0 else []
    sizes = []
    for _ in range(count - 1):
        size, at = _size(packet, at)
        sizes.append(size)
    return [*sizes, end - at - sum(sizes)]


def _size(packet: bytes, at: int) -> tuple[int, int]:
    """A frame's size as it is written there, and where what follows begins; -1: it is not there."""
    if at >= len(packet) or (packet[at] > 251 and at + 1 >= len(packet)):
        return -1, at
    if packet[at] < 252:
        return packet[at], at + 1
    return packet[at] + 4 * packet[at + 1], at + 2
