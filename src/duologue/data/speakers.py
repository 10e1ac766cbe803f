"""Voices for training data behind one small protocol: hibari-tts, espeak-ng, flite, and any command that writes a WAV.

    speaker = make_speaker(Voice(kind="hibari", name="man", pitch=(0.5, 0.65), formant=(0.84, 0.92)))
    audio = speaker.speak("What is the capital of France?", seed=7)  # mono float32 at speaker.sample_rate

A voice is a range: every seed draws its own pace, pitch and resonances from it, so one synthesiser gives many people.
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from duologue.data.teacher import EARLY_STEPS, FRAMES_PER_STEP, HOP, SAMPLE_RATE, network_with_durations
from duologue.data.word_times import Word, counted_words, hibari_spelling
from duologue.errors import ConfigError, DataError

Array = np.ndarray
Range = tuple[float, float]
ONE: Range = (1.0, 1.0)
KINDS = ("hibari", "espeak", "flite", "command")
FLITE_PITCH = {"slt": 170.0, "rms": 100.0, "awb": 120.0, "kal16": 105.0}  # Hz, the mean f0 of its voices
COMMAND_SECONDS = 120  # until a command that hangs is given up


class Speaker(Protocol):
    """Says a text. The same text and seed give the same samples."""

    name: str
    sample_rate: int  # Hz

    def speak(self, text: str, seed: int) -> Array:
        """Mono float32 in [-1, 1] at `sample_rate`.

        Raises:
            ConfigError: the synthesiser is not installed.
            DataError: it failed, or found nothing to say.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Voice:
    """One voice of a recipe. Ratios are drawn for every utterance, evenly on a log scale."""

    kind: str  # hibari | espeak | flite | command
    name: str  # goes into the manifest
    voice: str = (
        ""  # hibari: us | gb; espeak: a voice with or without a variant (en-us+f3); flite: slt, awb, rms, kal16
    )
    command: str = (
        ""  # kind "command": for example "pico2wave -l en-GB -w {out} {text}"; without {text}: standard input
    )
    speed: Range = ONE  # ratio of the pace; of a command's: as of a tape, on which pitch and resonances go with it
    pitch: Range = ONE  # ratio of f0
    formant: Range = ONE  # ratio of the resonances (hibari only)
    intonation: Range = ONE  # ratio of the movement of f0 around its mean (hibari only)
    weight: float = 1.0  # how often, against the other voices of a recipe
    splits: tuple[str, ...] = ("train", "dev", "test")  # leave "train" out to keep a voice unseen
    licence: str = ""  # of the voice, for the data card

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"Voice.kind: need one of {', '.join(KINDS)}, got {self.kind!r}")
        if (self.kind == "command") != bool(self.command):
            raise ConfigError(f"Voice {self.name}: a command belongs to kind 'command', and only to it")
        for field in ("speed", "pitch", "formant", "intonation"):
            low, high = getattr(self, field)
            if not 0 < low <= high:
                raise ConfigError(f"Voice {self.name}: {field} needs 0 < low <= high, got {(low, high)}")
        own = {"hibari": 4, "espeak": 2, "flite": 2, "command": 1}[self.kind]
        for field in ("speed", "pitch", "formant", "intonation")[own:]:
            if getattr(self, field) != ONE:
                raise ConfigError(f"Voice {self.name}: a {self.kind} voice cannot change its {field}")


def make_speaker(voice: Voice) -> Speaker:
    """The speaker of a voice; its synthesiser is loaded at the first word."""
    kinds: dict[str, Callable[[Voice], Speaker]] = {
        "hibari": HibariSpeaker,
        "espeak": EspeakSpeaker,
        "flite": FliteSpeaker,
        "command": CommandSpeaker,
    }
    return kinds[voice.kind](voice)


def drawn(limits: Range, rng: np.random.Generator) -> float:
    """A ratio from a range, evenly on a log scale."""
    return float(np.exp(rng.uniform(*np.log(limits))))


