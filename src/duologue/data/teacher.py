"""The voice that teaches mini to speak: text to units, their prosody, acoustic frames and a waveform.

Behind it is hibari-tts (Apache-2.0, weights in its wheel, about 130 times real time on one core). It is needed to make
training data only; what runs later knows the unit inventory and nothing of the teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duologue.codecs.units import UnitInventory, mini_units
from duologue.errors import DataError

SAMPLE_RATE = 24_000  # Hz
HOP = 300  # samples a frame, 12.5 ms
FRAMES_PER_STEP = 2  # the teacher counts durations in steps of 25 ms
VOICED = 40.0  # Hz: below, a frame has no pitch
QUIET = 1e-4  # amplitude floor of the energy, -80 dB
DURATIONS = "/Clip_output_0"  # inner tensor of the teacher's network: steps of each phonetic symbol
LEAD_STEPS = 1  # silence kept before the first symbol
EARLY_STEPS = 2  # the teacher's sound comes this much before the time of its symbol: units explain 39 % of a frame's
# variance when moved by it, 29 % where they stand (and what a unit sounds like is then known with less look-ahead)

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class AcousticFrames:
    """What the teacher's network says of each 12.5 ms frame, bins from 0 to 12 kHz.

    The spectrum is exp(harmonic) e^(i pi tanh(harmonic_phase)) pulses + exp(noise) gauss + exp(free) e^(i free_phase).
    """

    harmonic_FK: Floats  # natural log amplitude
    harmonic_phase_FK: Floats
    noise_FK: Floats  # natural log amplitude
    free_FK: Floats  # natural log amplitude
    free_phase_FK: Floats  # radians
    f0_F: Floats  # Hz; below 40: no voice

    def stacked(self) -> Floats:
        """The five spectra beside each other, [F, 5 K], in the order of the fields."""
        return np.concatenate(
            [self.harmonic_FK, self.harmonic_phase_FK, self.noise_FK, self.free_FK, self.free_phase_FK], axis=1
        )


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """One text as the teacher says it."""

    audio_N: Floats  # 24 kHz, [-1, 1]
    units: list[int]
    frames_U: NDArray[np.int64]  # frames of each unit; their sum is F
    prosody_UP: Floats  # log duration in frames, log f0 (0 where unvoiced), log amplitude
    frames: AcousticFrames


class HibariTeacher:
    """hibari-tts with its inner durations laid open.

    Raises:
        DataError: hibari-tts is not installed, or is a version whose network is not the expected one.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, *, voice: str = "heart", inventory: UnitInventory | None = None):
        try:
            from hibari import Hibari
        except ImportError as error:
            raise DataError(f"the teacher needs hibari-tts ({error}): pip install duologue[train]") from error
        self.inventory = inventory or mini_units()
        self._text = Hibari(voice=voice)
        self._network = network_with_durations(self._text.model_path)

    def sentences(self, text: str) -> list[str]:
        """Phonetic symbols of each sentence, only those that have a unit."""
        kept = ("".join(self.inventory.keep(symbols)).strip() for symbols in self._text.phonemize(text))
        return [symbols for symbols in kept if symbols]

    def units(self, text: str) -> list[int]:
        """The units of a text, without synthesis: sentences with one space between them."""
        return self.inventory.encode(" ".join(self.sentences(text)))

    def speak(self, text: str, *, speed: float = 1.0, seed: int = 0) -> Spoken:
        """Says a text.

        The silence before a sentence and after the one before it belong to the space between them; of the silence
        before the first symbol one step is kept, and the one after the last is the last symbol's. Units start when
        they are heard, which is two steps before the teacher's own count.

        Raises:
            DataError: the text has nothing to say.
        """
        sentences = self.sentences(text)
        if not sentences:
            raise DataError(f"the teacher finds nothing to say in {text[:60]!r}: give it words")
        said = [self._run(symbols, speed) for symbols in sentences]
        steps_U, drop = _units_in_time([steps_S for _, steps_S in said])
        parts = [np.concatenate([outputs[i] for outputs, _ in said], axis=-1) for i in range(6)]
        parts = [part[..., drop * FRAMES_PER_STEP :] for part in parts]
        frames_U = steps_U * FRAMES_PER_STEP
        audio_N = self._waveform(parts, seed)
        frames = _frames(parts)
        prosody_UP = unit_prosody(frames_U, frames.f0_F, amplitude(audio_N))
        units = self.inventory.encode(" ".join(sentences))
        return Spoken(audio_N=audio_N, units=units, frames_U=frames_U, prosody_UP=prosody_UP, frames=frames)

    def _run(self, symbols: str, speed: float) -> tuple[list[Floats], NDArray[np.int64]]:
        """Network outputs [K, F] (and f0 [F]) of one sentence, and the steps of its symbols with a pad at both ends."""
        ids = np.asarray([self._text.ids(symbols)], np.int64)
        found = self._network.run(None, {"ids": ids, "speed": np.asarray([speed], np.float32)})
        return [part[0] for part in found[:6]], np.rint(found[6].reshape(-1)).astype(np.int64)

    @staticmethod
    def _waveform(parts: list[Floats], seed: int) -> Floats:
        from hibari import dsp

        audio: Any = dsp.synth(*parts, np.random.default_rng(seed))
        return np.clip(audio, -1.0, 1.0).astype(np.float32)


