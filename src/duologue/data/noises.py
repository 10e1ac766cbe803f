"""Synthetic background sounds: what a microphone hears besides the person. All follow from a numpy Generator.

No recording is needed: hiss, rumble, hum, keys, breath, crowd and music are made from shaped noise and tones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from duologue.errors import DataError

Array = np.ndarray
RATE = 16_000  # Hz, of everything in this file


def make_noise(kind: str, num_samples: int, rng: np.random.Generator) -> Array:
    """`num_samples` of background sound at 16 kHz, scaled to an RMS of 1 (silence stays zero).

    Raises:
        DataError: an unknown kind.
    """
    if kind not in NOISES:
        raise DataError(f"noise kind {kind!r} is unknown; there are: {', '.join(NOISES)}")
    sound = NOISES[kind](max(num_samples, 1), rng)[:num_samples]
    rms = float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) if num_samples else 0.0
    return (sound / rms if rms > 1e-9 else sound).astype(np.float32)


def fast_length(length: int) -> int:
    """The next length that an FFT is quick at: 2, 3 or 5 times a power of two, and so on."""
    step = max(1, 1 << max(0, length.bit_length() - 5))
    while True:
        rest = (rounded := -(-length // step) * step)
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return rounded
        length = rounded + 1


def coloured(
    num_samples: int, rng: np.random.Generator, slope: float, low: float = 20.0, high: float = 8000.0
) -> Array:
    """Gaussian noise in [low, high] Hz whose power falls as frequency to the `slope`: 0 white, 1 pink, 2 brown."""
    length = fast_length(num_samples)
    freq = np.fft.rfftfreq(length, 1 / RATE)
    spectrum = np.fft.rfft(rng.standard_normal(length).astype(np.float32))
    shape = np.maximum(freq, low) ** (-slope / 2) * (freq >= low) * (freq <= high)
    return np.fft.irfft(spectrum * shape, length)[:num_samples].astype(np.float32)


def _slow_curve(num_samples: int, rng: np.random.Generator, hertz: float, depth: float) -> Array:
    """A smooth random gain around 1 that moves `hertz` times a second."""
    knots = rng.uniform(1 - depth, 1 + depth, max(2, int(num_samples / RATE * hertz) + 2))
    return np.interp(np.linspace(0, len(knots) - 1, num_samples), np.arange(len(knots)), knots).astype(np.float32)


def _hiss(num_samples: int, rng: np.random.Generator) -> Array:
    return coloured(num_samples, rng, rng.uniform(0, 1))


def _room(num_samples: int, rng: np.random.Generator) -> Array:
    return coloured(num_samples, rng, rng.uniform(1, 2)) * _slow_curve(num_samples, rng, 2, 0.3)


def _traffic(num_samples: int, rng: np.random.Generator) -> Array:
    far = coloured(num_samples, rng, 2.0, high=1500) * _slow_curve(num_samples, rng, 0.7, 0.9)
    near = coloured(num_samples, rng, 1.0, low=200) * np.square(_slow_curve(num_samples, rng, 0.5, 0.9))
    return far / (far.std() + 1e-9) + 0.3 * near / (near.std() + 1e-9)


def _hum(num_samples: int, rng: np.random.Generator) -> Array:
    t = np.arange(num_samples, dtype=np.float32) / RATE
    base = rng.choice([50.0, 60.0, 100.0, 120.0])
    sound = 0.05 * coloured(num_samples, rng, 1.0) / 0.01
    sound /= sound.std() * 5 + 1e-9
    for harmonic in range(1, 9):
        sound = sound + rng.uniform(0, 1) / harmonic * np.sin(2 * np.pi * (base * harmonic * t + rng.uniform()))
    return sound


def _bursts(num_samples: int, rng: np.random.Generator, each: Callable[[], Array], per_second: float) -> Array:
    sound = 0.003 * rng.standard_normal(num_samples).astype(np.float32)
    for start in rng.integers(0, num_samples, 1 + rng.poisson(per_second * num_samples / RATE)):
        burst = each()[: num_samples - start]
        sound[start : start + len(burst)] += burst
    return sound


def _keyboard(num_samples: int, rng: np.random.Generator) -> Array:
    def key() -> Array:
        length = int(rng.uniform(0.02, 0.06) * RATE)
        decay = np.exp(-np.arange(length) / (rng.uniform(0.002, 0.008) * RATE))
        press = coloured(length, rng, rng.uniform(0, 1), low=rng.uniform(300, 1500)) * decay
        return (rng.uniform(0.3, 1) * press / (np.abs(press).max() + 1e-9)).astype(np.float32)

    return _bursts(num_samples, rng, key, rng.uniform(2, 12))


def _breath(num_samples: int, rng: np.random.Generator) -> Array:
    def breath() -> Array:
        length = int(rng.uniform(0.3, 1.2) * RATE)
        low = rng.uniform(200, 800)
        air = coloured(length, rng, rng.uniform(0, 1), low=low, high=low * rng.uniform(4, 9))
        return (rng.uniform(0.4, 1) * air / (air.std() + 1e-9) * np.sin(np.linspace(0, np.pi, length)) ** 1.5).astype(
            np.float32
        )

    return _bursts(num_samples, rng, breath, rng.uniform(0.2, 0.6))


def _crowd(num_samples: int, rng: np.random.Generator) -> Array:
    """Speech-shaped noise that pulses at the pace of syllables, several voices over one another."""
    sound = np.zeros(num_samples, np.float32)
    for _ in range(int(rng.integers(3, 7))):
        centre = rng.uniform(400, 1800)
        voice = coloured(num_samples, rng, 1.0, low=centre / 2, high=centre * 2)
        pace = np.maximum(_slow_curve(num_samples, rng, rng.uniform(4, 9), 1.0) - 0.5, 0)
        sound += voice / (voice.std() + 1e-9) * pace
    return sound + 0.05 * rng.standard_normal(num_samples).astype(np.float32)


def _music(num_samples: int, rng: np.random.Generator) -> Array:
    """Random chords of plucked or held tones over a beat."""
    beat = int(rng.uniform(0.25, 0.6) * RATE)
    scale = np.array([0, 2, 4, 5, 7, 9, 11]) if rng.random() < 0.5 else np.array([0, 2, 3, 5, 7, 8, 10])
    root, decay, partials = rng.uniform(110, 330), rng.uniform(0.1, 1.5), int(rng.integers(1, 7))
    drums = rng.random() < 0.6
    sound = np.zeros(num_samples + 4 * beat, np.float32)
    t = np.arange(3 * beat, dtype=np.float32) / RATE
    for start in range(0, num_samples, beat):
        notes = scale[rng.integers(0, 7, int(rng.integers(1, 4)))] + 12 * rng.integers(-1, 2)
        for note in notes:
            tone = root * 2 ** (note / 12)
            wave = sum(np.sin(2 * np.pi * tone * h * t) / h for h in range(1, partials + 1) if tone * h < 7500)
            sound[start : start + len(t)] += (wave * np.exp(-t / decay) * np.minimum(t * 100, 1)).astype(np.float32)
        if drums:
            hit = rng.standard_normal(beat // 2) * np.exp(-np.arange(beat // 2) / (0.02 * RATE))
            sound[start : start + len(hit)] += hit.astype(np.float32)
    return sound[:num_samples]


def _silence(num_samples: int, rng: np.random.Generator) -> Array:
    return np.zeros(num_samples, np.float32)


NOISES: dict[str, Callable[[int, np.random.Generator], Array]] = {
    "hiss": _hiss,
    "room": _room,
    "traffic": _traffic,
    "hum": _hum,
    "keyboard": _keyboard,
    "breath": _breath,
    "crowd": _crowd,
    "music": _music,
    "silence": _silence,
}