class HibariSpeaker:
    """hibari-tts (Apache-2.0, weights in its wheel), with its spectrum and pitch bent before they become sound."""

    sample_rate = 24_000

    def __init__(self, voice: Voice):
        self.voice, self.name = voice, voice.name
        if voice.voice not in ("", "us", "gb"):
            raise ConfigError(f"Voice {self.name}: hibari speaks 'us' or 'gb', got {voice.voice!r}")

    def speak(self, text: str, seed: int) -> Array:
        return np.concatenate([audio for _, _, audio in self._sentences(text, seed)])

    def speak_words(self, text: str, seed: int) -> tuple[Array, list[Word]]:
        """As `speak`, the same samples, and when each word is said: from the durations inside the network."""
        pieces, audio_N = self._timed(text, seed)
        return audio_N, counted_words(hibari_spelling(_synthesiser(british=self.voice.voice == "gb"), text), pieces)

    def speak_symbols(self, text: str, seed: int) -> tuple[Array, list[Word]]:
        """As `speak_words`, but of each phonetic symbol; stress, spaces and punctuation are symbols too."""
        pieces, audio_N = self._timed(text, seed)
        return audio_N, [
            Word(symbol, max(0.0, float(begin + starts[i])), max(0.0, float(begin + starts[i + 1])))
            for symbols, starts, begin in pieces
            for i, symbol in enumerate(symbols)
        ]

    def _timed(self, text: str, seed: int) -> tuple[list[tuple[str, Array, float]], Array]:
        """Of each sentence its symbols, when each begins and the last one ends, and its own begin; the whole sound."""
        pieces, begin, said = [], 0.0, self._sentences(text, seed, timed=True)
        for symbols, steps_S, audio in said:
            starts = (np.cumsum(steps_S)[:-1] * FRAMES_PER_STEP - EARLY_STEPS * FRAMES_PER_STEP) * HOP / SAMPLE_RATE
            pieces.append((symbols, starts, begin))
            begin += len(audio) / self.sample_rate
        return pieces, np.concatenate([audio for _, _, audio in said])

    def _sentences(self, text: str, seed: int, *, timed: bool = False) -> list[tuple[str, Array, Array]]:
        """Of each sentence: its symbols, the steps of each with a pad at both ends (if timed), and its sound."""
        hibari, rng = _synthesiser(british=self.voice.voice == "gb"), np.random.default_rng(seed)
        speed, pitch, formant, intonation = (
            drawn(limits, rng)
            for limits in (self.voice.speed, self.voice.pitch, self.voice.formant, self.voice.intonation)
        )
        network = _timed_network() if timed else hibari.sess
        pieces = []
        for phonemes in hibari.phonemize(text):
            ids = np.asarray([hibari.ids(phonemes)], np.int64)
            if ids.shape[1] < 3:
                continue
            found = network.run(None, {"ids": ids, "speed": np.asarray([np.clip(speed, 0.5, 2)], np.float32)})
            parts = [part[0] for part in found[:6]]
            audio = _bent(parts, pitch=pitch, formant=formant, intonation=intonation, rng=rng)
            steps_S = np.rint(found[6].reshape(-1)).astype(np.int64) if timed else np.zeros(0, np.int64)
            pieces.append(("".join(symbol for symbol in phonemes if symbol in hibari.vocab), steps_S, audio))
        if not pieces:
            raise DataError(f"{self.name} finds nothing to say in {text[:60]!r}: give it words")
        return pieces


@functools.lru_cache(maxsize=2)
def _synthesiser(*, british: bool) -> Any:
    """One synthesiser for all voices of an accent."""
    try:
        from hibari import Hibari
        from hibari.g2p import G2P
    except ImportError as error:
        raise ConfigError(f"hibari-tts is missing ({error}): pip install duologue[train]") from error
    return Hibari(g2p=G2P(british=british))


@functools.lru_cache(maxsize=1)
def _timed_network() -> Any:
    """The network of all hibari voices, with the durations of its symbols laid open."""
    return network_with_durations(_synthesiser(british=False).model_path)