def _units_in_time(steps_S: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], int]:
    """Steps of every unit of some sentences with one space between them, and steps to drop at the start.

    Args:
        steps_S: of each sentence: a pad, its symbols, a pad.
    """
    whole = steps_S[0]
    for following in steps_S[1:]:
        whole = np.concatenate([whole[:-1], [whole[-1] + following[0]], following[1:]])
    early = min(EARLY_STEPS, int(whole[0]))
    lead = min(LEAD_STEPS, int(whole[0]) - early)
    steps_U = whole[1:-1].copy()
    steps_U[0] += lead
    steps_U[-1] += whole[-1] + early
    return steps_U, int(whole[0]) - early - lead


def _frames(parts: list[Floats]) -> AcousticFrames:
    harmonic, harmonic_phase, noise, free, free_phase = (part.T for part in parts[:5])
    return AcousticFrames(
        harmonic_FK=harmonic,
        harmonic_phase_FK=harmonic_phase,
        noise_FK=noise,
        free_FK=free,
        free_phase_FK=free_phase,
        f0_F=parts[5],
    )


def amplitude(audio_N: Floats) -> Floats:
    """Root mean square of each whole 12.5 ms frame of a waveform, [F]."""
    frames = audio_N[: len(audio_N) // HOP * HOP].reshape(-1, HOP)
    return np.sqrt(np.mean(frames.astype(np.float64) ** 2, axis=1)).astype(np.float32)


def unit_prosody(frames_U: NDArray[np.int64], f0_F: Floats, amplitude_F: Floats) -> Floats:
    """Three numbers a unit: log of max(frames, 0.5), mean log f0 over its voiced frames (0: none), mean log amplitude.

    Raises:
        DataError: the durations do not add up to the frames.
    """
    if frames_U.sum() != len(f0_F) or len(f0_F) != len(amplitude_F):
        raise DataError(
            f"unit_prosody: durations of {frames_U.sum()} frames for {len(f0_F)} frames of f0 and "
            f"{len(amplitude_F)} of amplitude: all three must agree"
        )
    owner_F = np.repeat(np.arange(len(frames_U)), frames_U)
    voiced_F = f0_F > VOICED
    log_f0_F = np.where(voiced_F, np.log(np.maximum(f0_F, 1.0)), 0.0)
    log_amplitude_F = np.log(np.maximum(amplitude_F, QUIET))

    def total(values_F: NDArray[Any]) -> NDArray[Any]:
        return np.bincount(owner_F, weights=values_F, minlength=len(frames_U))

    log_f0_U = total(log_f0_F) / np.maximum(total(voiced_F.astype(np.float64)), 1)
    energy_U = np.where(frames_U > 0, total(log_amplitude_F) / np.maximum(frames_U, 1), np.log(QUIET))
    return np.stack([np.log(np.maximum(frames_U, 0.5)), log_f0_U, energy_U], axis=1).astype(np.float32)


def network_with_durations(path: str) -> Any:
    """hibari-tts's network as an onnxruntime session; its seventh output is the steps of each symbol and of both pads.

    Raises:
        DataError: onnxruntime is missing, or this is a version whose network is not the expected one.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DataError(f"hibari-tts needs onnxruntime ({error}): pip install duologue[train]") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    network = with_output(Path(path).read_bytes(), DURATIONS)
    try:
        return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own that it does not export
        raise DataError(f"hibari-tts 0.2.1 expected: its network has no tensor {DURATIONS} ({error})") from error


def with_output(model: bytes, tensor: str) -> bytes:
    """An ONNX model that also gives one of its inner tensors.

    Protocol buffers written one behind the other merge, repeated fields by appending: so a model that holds nothing but
    one more output, written behind the model, does it (ModelProto.graph is field 7, GraphProto.output 12, name 1).
    """
    return model + _field(7, _field(12, _field(1, tensor.encode())))


def _field(number: int, content: bytes) -> bytes:
    size, prefix = len(content), bytearray([number << 3 | 2])
    while size > 127:
        prefix.append(size & 127 | 128)
        size >>= 7
    return bytes(prefix) + bytes([size]) + content
