"""Sounds without a word in them, for testing that nothing is heard where nothing is said.

They are made here and nowhere else, by other means than the noises of training, so that what is tested was not trained
on. A clip follows from its number and the seed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
RATE = 16_000  # Hz
Generator = np.random.Generator


@dataclass(frozen=True, eq=False)
class Sound:
    """One clip: float32 in [-1, 1] at 16 kHz."""

    name: str
    audio: Array


def clips(count: int = 100, *, seed: int = 0) -> list[Sound]:
    """`count` clips of 0.6 to 8 s that go through all kinds in turn, from barely audible to loud."""
    kinds = list(KINDS)
    return [clip(kinds[index % len(kinds)], seed=seed, index=index) for index in range(count)]


def clip(kind: str, *, seed: int = 0, index: int = 0) -> Sound:
    """One clip of a kind, with a drawn length and level (-50 to -12 dB of full scale)."""
    rng = np.random.default_rng([seed, index])
    length = int(rng.uniform(0.6, 8.0) * RATE)
    audio = KINDS[kind](length, rng)[:length]
    level = 10 ** (rng.uniform(-50, -12) / 20)
    rms = float(np.sqrt(np.mean(audio**2)))
    if rms > 0:
        audio = audio * (level / rms)
    return Sound(kind, np.clip(audio, -1.0, 1.0).astype(np.float32))


def babble(voices: list[Array], length: int, rng: Generator, *, talkers: int = 5) -> Array:
    """Several people talking at once, of unit RMS: a background made from other speech at 16 kHz."""
    total = np.zeros(length, np.float32)
    for _ in range(talkers):
        voice = np.resize(voices[int(rng.integers(len(voices)))], length)
        rms = float(np.sqrt(np.mean(voice**2))) + 1e-9
        total += np.roll(voice, int(rng.integers(length))) / rms
    return total / (float(np.sqrt(np.mean(total**2))) + 1e-9)


def _time(length: int) -> Array:
    return np.arange(length) / RATE


def _band(length: int, rng: Generator, low: float, high: float) -> Array:
    """Noise between two frequencies (Hz)."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    hertz = np.fft.rfftfreq(length, 1 / RATE)
    spectrum[(hertz < low) | (hertz > high)] = 0
    return np.fft.irfft(spectrum, length)


def _place(events: list[tuple[int, Array]], length: int) -> Array:
    audio = np.zeros(length)
    for start, event in events:
        piece = event[: max(0, length - start)]
        audio[start : start + len(piece)] += piece
    return audio


def _silence(length: int, rng: Generator) -> Array:
    return np.zeros(length)


def _dither(length: int, rng: Generator) -> Array:
    return np.round(rng.standard_normal(length))  # the last bit of a microphone that hears nothing


def _white(length: int, rng: Generator) -> Array:
    return rng.standard_normal(length)


