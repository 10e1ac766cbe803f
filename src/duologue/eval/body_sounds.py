"""What a person's throat does without a word: a cough, a laugh, a hum. Made here from a source and a few resonances.

The phases of a cough follow Korpas et al. 1996: a burst, a rush of air, and often a voiced end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray
RATE = 16_000  # Hz


def cough(rng: np.random.Generator) -> Array:
    """One to three coughs, not normalised."""
    size = rng.uniform(0.9, 1.15)
    formants = [(f * size, b) for f, b in ((550, 200), (1500, 300), (2700, 500), (4200, 900))]
    pieces = []
    for _ in range(int(rng.integers(1, 4))):
        burst, rush, end = (round(rng.uniform(*span) * RATE) for span in ((0.02, 0.05), (0.08, 0.2), (0.04, 0.12)))
        length = burst + rush + end
        envelope = np.concatenate(
            [np.hanning(2 * burst)[burst:] + 0.5, np.linspace(0.5, 0.15, rush), np.linspace(0.25, 0, end)]
        )
        source = rng.standard_normal(length) * envelope
        if rng.random() < 0.6:
            pitch = rng.uniform(140, 320) * np.linspace(1.1, 0.7, end)
            source[burst + rush :] += 6 * pulses(pitch, rng) * np.linspace(0.5, 0, end)
        pieces += [throat(source, formants), np.zeros(round(rng.uniform(0.08, 0.3) * RATE))]
    return np.concatenate(pieces[:-1])


def laugh(rng: np.random.Generator) -> Array:
    """Three to eight "ha", not normalised."""
    size, base = rng.uniform(0.9, 1.2), rng.uniform(130, 380)
    formants = [(f * size, b) for f, b in ((780, 110), (1250, 140), (2600, 220), (3500, 350))]
    count, pieces = int(rng.integers(3, 9)), []
    for number in range(count):
        breath, voice = round(rng.uniform(0.05, 0.09) * RATE), round(rng.uniform(0.07, 0.13) * RATE)
        fall = 1 - 0.5 * number / count
        air = rng.standard_normal(breath) * np.hanning(breath) * 0.3
        voiced = pulses(base * fall * np.linspace(1.1, 0.9, voice), rng) * np.hanning(voice)
        pieces.append(throat(np.concatenate([air, 6 * voiced]), formants) * fall)
    return np.concatenate(pieces)


def hum(rng: np.random.Generator, *, syllables: int = 2) -> Array:
    """ "Mm-hm" with the mouth closed, or "mm" with one syllable; not normalised."""
    size, base = rng.uniform(0.9, 1.2), rng.uniform(90, 260)
    formants = [(260 * size, 60), (1050 * size, 250), (2200 * size, 350)]
    pieces = []
    for number in range(syllables):
        length = round(rng.uniform(0.14, 0.3) * RATE)
        first, last = (1.0, 0.85) if number + 1 < syllables else (0.95, float(rng.choice([0.8, 1.25])))
        voiced = pulses(base * np.linspace(first, last, length), rng) * np.minimum(1, 4 * np.hanning(length))
        pieces.append(voiced + 0.002 * rng.standard_normal(length))
        if number + 1 < syllables:
            gap = round(rng.uniform(0.04, 0.08) * RATE)
            pieces.append(0.05 * rng.standard_normal(gap) * np.hanning(gap))
    return throat(np.concatenate(pieces), formants)


def pulses(pitch: Array, rng: np.random.Generator) -> Array:
    """A glottal source whose pitch in Hz is given sample by sample, a little uneven."""
    phase = np.cumsum(pitch * (1 + 0.01 * rng.standard_normal(len(pitch)))) / RATE
    saw = np.mod(phase, 1)
    return np.where(saw < 0.6, np.sin(np.pi * saw / 0.6) ** 2, 0) - 0.3


def throat(source: Array, formants: Sequence[tuple[float, float]]) -> Array:
    """The source through resonances (Hz, bandwidth in Hz) in a row, then what the lips add."""
    spectrum = np.fft.rfft(source, 2 * len(source))
    z = np.exp(-2j * np.pi * np.fft.rfftfreq(2 * len(source)))
    for hertz, width in formants:
        radius = np.exp(-np.pi * width / RATE)
        real = 2 * radius * np.cos(2 * np.pi * hertz / RATE)
        spectrum *= (1 - real + radius**2) / (1 - real * z + radius**2 * z**2)
    return np.fft.irfft(spectrum * (1 - 0.9 * z))[: len(source)]
