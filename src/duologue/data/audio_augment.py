"""Augmentation of the question side: other throats, rooms, microphones and lines, from one clean recording.

`draw` picks concrete numbers from a config of ranges; `apply` turns them into sound. What was drawn is a plain
dataclass that goes into the manifest as JSON, and applying it again gives the same samples.

    config = AugmentConfig()
    audio_16k, plan = augment(audio, rate=24_000, config=config, rng=np.random.default_rng(7))

The order is that of the world: the voice, the room, noise, the microphone's tone, its automatic gain, level and
clipping, a codec, the line.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from duologue.data.codings import CODINGS, code, compress, mu_law, soft_clip
from duologue.data.noises import NOISES, RATE, fast_length, make_noise
from duologue.errors import AudioError, ConfigError

Array = np.ndarray
Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How often (`*_chance`, 0 to 1) and how far each effect goes. Ranges are drawn from evenly, ratios by log."""

    speed_chance: float = 0.6
    speed: Range = (0.85, 1.25)  # pace, pitch kept
    voice_chance: float = 0.5
    pitch: Range = (0.8, 1.25)  # ratio of f0
    formant: Range = (0.88, 1.14)  # ratio of the resonances: length of the throat
    reverb_chance: float = 0.4
    reverb_seconds: Range = (0.1, 0.7)  # RT60
    reverb_direct_db: Range = (-2.0, 14.0)  # direct sound over reverberation
    noise_chance: float = 0.7
    noise_db: Range = (5.0, 40.0)  # speech over noise
    noises: tuple[str, ...] = ("hiss", "room", "traffic", "hum", "keyboard", "breath", "crowd", "music")
    tone_chance: float = 0.6
    tilt_db: Range = (-3.5, 2.5)  # an octave, around 1 kHz
    bell_db: Range = (-8.0, 8.0)  # two resonances at drawn places
    low_cut: Range = (20.0, 250.0)  # Hz, of the microphone
    level_db: Range = (-38.0, -14.0)  # of the speech, relative to full scale
    clip_chance: float = 0.06
    clip: Range = (0.2, 0.8)  # of the peak, what is kept
    compress_chance: float = 0.2  # an automatic gain: loud and faint come closer, with the noise in the pauses
    compress_ratio: Range = (1.5, 8.0)  # decibels in for one decibel out
    compress_reach_db: Range = (6.0, 30.0)  # how far below the speech's level it begins
    compress_release: Range = (0.05, 0.5)  # seconds
    ceiling_db: Range = (3.0, 18.0)  # of its soft clipping, over the speech's level
    coding_chance: float = 0.2
    codings: tuple[str, ...] = ("narrow", "mu-law", "adpcm", "transform")
    coding_rate: Range = (7000.0, 16_000.0)  # Hz, at which the codec works; half of it gets through
    coding_detail: Range = (0.0, 1.0)  # from its coarsest to its finest
    telephone_chance: float = 0.12
    lost_chance: float = 0.25  # of telephone calls, that packets are lost
    lost: Range = (0.005, 0.03)  # of 20 ms packets
    lead: Range = (0.05, 0.6)  # seconds of background before the speech
    tail: Range = (0.1, 0.8)  # and after it

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_chance") and not 0 <= value <= 1:
                raise ConfigError(f"AugmentConfig.{field.name}: need a chance between 0 and 1, got {value}")
            if field.name in ("noises", "codings"):
                known = NOISES if field.name == "noises" else CODINGS
                if unknown := set(value) - set(known):
                    raise ConfigError(
                        f"AugmentConfig.{field.name}: unknown {sorted(unknown)}; there are: {', '.join(known)}"
                    )
            elif isinstance(value, tuple) and not (len(value) == 2 and value[0] <= value[1]):
                raise ConfigError(f"AugmentConfig.{field.name}: need (low, high), got {value}")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """One draw. The defaults change nothing but the sample rate."""

    seed: int = 0  # of the room and of the noise
    speed: float = 1.0
    pitch: float = 1.0
    formant: float = 1.0
    reverb_seconds: float = 0.0  # 0: none
    reverb_direct_db: float = 0.0
    noise: str = ""  # "": none; "speech": one of the clips handed in
    noise_db: float = 0.0
    tilt_db: float = 0.0
    bells: tuple[tuple[float, float], ...] = ()  # (Hz, dB)
    low_cut: float = 0.0  # Hz
    level_db: float | None = None  # None: as it came
    clip: float = 1.0
    compress_ratio: float = 1.0  # 1: no automatic gain
    compress_reach_db: float = 0.0
    compress_release: float = 0.1
    ceiling_db: float = 0.0
    coding: str = ""  # "": none
    coding_rate: float = float(RATE)
    coding_detail: float = 1.0
    telephone: tuple[float, float] | None = None  # the band in Hz
    lost: float = 0.0
    lead: float = 0.0
    tail: float = 0.0

    def to_json(self) -> str:
        """Compact JSON; only what differs from the defaults."""
        changed = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default
        }
        return json.dumps(changed, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Augmentation:
        data = json.loads(text or "{}")
        if data.get("telephone"):
            data["telephone"] = tuple(data["telephone"])
        data["bells"] = tuple((hz, db) for hz, db in data.get("bells", ()))
        return cls(**data)


def draw(config: AugmentConfig, rng: np.random.Generator, *, voices: bool = False) -> Augmentation:
    """Draws one augmentation.

    Args:
        voices: other people's speech will be handed to `apply`, so one noise in five is a voice in the background,
            and a crowd is made of them.
    """

    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    def even(limits: Range) -> float:
        return round(float(rng.uniform(*limits)), 4)

    def ratio(limits: Range) -> float:
        return round(float(np.exp(rng.uniform(*np.log(limits)))), 4)

    plan: dict = {"seed": int(rng.integers(2**31)), "lead": even(config.lead), "tail": even(config.tail)}
    if chance(config.speed_chance):
        plan["speed"] = ratio(config.speed)
    if chance(config.voice_chance):
        plan |= {"pitch": ratio(config.pitch), "formant": ratio(config.formant)}
    if chance(config.reverb_chance):
        plan |= {"reverb_seconds": even(config.reverb_seconds), "reverb_direct_db": even(config.reverb_direct_db)}
    if config.noises and chance(config.noise_chance):
        kind = "speech" if voices and chance(0.2) else str(rng.choice(list(config.noises)))
        plan |= {"noise": kind, "noise_db": even(config.noise_db)}
    if chance(config.tone_chance):
        bells = tuple((ratio((200.0, 6000.0)), even(config.bell_db)) for _ in range(2))
        plan |= {"tilt_db": even(config.tilt_db), "bells": bells, "low_cut": even(config.low_cut)}
    plan["level_db"] = even(config.level_db)
    if chance(config.clip_chance):
        plan["clip"] = even(config.clip)
    if chance(config.telephone_chance):
        plan["telephone"] = (even((200.0, 350.0)), even((3000.0, 3600.0)))
        plan["lost"] = even(config.lost) if chance(config.lost_chance) else 0.0
    if chance(config.compress_chance):
        plan |= {"compress_ratio": ratio(config.compress_ratio), "compress_reach_db": even(config.compress_reach_db)}
        plan |= {"compress_release": ratio(config.compress_release), "ceiling_db": even(config.ceiling_db)}
    if config.codings and chance(config.coding_chance):
        plan |= {"coding": str(rng.choice(list(config.codings))), "coding_rate": even(config.coding_rate)}
        plan["coding_detail"] = even(config.coding_detail)
    return Augmentation(**plan)


def augment(
    audio: Array, *, rate: int, config: AugmentConfig, rng: np.random.Generator, voices: Sequence[Array] = ()
) -> tuple[Array, Augmentation]:
    """Draws and applies: mono speech in [-1, 1] at `rate` Hz to the same at 16 kHz, and what was done."""
    plan = draw(config, rng, voices=bool(len(voices)))
    return apply(audio, plan, rate=rate, voices=voices), plan


def apply(audio: Array, plan: Augmentation, *, rate: int, voices: Sequence[Array] = ()) -> Array:
    """Applies one draw.

    Args:
        audio: mono, [-1, 1], at `rate` Hz.
        voices: clips at 16 kHz that may be heard in the background: one of them (`plan.noise == "speech"`), or
            several at once (`"crowd"`, which is made of shaped noise where there are none).
    Returns:
        float32 at 16 kHz in [-1, 1].
    Raises:
        AudioError: not mono, or not finite.
    """
    if audio.ndim != 1 or not np.isfinite(audio).all():
        raise AudioError(f"augmentation needs finite mono audio, got an array of shape {audio.shape}")
    rng = np.random.default_rng(plan.seed)
    speech = change_voice(audio, rate=rate, speed=plan.speed, pitch=plan.pitch, formant=plan.formant)
    speech = np.pad(speech, (round(plan.lead * RATE), round(plan.tail * RATE)))
    loud = active_rms(speech)
    if plan.reverb_seconds > 0:
        speech = _convolve(speech, room(plan.reverb_seconds, plan.reverb_direct_db, rng))
        speech *= loud / max(active_rms(speech), 1e-9)
    if plan.noise and loud > 0:
        background = _background(plan.noise, len(speech), rng, voices)
        speech = speech + background * np.float32(loud * 10 ** (-plan.noise_db / 20))
    if plan.tilt_db or plan.bells or plan.low_cut:
        speech = _filter(speech, _tone_curve(plan))
    if plan.compress_ratio > 1:
        threshold = active_rms(speech) * 10 ** (-plan.compress_reach_db / 20)
        speech = compress(speech, threshold=threshold, ratio=plan.compress_ratio, release=plan.compress_release)
        speech = soft_clip(speech, active_rms(speech) * 10 ** (plan.ceiling_db / 20))
    if plan.level_db is not None:
        speech = speech * np.float32(10 ** (plan.level_db / 20) / max(active_rms(speech), 1e-9))
    if plan.clip < 1:
        limit = plan.clip * float(np.abs(speech).max(initial=1e-9))
        speech = np.clip(speech, -limit, limit)
    if plan.coding:
        speech = code(speech, plan.coding, rate=plan.coding_rate, detail=plan.coding_detail)
    if plan.telephone:
        speech = _telephone(speech, plan.telephone, plan.lost, rng)
    return np.clip(speech, -1, 1).astype(np.float32)


def active_rms(audio: Array) -> float:
    """RMS over the 20 ms frames that are within 30 dB of the loudest: the level of the speech without its pauses."""
    frame = RATE // 50
    if len(audio) < frame:
        return float(np.sqrt(np.mean(np.square(audio)))) if len(audio) else 0.0
    power = np.square(audio[: len(audio) // frame * frame]).reshape(-1, frame).mean(1)
    return float(np.sqrt(power[power >= power.max() * 1e-3].mean()))


def change_voice(audio: Array, *, rate: int, speed: float = 1.0, pitch: float = 1.0, formant: float = 1.0) -> Array:
    """Changes pace, pitch and resonances apart from one another, and resamples to 16 kHz.

    Resampling moves pitch and resonances together, an overlap-add in step with the waveform restores the pace, and a
    filter that follows the smoothed spectrum moves the resonances to where they should be.
    """
    audio = np.asarray(audio, np.float32)
    if abs(rate * pitch - RATE) > 0.5:
        audio = soxr.resample(audio, rate * pitch, RATE, quality="HQ")
    audio = _stretch(audio, pitch / speed)
    return _warp_envelope(audio, formant / pitch).astype(np.float32)


def _stretch(audio: Array, ratio: float) -> Array:
    """Waveform-similarity overlap-add: `ratio` times as long at the same pitch (Verhelst and Roelands 1993)."""
    frame, hop, slack = 480, 240, 128  # 30, 15 and 8 ms at 16 kHz
    if abs(ratio - 1) < 1e-3 or len(audio) < 3 * frame:
        return audio
    window = np.hanning(frame + 1)[:frame].astype(np.float32)
    length = round(len(audio) * ratio)
    padded = np.pad(audio, (slack, frame + hop + slack + 2 * hop))
    steps = -(-length // hop) + 1
    out = np.zeros((steps + 1) * hop, np.float32)
    last = 0  # where the previous frame was taken, in padded
    for step in range(steps):
        want = min(int(step * hop / ratio), len(padded) - frame - 2 * slack - 1)
        if step == 0:
            start = slack
        else:
            follow = padded[last + hop : last + hop + frame]
            search = padded[want : want + frame + 2 * slack]
            score = np.correlate(search[::2], follow[: frame // 2 * 2 : 2], "valid")
            start = want + 2 * int(np.argmax(score))
        out[step * hop : step * hop + frame] += padded[start : start + frame] * window
        last = min(start, len(padded) - frame - hop)
    return out[:length]


def _warp_envelope(audio: Array, ratio: float) -> Array:
    """Moves the spectral envelope by `ratio` along the frequency axis and leaves the harmonics where they are."""
    size, hop, lifter = 512, 128, 28  # 32 ms frames; 28 cepstral steps = 1.75 ms, below a pitch period
    if abs(ratio - 1) < 1e-3 or len(audio) < size:
        return audio
    window = np.sqrt(np.hanning(size + 1)[:size]).astype(np.float32)
    padded = np.pad(audio, (size, size + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * window
    spectrum = np.fft.rfft(frames, axis=1)
    log_power = np.log(np.square(spectrum.real) + np.square(spectrum.imag) + 1e-10)
    cepstrum = np.fft.irfft(log_power, axis=1)
    cepstrum[:, lifter : size - lifter + 1] = 0
    envelope = np.fft.rfft(cepstrum, axis=1).real.astype(np.float32)
    place = np.minimum(np.arange(size // 2 + 1) / ratio, size // 2)
    low = np.minimum(place.astype(int), size // 2 - 1)
    part = (place - low).astype(np.float32)
    moved = envelope[:, low] * (1 - part) + envelope[:, low + 1] * part
    spectrum *= np.exp(np.clip((moved - envelope) / 2, -2.5, 2.5))
    pieces = np.fft.irfft(spectrum, axis=1) * window
    out = np.zeros(len(padded) + size, np.float32)
    blocks = pieces.reshape(len(pieces), size // hop, hop)
    for block in range(size // hop):
        view = out[block * hop : block * hop + len(frames) * hop].reshape(len(frames), hop)
        view += blocks[:, block]
    out /= size / hop / 2  # sqrt-Hann twice, hop a quarter: the squares sum to 2
    return out[size : size + len(audio)]


def room(seconds: float, direct_db: float, rng: np.random.Generator) -> Array:
    """A synthetic impulse response at 16 kHz: the direct sound, a few early echoes, a tail whose treble dies sooner.

    Args:
        seconds: RT60 of the low half of the spectrum.
        direct_db: energy of the direct sound over all that follows.
    """
    length = max(int(min(seconds, 1.5) * RATE), 64)
    t = np.arange(length, dtype=np.float32) / RATE
    tail = rng.standard_normal(length).astype(np.float32)
    smooth = np.convolve(tail, np.ones(8, np.float32) / 8, "same")
    tail = smooth * np.exp(-6.9 * t / seconds) * 2 + (tail - smooth) * np.exp(
        -6.9 * t / (seconds * rng.uniform(0.3, 0.8))
    )
    tail *= np.minimum(t / 0.012, 1)
    for delay in rng.uniform(0.001, 0.04, int(rng.integers(4, 12))):
        tail[min(int(delay * RATE), length - 1)] += rng.choice([-1.0, 1.0]) * rng.uniform(1, 4) * np.exp(-delay * 30)
    tail[0] = 0
    tail *= 10 ** (-direct_db / 20) / max(float(np.sqrt(np.square(tail).sum())), 1e-9)
    tail[0] = 1
    return tail.astype(np.float32)


def _telephone(audio: Array, band: tuple[float, float], lost: float, rng: np.random.Generator) -> Array:
    low, high = band

    def curve(freq: Array) -> Array:
        return -30 * np.clip((low - freq) / low * 2, 0, 1) - 60 * np.clip((freq - high) / 500, 0, 1)

    narrow = soxr.resample(_filter(audio, curve), RATE, 8000, quality="HQ")
    peak = float(np.abs(narrow).max(initial=1e-9))
    narrow = mu_law(narrow / max(peak, 1.0)) * np.float32(max(peak, 1.0))
    if lost > 0:
        packets = np.repeat(rng.random(len(narrow) // 160 + 1) >= lost, 160)[: len(narrow)]
        narrow = narrow * packets
    wide = soxr.resample(narrow.astype(np.float32), 8000, RATE, quality="HQ")
    return np.pad(wide, (0, max(0, len(audio) - len(wide))))[: len(audio)]


def _background(kind: str, length: int, rng: np.random.Generator, voices: Sequence[Array]) -> Array:
    """A noise whose active parts have an RMS of 1."""
    if kind not in ("speech", "crowd") or not len(voices):
        return make_noise("crowd" if kind == "speech" else kind, length, rng)
    sound = np.zeros(length, np.float32)
    for _ in range(1 if kind == "speech" else int(rng.integers(3, 9))):
        clip = np.asarray(voices[int(rng.integers(len(voices)))], np.float32)
        turn, near = int(rng.integers(length + 1)), np.float32(10 ** (rng.uniform(-9, 0) / 20))
        if len(clip):
            clip = np.roll(np.resize(clip, length), turn)
            sound += clip * near / max(active_rms(clip), 1e-9)
    return sound / max(active_rms(sound), 1e-9)


def _convolve(audio: Array, response: Array) -> Array:
    length = fast_length(len(audio) + len(response))
    product = np.fft.rfft(audio, length) * np.fft.rfft(response, length)
    return np.fft.irfft(product, length)[: len(audio)].astype(np.float32)


def _filter(audio: Array, curve) -> Array:
    """Zero-phase filter: `curve` gives decibels for an array of frequencies in Hz."""
    length = fast_length(len(audio) + 512)
    gain = 10 ** (curve(np.fft.rfftfreq(length, 1 / RATE)) / 20)
    return np.fft.irfft(np.fft.rfft(audio, length) * gain, length)[: len(audio)].astype(np.float32)


def _tone_curve(plan: Augmentation):
    def curve(freq: Array) -> Array:
        octaves = np.log2(np.maximum(freq, 30) / 1000)
        gain = plan.tilt_db * octaves
        for centre, decibels in plan.bells:
            gain = gain + decibels * np.exp(-0.5 * np.square((octaves - np.log2(centre / 1000)) / 0.5))
        if plan.low_cut:
            gain = gain - 24 * np.log2(np.maximum(plan.low_cut / np.maximum(freq, 10), 1)).clip(0, 3)
        return gain

    return curve
