"""The two sides of the line as a full-duplex model hears them: its own clean, the user's as a microphone gives it.

In the user's microphone, in this order: the room, the assistant's echo, noise, gain, clipping.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from duologue.data.audio_augment import room
from duologue.data.dialogue.clips import RATE, Clip
from duologue.data.dialogue.config import ChannelConfig
from duologue.data.dialogue.texts import ASSISTANT
from duologue.data.dialogue.timeline import BACKCHANNEL, Utterance
from duologue.data.noises import RATE as NOISE_RATE
from duologue.data.noises import fast_length, make_noise

Array = np.ndarray
FRAME = 1920  # samples: conversations are whole frames of 80 ms
KEPT_DB = -30.0  # frames that are so far below the loudest do not count for the level of speech


@dataclass(frozen=True, kw_only=True)
class Microphone:
    """What was drawn for one conversation. The defaults change nothing."""

    seed: int = 0  # of the room and of the noise
    gain_db: float = 0.0
    noise: str = ""  # "": none
    noise_db: float = 0.0
    noise_gaps: bool = False
    echo_gain: float = 0.0
    echo_delay: float = 0.0  # seconds
    reverb_seconds: float = 0.0  # 0: none
    reverb_direct_db: float = 0.0

    def to_json(self) -> str:
        """Compact JSON; only what differs from the defaults."""
        own = dataclasses.asdict(self)
        return json.dumps({k: v for k, v in own.items() if v != getattr(Microphone, k)}, separators=(",", ":"))


def draw_microphone(config: ChannelConfig, rng: np.random.Generator) -> Microphone:
    """Draws the user's microphone for a conversation."""

    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    def even(limits: tuple[float, float]) -> float:
        return round(float(rng.uniform(*limits)), 4)

    microphone = Microphone(seed=int(rng.integers(2**31)))
    if chance(config.gain_chance):
        microphone = dataclasses.replace(microphone, gain_db=even(config.gain_db))
    if config.noises and chance(config.noise_chance):
        kind, gaps = str(rng.choice(list(config.noises))), chance(config.noise_gap_chance)
        microphone = dataclasses.replace(microphone, noise=kind, noise_db=even(config.noise_db), noise_gaps=gaps)
    if chance(config.echo_chance):
        microphone = dataclasses.replace(
            microphone, echo_gain=even(config.echo_gain), echo_delay=even(config.echo_delay)
        )
    if chance(config.reverb_chance):
        seconds, direct = even(config.reverb_seconds), even(config.reverb_direct_db)
        microphone = dataclasses.replace(microphone, reverb_seconds=seconds, reverb_direct_db=direct)
    return microphone


def mix(
    utterances: Sequence[Utterance],
    clips: Sequence[Clip],
    *,
    seconds: float,
    microphone: Microphone,
    config: ChannelConfig,
    rng: np.random.Generator,
) -> Array:
    """Both channels at 24 kHz, [2, N] in [-1, 1]: the assistant, the user. N is whole frames."""
    audio_CN = np.zeros((2, -(-round(seconds * RATE) // FRAME) * FRAME), np.float32)
    for utterance, clip in zip(utterances, clips, strict=True):
        own = utterance.role == ASSISTANT
        level = config.assistant_db if own else config.user_db
        if utterance.kind == BACKCHANNEL:
            level += float(rng.uniform(*config.backchannel_db))
        start = round(utterance.start * RATE)
        place = audio_CN[0 if own else 1, start : start + len(clip.audio_N)]
        place += (clip.audio_N * _gain_to(clip.audio_N, level))[: len(place)]
    audio_CN[1] = _through(audio_CN[1], audio_CN[0], microphone, speech_db=config.user_db)
    return np.clip(audio_CN, -1, 1)


def _gain_to(audio_N: Array, decibels: float) -> np.float32:
    """What brings speech to a level, its pauses not counted."""
    hop = RATE // 50
    power = np.square(np.pad(audio_N, (0, -len(audio_N) % hop)).reshape(-1, hop)).mean(1)
    loud = power[power >= power.max(initial=1e-12) * 10 ** (KEPT_DB / 10)]
    return np.float32(10 ** (decibels / 20) / np.sqrt(max(float(loud.mean()), 1e-12)))


def _through(user_N: Array, assistant_N: Array, microphone: Microphone, *, speech_db: float) -> Array:
    rng = np.random.default_rng(microphone.seed)
    response = _room(microphone, rng) if microphone.reverb_seconds > 0 else None
    heard_N = user_N if response is None else _convolved(user_N, response)
    if microphone.echo_gain > 0:
        echo_N = assistant_N if response is None else _convolved(assistant_N, response)
        delay = min(round(microphone.echo_delay * RATE), len(echo_N))
        heard_N = heard_N + np.float32(microphone.echo_gain) * np.pad(echo_N, (delay, 0))[: len(echo_N)]
    if microphone.noise:
        level = np.float32(10 ** ((speech_db + microphone.noise_db) / 20))
        heard_N = heard_N + level * _noise(microphone, len(heard_N), rng)
    return heard_N * np.float32(10 ** (microphone.gain_db / 20))


def _room(microphone: Microphone, rng: np.random.Generator) -> Array:
    """A room's response at 24 kHz whose first sample, the direct sound, is 1."""
    tail = room(microphone.reverb_seconds, microphone.reverb_direct_db, rng)
    tail[0] = 0.0
    response = soxr.resample(tail, NOISE_RATE, RATE, quality="HQ") * np.float32(NOISE_RATE / RATE)
    response[0] = 1.0
    return response


def _noise(microphone: Microphone, num_samples: int, rng: np.random.Generator) -> Array:
    """Noise of an RMS of 1, up to 8 kHz; with gaps it is there about half of the time, a few seconds at once."""
    count = -(-num_samples * NOISE_RATE // RATE)
    noise_N = soxr.resample(make_noise(microphone.noise, count, rng), NOISE_RATE, RATE, quality="HQ")
    noise_N = np.pad(noise_N, (0, max(0, num_samples - len(noise_N))))[:num_samples]
    if not microphone.noise_gaps:
        return noise_N
    knots = rng.random(max(2, num_samples // (2 * RATE)) + 1) < 0.5
    curve = np.interp(np.linspace(0, len(knots) - 1, num_samples), np.arange(len(knots)), knots.astype(np.float32))
    return noise_N * np.clip(5 * curve - 2, 0, 1).astype(np.float32)


def _convolved(audio_N: Array, response: Array) -> Array:
    length = fast_length(len(audio_N) + len(response))
    product = np.fft.rfft(audio_N, length) * np.fft.rfft(response, length)
    return np.fft.irfft(product, length)[: len(audio_N)].astype(np.float32)