def _bent(parts: list[Array], *, pitch: float, formant: float, intonation: float, rng: np.random.Generator) -> Array:
    """hibari's frames to sound with another pitch and another throat (see hibari.dsp.synth for the parts, [K, F])."""
    from hibari import dsp

    harmonic, phase, noise, free, free_phase, f0 = parts
    voiced = f0 > 40
    if pitch != 1 or intonation != 1:
        centre = float(np.exp(np.log(np.maximum(f0[voiced], 40)).mean())) if voiced.any() else 1.0
        moved = centre * pitch * (np.maximum(f0, 1e-3) / centre) ** intonation
        f0 = np.where(voiced, np.clip(moved, 55, 500), f0).astype(np.float32)
        # Fewer or more harmonics share the same envelope; what was fitted to the old ones is set back.
        harmonic = harmonic + np.float32(0.5 * np.log(pitch))
        free = free - np.float32(min(1.0, 4 * abs(np.log(pitch)))) * voiced
    if formant != 1:
        place = np.minimum(np.arange(len(harmonic)) / formant, len(harmonic) - 1)
        low = np.minimum(place.astype(int), len(harmonic) - 2)
        part = (place - low).astype(np.float32)[:, None]
        harmonic, noise, free = (x[low] * (1 - part) + x[low + 1] * part for x in (harmonic, noise, free))
        phase, free_phase = (x[np.rint(place).astype(int)] for x in (phase, free_phase))
    audio = dsp.synth(harmonic, phase.copy(), noise, free, free_phase, f0, rng)
    return np.clip(audio / max(1.0, float(np.abs(audio).max(initial=0))), -1, 1).astype(np.float32)


class EspeakSpeaker:
    """espeak-ng: formant synthesis in many accents and variants. The program is GPL-3; what it says is not."""

    sample_rate = 22_050

    def __init__(self, voice: Voice):
        self.voice, self.name = voice, voice.name

    def speak(self, text: str, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        pace, pitch = round(170 * drawn(self.voice.speed, rng)), drawn(self.voice.pitch, rng)
        height = int(np.clip(round(50 + 35 * np.log2(pitch)), 0, 99))  # its own scale of 0 to 99
        command = ["espeak-ng", "-v", self.voice.voice or "en-us", "-s", str(pace), "-p", str(height), "-w", "{out}"]
        return run_command([*command, "--stdin"], text, rate=self.sample_rate, name=self.name)


class FliteSpeaker:
    """flite's voices (CMU, BSD-like): slt, rms and awb are statistical, kal16 is diphones."""

    sample_rate = 16_000

    def __init__(self, voice: Voice):
        self.voice, self.name = voice, voice.name

    def speak(self, text: str, seed: int) -> Array:
        rng, voice = np.random.default_rng(seed), self.voice.voice or "slt"
        stretch, pitch = 1 / drawn(self.voice.speed, rng), drawn(self.voice.pitch, rng)
        command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch:.4f}", "-t", "{text}", "-o", "{out}"]
        if self.voice.pitch != ONE:
            mean = FLITE_PITCH.get(voice, 120.0) * pitch
            command[3:3] = ["--setf", f"int_f0_target_mean={mean:.2f}"]
        return run_command(command, text, rate=self.sample_rate, name=self.name)


class CommandSpeaker:
    """Any program that writes a WAV to {out}; without {text} in its command it gets the text on standard input."""

    sample_rate = 16_000

    def __init__(self, voice: Voice):
        self.voice, self.name = voice, voice.name
        if "{out}" not in voice.command:
            raise ConfigError(f"Voice {voice.name}: the command needs {{out}} for the WAV, got {voice.command!r}")

    def speak(self, text: str, seed: int) -> Array:
        speed = drawn(self.voice.speed, np.random.default_rng(seed))
        rate = round(self.sample_rate / speed)
        return run_command(shlex.split(self.voice.command), text, rate=rate, name=self.name)