def _pink(length: int, rng: Generator) -> Array:
    """The sum of noises that each hold their value twice as long as the one before (Voss)."""
    rows = [np.repeat(rng.standard_normal(-(-length // 2**octave)), 2**octave)[:length] for octave in range(12)]
    return np.sum(rows, axis=0)


def _brown(length: int, rng: Generator) -> Array:
    walk = np.cumsum(rng.standard_normal(length))
    return walk - np.linspace(walk[0], walk[-1], length)


def _hum(length: int, rng: Generator) -> Array:
    base, t = float(rng.choice([50.0, 60.0])), _time(length)
    saw = 2 * np.mod(base * t, 1) - 1  # a rectifier's waveform rather than a few sines
    return saw + 0.4 * np.sin(4 * np.pi * base * t) + 0.05 * rng.standard_normal(length)


def _breath(length: int, rng: Generator) -> Array:
    events, start = [], int(rng.uniform(0.05, 0.4) * RATE)
    while start < length:
        size = int(rng.uniform(0.4, 1.3) * RATE)
        rise = np.hanning(size) ** rng.uniform(0.6, 2.0)
        mouth = _band(size, rng, rng.uniform(150, 700), rng.uniform(1800, 6000))
        events.append((start, mouth * rise * rng.uniform(0.4, 1.0)))
        start += size + int(rng.uniform(0.2, 1.2) * RATE)
    return _place(events, length) + 0.003 * rng.standard_normal(length)


def _keyboard(length: int, rng: Generator) -> Array:
    """Key down and key up, each a click of the plate and a thud of the desk; bursts of typing with pauses."""
    events, start = [], int(rng.uniform(0.05, 0.3) * RATE)
    while start < length:
        for later, loud in ((0, 1.0), (int(rng.uniform(0.05, 0.11) * RATE), 0.4)):
            t = _time(int(0.05 * RATE))
            click = rng.standard_normal(len(t)) * np.exp(-t / 0.0025)
            thud = np.sin(2 * np.pi * rng.uniform(120, 320) * t) * np.exp(-t / 0.012)
            events.append((start + later, loud * rng.uniform(0.5, 1.0) * (click + 0.8 * thud)))
        start += int((rng.uniform(0.08, 0.25) if rng.random() < 0.85 else rng.uniform(0.5, 1.2)) * RATE)
    return _place(events, length) + 0.002 * rng.standard_normal(length)


def _tone(hertz: float, size: int, rng: Generator, *, harmonics: int, decay: float) -> Array:
    t = _time(size)
    parts = [np.sin(2 * np.pi * hertz * n * t) / n**1.4 for n in range(1, harmonics + 1) if hertz * n < RATE / 2]
    return np.sum(parts, axis=0) * np.exp(-t / decay) * np.minimum(1, t / 0.01)


def _melody(length: int, rng: Generator) -> Array:
    steps, events, start, degree = [0, 2, 4, 7, 9], [], 0, int(rng.integers(10))
    base, harmonics = rng.uniform(150, 350), int(rng.integers(2, 9))
    while start < length:
        degree = int(np.clip(degree + rng.integers(-2, 3), 0, 12))
        hertz = base * 2 ** (degree // 5 + steps[degree % 5] / 12)
        size = int(rng.choice([0.2, 0.3, 0.45, 0.6]) * RATE)
        events.append((start, _tone(hertz, size, rng, harmonics=harmonics, decay=0.4)))
        start += size
    return _place(events, length)


def _chords(length: int, rng: Generator) -> Array:
    events, start, base = [], 0, rng.uniform(98, 196)
    while start < length:
        root = base * 2 ** (int(rng.choice([0, 5, 7, 9])) / 12)
        size = int(rng.uniform(0.6, 1.4) * RATE)
        for third in (0, int(rng.choice([3, 4])), 7, 12):
            note = _tone(root * 2 ** (third / 12), size, rng, harmonics=5, decay=1.5)
            events.append((start + int(rng.uniform(0, 0.03) * RATE), note))
        start += size
    return _place(events, length)


def _drums(length: int, rng: Generator) -> Array:
    beat, events, size = rng.uniform(0.2, 0.32), [], int(0.25 * RATE)
    t = _time(size)
    for number in range(int(length / RATE / beat) + 1):
        start = int(number * beat * RATE)
        if number % 4 == 0:
            events.append((start, np.sin(2 * np.pi * (45 * t + 6 * (1 - np.exp(-t / 0.03)))) * np.exp(-t / 0.09)))
        if number % 4 == 2:
            events.append((start, 0.5 * _band(size, rng, 180, 5000) * np.exp(-t / 0.06)))
        events.append((start, 0.15 * _band(size, rng, 5000, 8000) * np.exp(-t / 0.02)))
    return _place(events, length)


def _engine(length: int, rng: Generator) -> Array:
    speed = rng.uniform(18, 45) * (1 + 0.15 * np.sin(2 * np.pi * rng.uniform(0.1, 0.5) * _time(length)))
    phase = np.mod(np.cumsum(speed) / RATE, 1)
    return np.exp(-12 * phase) * (1 + 0.5 * rng.standard_normal(length)) - 0.08 + 0.1 * _brown(length, rng) / 50


def _rain(length: int, rng: Generator) -> Array:
    drops = np.where(rng.random(length) < 0.006, rng.exponential(1.0, length), 0)
    splash = np.exp(-_time(80) / 0.0012) * rng.standard_normal(80)
    return np.convolve(drops, splash)[:length] + 0.15 * _band(length, rng, 1000, 8000)


def _ring(length: int, rng: Generator) -> Array:
    t = _time(length)
    first, second = rng.uniform(400, 1000), rng.uniform(1.1, 1.4)
    bell = np.sign(np.sin(2 * np.pi * rng.uniform(12, 25) * t)) > 0
    tone = np.where(bell, np.sin(2 * np.pi * first * t), np.sin(2 * np.pi * first * second * t))
    return tone * (np.mod(t, rng.uniform(1.5, 4.0)) < rng.uniform(0.5, 1.2)) + 0.002 * rng.standard_normal(length)


def _knock(length: int, rng: Generator) -> Array:
    events, start = [], int(rng.uniform(0.1, 0.4) * RATE)
    t = _time(int(0.15 * RATE))
    while start < length:
        for number in range(int(rng.integers(2, 6))):
            wood = np.sin(2 * np.pi * rng.uniform(90, 220) * t) + 0.5 * np.sin(2 * np.pi * rng.uniform(400, 900) * t)
            events.append((start + int(number * rng.uniform(0.16, 0.24) * RATE), wood * np.exp(-t / 0.025)))
        start += int(rng.uniform(1.5, 3.0) * RATE)
    return _place(events, length) + 0.003 * rng.standard_normal(length)


KINDS: dict[str, Callable[[int, Generator], Array]] = {
    "silence": _silence,
    "dither": _dither,
    "white noise": _white,
    "pink noise": _pink,
    "brown noise": _brown,
    "hum": _hum,
    "breath": _breath,
    "keyboard": _keyboard,
    "melody": _melody,
    "chords": _chords,
    "drums": _drums,
    "engine": _engine,
    "rain": _rain,
    "telephone ring": _ring,
    "door knock": _knock,
}
