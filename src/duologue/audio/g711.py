"""G.711: telephone speech at 8 kHz, a byte a sample, in its two laws.

Source: ITU-T Recommendation G.711 (11/88), tables 1 and 2: a magnitude between two decision values becomes the value
halfway between them. A magnitude that is itself a decision value belongs to the interval above it.
"""

from __future__ import annotations

from functools import cache

import numpy as np

SAMPLE_RATE = 8_000  # Hz

_MU_INVERTED, _A_INVERTED = 0x7F, 0x55  # bits that are turned round on the line


def encode_mulaw(samples: np.ndarray) -> bytes:
    """Mono float samples in [-1, 1] as mu-law; what is louder is clipped."""
    return _encode(samples, _mulaw_codes())


def decode_mulaw(data: bytes) -> np.ndarray:
    """Mu-law as mono float32 in [-1, 1]. Any bytes are valid."""
    return _mulaw_values()[np.frombuffer(data, np.uint8)]


def encode_alaw(samples: np.ndarray) -> bytes:
    """Mono float samples in [-1, 1] as A-law; what is louder is clipped."""
    return _encode(samples, _alaw_codes())


def decode_alaw(data: bytes) -> np.ndarray:
    """A-law as mono float32 in [-1, 1]. Any bytes are valid."""
    return _alaw_values()[np.frombuffer(data, np.uint8)]


def _encode(samples: np.ndarray, codes: np.ndarray) -> bytes:
    pcm = np.clip(np.rint(np.asarray(samples) * 32_768.0), -32_768, 32_767).astype(np.int16)
    return codes[pcm.view(np.uint16)].tobytes()


@cache
def _mulaw_values() -> np.ndarray:
    return _values(_mulaw_magnitudes(), _MU_INVERTED)


@cache
def _mulaw_codes() -> np.ndarray:
    return _codes(_decisions(_mulaw_magnitudes(), first=4), _MU_INVERTED)


@cache
def _alaw_values() -> np.ndarray:
    return _values(_alaw_magnitudes(), _A_INVERTED)


@cache
def _alaw_codes() -> np.ndarray:
    return _codes(_decisions(_alaw_magnitudes(), first=16), _A_INVERTED)


def _mulaw_magnitudes() -> np.ndarray:
    """The 128 magnitudes on the scale of 16-bit samples: eight segments of sixteen steps, each twice as wide."""
    segment, step = np.divmod(np.arange(128), 16)  # the table counts to 8,159, a quarter of what is wanted
    return ((2 * step + 33) * 2**segment - 33) * 4


def _alaw_magnitudes() -> np.ndarray:
    """As `_mulaw_magnitudes`; the first two segments are equally wide."""
    segment, step = np.divmod(np.arange(128), 16)  # ... to 4,096, an eighth
    return (2 * step + 1 + 32 * (segment > 0)) * 2 ** np.maximum(segment - 1, 0) * 8


def _decisions(magnitudes: np.ndarray, *, first: int) -> np.ndarray:
    """Where the second, third ... interval begin, from the values in their middles and where the second begins."""
    edges = [first]
    for middle in magnitudes[1:-1]:
        edges.append(2 * int(middle) - edges[-1])
    return np.array(edges)


def _values(magnitudes: np.ndarray, inverted: int) -> np.ndarray:
    signed = np.concatenate([-magnitudes, magnitudes])  # the first bit is 1 for positive samples
    return signed[np.arange(256) ^ inverted].astype(np.float32) / np.float32(32_768)


def _codes(decisions: np.ndarray, inverted: int) -> np.ndarray:
    pcm = np.arange(65_536).astype(np.uint16).view(np.int16).astype(np.int32)
    codes = np.searchsorted(decisions, np.abs(pcm), side="right") | np.where(pcm < 0, 0, 0x80)
    return (codes ^ inverted).astype(np.uint8)