def run_command(command: list[str], text: str, *, rate: int, name: str) -> Array:
    """Runs a synthesiser without a shell and reads the WAV that it writes, resampled to `rate` Hz.

    Raises:
        ConfigError: no such program.
        DataError: it failed or hung, or wrote no sound.
    """
    import soundfile
    import soxr

    said = " " + text.strip() if text.startswith("-") else text.strip()
    with tempfile.TemporaryDirectory(prefix="duologue-") as folder:
        out = Path(folder) / "speech.wav"
        argv = [part.replace("{out}", str(out)).replace("{text}", said) for part in command]
        piped = None if any("{text}" in part for part in command) else said.encode()
        try:
            done = subprocess.run(argv, input=piped, capture_output=True, timeout=COMMAND_SECONDS, check=False)
        except FileNotFoundError as error:
            raise ConfigError(
                f"voice {name}: there is no program {argv[0]!r}; install it, or take the voice out of the recipe"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise DataError(f"voice {name}: {argv[0]} took more than {COMMAND_SECONDS} s over {text[:60]!r}") from error
        if done.returncode or not out.is_file():
            reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it wrote no file"]
            raise DataError(f"voice {name}: {argv[0]} failed on {text[:60]!r} ({reason[0]})")
        try:
            audio, source_rate = soundfile.read(out, dtype="float32", always_2d=True)
        except RuntimeError as error:
            raise DataError(f"voice {name}: {argv[0]} wrote something that is not audio ({error})") from error
    if not len(audio):
        raise DataError(f"voice {name}: {argv[0]} finds nothing to say in {text[:60]!r}")
    mono = audio.mean(axis=1)
    return np.asarray(soxr.resample(mono, source_rate, rate) if source_rate != rate else mono, np.float32)


def choose_voice(voices: tuple[Voice, ...], split: str, rng: np.random.Generator) -> Voice:
    """Draws by weight among the voices that may speak in a split.

    Raises:
        ConfigError: none may.
    """
    able = [voice for voice in voices if split in voice.splits and voice.weight > 0]
    if not able:
        raise ConfigError(f"no voice of the recipe may speak in the split {split!r}; widen Voice.splits of one")
    weights = np.array([voice.weight for voice in able])
    return able[int(rng.choice(len(able), p=weights / weights.sum()))]


def _hibari(name: str, **changes: Any) -> Voice:
    person = Voice(kind="hibari", name=name, speed=(0.85, 1.2), intonation=(0.6, 1.4), licence="Apache-2.0")
    return dataclasses.replace(person, **changes)


def default_voices() -> tuple[Voice, ...]:
    """People of many kinds from the synthesiser in the `train` extra alone: no other program is needed."""
    woman = {"pitch": (0.85, 1.15), "formant": (0.95, 1.06)}
    man = {"pitch": (0.48, 0.68), "formant": (0.83, 0.92)}
    child = {"pitch": (1.15, 1.4), "formant": (1.08, 1.16)}
    return (
        _hibari("hibari-woman-us", **woman, weight=3.0),
        _hibari("hibari-man-us", **man, weight=3.0),
        _hibari("hibari-child-us", **child, weight=1.0),
        _hibari("hibari-woman-gb", **woman, voice="gb", weight=1.0),
        _hibari("hibari-man-gb", **man, voice="gb", weight=1.0),
    )


def system_voices() -> tuple[Voice, ...]:
    """Voices of programs in Debian: espeak-ng, flite, pico2wave (non-free) and festival."""
    flite = [
        Voice(kind="flite", name=f"flite-{v}", voice=v, speed=(0.85, 1.2), weight=w, licence="CMU (BSD-like)")
        for v, w in (("slt", 1.0), ("rms", 1.0), ("awb", 1.0), ("kal16", 0.3))
    ]
    pico = [
        Voice(
            kind="command",
            name=f"pico-{accent}",
            command=f"pico2wave -l en-{accent.upper()} -w {{out}} {{text}}",
            licence="Apache-2.0 (voice data without its source)",
        )
        for accent in ("us", "gb")
    ]
    espeak = [
        Voice(
            kind="espeak",
            name=f"espeak-{v}",
            voice=v,
            speed=(0.8, 1.1),
            pitch=(0.8, 1.25),
            weight=0.1,
            licence="GPL-3.0-or-later program; its output is free",
        )
        for v in ("en-us", "en-gb", "en-us+f3", "en-gb-x-rp+f2", "en-us+m3")
    ]
    festival = [
        Voice(
            kind="command",
            name=f"festival-{v}",
            command=f"text2wave -o {{out}} -eval '(voice_{v})'",
            weight=0.3,
            licence=licence,
        )
        for v, licence in (("kal_diphone", "CMU (BSD-like)"), ("cmu_us_slt_arctic_hts", "CMU Arctic (BSD-like)"))
    ]
    return (*pico, *flite, *espeak, *festival)
