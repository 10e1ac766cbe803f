"""What a coded line and an automatic gain make of speech: small codecs and a compressor of our own, in numpy.

None is a standard's codec. Each leaves the kind of trace that its family leaves: a band cut off, noise that follows the
signal, waveforms that cannot follow a jump, holes and stray tones in the spectrum.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import soxr

from duologue.data.noises import RATE
from duologue.errors import DataError

Array = np.ndarray
BLOCK = 256  # samples of an ADPCM block: its step starts anew in each, so that blocks are coded side by side
FRAME = 0.005  # seconds, in which the compressor measures


def code(audio: Array, kind: str, *, rate: float, detail: float) -> Array:
    """16 kHz speech in [-1, 1] after a codec that works at `rate` Hz.

    Args:
        kind: one of `CODINGS`.
        rate: what lies above half of it is lost; nothing is cut off below.
        detail: 0 the coarsest, 1 the finest that the codec has.
    Returns:
        As many samples as came.
    Raises:
        DataError: an unknown kind.
    """
    if kind not in CODINGS:
        raise DataError(f"coding {kind!r} is unknown; there are: {', '.join(CODINGS)}")
    inner = min(round(rate), RATE)
    narrow = audio if inner == RATE else soxr.resample(audio, RATE, inner, quality="HQ")
    decoded = CODINGS[kind](narrow.astype(np.float32), inner, detail) if len(narrow) else narrow
    wide = decoded if inner == RATE else soxr.resample(decoded, inner, RATE, quality="HQ")
    return np.pad(wide, (0, max(0, len(audio) - len(wide))))[: len(audio)].astype(np.float32)


def mu_law(audio: Array, bits: int = 8) -> Array:
    """`bits` a sample and back, by the curve of G.711 (mu 255, 8 bits there), for [-1, 1]."""
    half = 2 ** (bits - 1)
    position = np.sign(audio) * np.log1p(255 * np.abs(np.clip(audio, -1, 1))) / np.log(256)
    position = np.clip(np.floor(position * half), -half, half - 1) / half + 0.5 / half
    return (np.sign(position) * (256 ** np.abs(position) - 1) / 255).astype(np.float32)


def _plain(audio: Array, rate: int, detail: float) -> Array:
    return audio


def _mu_law(audio: Array, rate: int, detail: float) -> Array:
    return mu_law(audio, bits=5 + round(3 * detail))


def _adpcm(audio: Array, rate: int, detail: float) -> Array:
    """Differences in 2 to 5 bits with a step that grows after large ones (the rule of Jayant 1973)."""
    levels = 2 ** (1 + round(3 * detail))  # of each sign
    codes = np.arange(levels)
    growth = np.where(codes < levels / 2, 0.9 if levels > 2 else 0.8, 1.2 + 0.6 * codes / (levels - 1))
    blocks = np.pad(audio, (0, -len(audio) % BLOCK)).reshape(-1, BLOCK).astype(np.float64)
    least = 2.0**-15
    step = np.maximum(np.abs(np.diff(blocks[:, :16])).mean(1) * 2 / levels, least)
    heard, decoded = blocks[:, 0].copy(), np.empty_like(blocks)
    for place in range(BLOCK):
        missing = blocks[:, place] - heard
        size = np.minimum((np.abs(missing) / step).astype(int), levels - 1)
        heard = heard + np.where(missing < 0, -1, 1) * (size + 0.5) * step
        step = np.clip(step * growth[size], least, 0.5)
        decoded[:, place] = heard
    return np.clip(decoded.reshape(-1)[: len(audio)], -1, 1).astype(np.float32)


def _transform(audio: Array, rate: int, detail: float) -> Array:
    """Lapped frames of 20 ms; in each, weak bands are dropped and the others keep what exceeds a coarse step."""
    half = round(0.02 * rate)
    window, basis = _lapped(half)
    padded = np.pad(audio, (half, half + -len(audio) % half))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 2 * half)[::half]
    spectrum = (frames * window) @ basis
    edges = np.unique(np.round(half * np.linspace(0, 1, 19) ** 1.6).astype(int))
    power = np.add.reduceat(np.square(spectrum), edges[:-1], axis=1) / np.diff(edges) + 1e-12
    kept = power > power.max(1, keepdims=True) * 10 ** (-(20 + 18 * detail) / 10)
    step = np.repeat(np.sqrt(power) * 2 ** (0.6 - 1.6 * detail), np.diff(edges), axis=1)
    spectrum = np.round(spectrum / step) * step * np.repeat(kept, np.diff(edges), axis=1)
    pieces = (spectrum @ basis.T) * window
    decoded = np.zeros((len(frames) + 1, half), np.float32)
    decoded[:-1] += pieces[:, :half]
    decoded[1:] += pieces[:, half:]
    return decoded.reshape(-1)[half : half + len(audio)]


@functools.lru_cache(maxsize=4)
def _lapped(half: int) -> tuple[Array, Array]:
    """Window and cosines of the MDCT of `half` coefficients (Princen and Bradley 1986): twice applied, the whole."""
    place = np.arange(2 * half)
    window = np.sin(np.pi * (place + 0.5) / (2 * half))
    angles = np.pi / half * np.outer(place + 0.5 + half / 2, np.arange(half) + 0.5)
    return window.astype(np.float32), (np.cos(angles) * np.sqrt(2 / half)).astype(np.float32)


CODINGS: dict[str, Callable[[Array, int, float], Array]] = {
    "narrow": _plain,  # only the rate
    "mu-law": _mu_law,
    "adpcm": _adpcm,
    "transform": _transform,
}


def compress(audio: Array, *, threshold: float, ratio: float, release: float, attack: float = 0.01) -> Array:
    """A compressor at 16 kHz: what is louder than `threshold` grows by only one decibel in `ratio`.

    Args:
        threshold: RMS; fainter sound passes as it is.
        release: seconds in which its gain comes back after loud sound; `attack`: in which it goes down.
    """
    size = round(FRAME * RATE)
    if ratio <= 1 or len(audio) < size:
        return audio
    frames = np.pad(audio, (0, -len(audio) % size)).reshape(-1, size)
    level_db = 10 * np.log10(np.square(frames, dtype=np.float64).mean(1) + 1e-12)
    wanted = (1 / ratio - 1) * np.maximum(level_db - 20 * np.log10(max(threshold, 1e-6)), 0)
    down, up = (1 - np.exp(-FRAME / seconds) for seconds in (attack, release))
    gain_db, now = np.empty_like(wanted), float(wanted[0])
    for index, goal in enumerate(wanted):
        now += (down if goal < now else up) * (goal - now)
        gain_db[index] = now
    places = (np.arange(len(wanted)) + 0.5) * size
    return (audio * 10 ** (np.interp(np.arange(len(audio)), places, gain_db) / 20)).astype(np.float32)


def soft_clip(audio: Array, ceiling: float) -> Array:
    """Bends peaks so that none exceeds `ceiling`; far below it nothing changes."""
    scaled = np.abs(audio) / max(ceiling, 1e-9)
    return (audio / np.cbrt(1 + scaled**3)).astype(np.float32)
