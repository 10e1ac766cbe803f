"""The test sets: made once on the spot, the same on every machine for the same programs, and kept in a cache folder.

Questions are spoken by voices that training never uses (eval.voices) and passed through rooms, crowds and lines that
training never uses either (here). Real recordings come from data.recordings.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from duologue.data.audio_augment import active_rms
from duologue.data.recordings import Recording, Sound
from duologue.data.speakers import Speaker
from duologue.errors import AudioError, DataError
from duologue.eval import sounds
from duologue.eval.judges import resample

RATE = 16_000  # Hz, of every clip
VERSION = 1  # of how clips are made; a new one builds anew
CONDITIONS = ("clean", "room", "babble", "gsm", "mp3")
NOISES = ("babble", "pink noise", "rain", "engine", "keyboard", "chords")
LONGEST_SOUND = 8  # seconds of a recorded sound
LEAD, TAIL = 0.2, 0.3  # seconds of background before and after the words

Array = np.ndarray
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One test recording on disk: 16 kHz mono FLAC."""

    path: Path
    text: str  # what is said in it
    voice: str
    condition: str

    def audio(self) -> Array:
        """Its samples in [-1, 1]."""
        return soundfile.read(self.path, dtype="float32")[0]


def read_lines(path: Path, *keys: str) -> list[dict]:
    """The objects of a JSONL file, each with the given keys.

    Raises:
        DataError: no such file, or a line that is not such an object.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(
            f"{path}: cannot read the test questions ({error.strerror}); run in the project's folder or pass --data"
        ) from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not valid JSON ({error})") from error
        if not isinstance(row, dict) or any(key not in row for key in keys):
            raise DataError(f"{path}, line {number}: need an object with {', '.join(keys)}, got {line[:80]}")
        found.append(row)
    if not found:
        raise DataError(f"{path}: there are no questions in it")
    return found


def synthetic(
    questions: Sequence[str],
    speakers: Sequence[Speaker],
    *,
    cache: Path,
    conditions: Sequence[str] = CONDITIONS,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Clip]:
    """Held-out questions; each voice in turn, a condition for every round of them, so that every pair of both occurs.

    Raises:
        DataError: a voice cannot speak on this machine.
    """

    crowd: list[Array] = []

    def make(index: int) -> tuple[Array, str, str, str]:
        speaker = speakers[index % len(speakers)]
        condition = conditions[index // len(speakers) % len(conditions)]
        rng = np.random.default_rng([seed, index])
        speech = _say(speaker, questions[index], int(rng.integers(2**31)))
        if condition == "babble" and not crowd:
            crowd.extend(_say(other, text, 0) for other in speakers for text in _CROWD)
        return worsen(speech, condition, rng, others=crowd), questions[index], speaker.name, condition

    key = [VERSION, "synthetic", list(questions), [speaker.name for speaker in speakers], list(conditions), seed]
    return _cached(cache, "synthetic", key, len(questions), make, progress)


def in_noise(
    clips: Sequence[Clip], *, cache: Path, db: float = 10.0, seed: int = 0, progress: Progress | None = None
) -> list[Clip]:
    """The clips again with noise under them, `db` decibels below the speech, kinds in turn."""
    voices = [clip.audio() for clip in clips[:12]]

    def make(index: int) -> tuple[Array, str, str, str]:
        clip, kind = clips[index], NOISES[index % len(NOISES)]
        noisy = add_noise(clip.audio(), kind, db, np.random.default_rng([seed, index]), others=voices)
        return noisy, clip.text, clip.voice, kind

    key = [VERSION, "noise", [str(clip.path.parent.name) + clip.path.name for clip in clips], db, seed]
    return _cached(cache, "noise", key, len(clips), make, progress)


def nonspeech(count: int, *, cache: Path, seed: int = 0, real: Sequence[Sound] = ()) -> list[Clip]:
    """Clips in which nobody speaks: up to a third of them recorded (evenly drawn from `real`), the rest eval.sounds."""
    num_real = min(len(real), count // 3)
    chosen = [real[place * len(real) // num_real] for place in range(num_real)]

    def make(index: int) -> tuple[Array, str, str, str]:
        if index < num_real:
            each = chosen[index]
            audio = resample(each.audio, each.sample_rate, RATE)[: LONGEST_SOUND * RATE]
            return np.pad(audio, (0, max(0, RATE // 2 - len(audio)))), "", each.source, each.kind
        kinds = list(sounds.KINDS)
        sound = sounds.clip(kinds[index % len(kinds)], seed=seed, index=index)
        return sound.audio, "", "made", sound.name

    key = [VERSION, "nonspeech", count, seed, [[each.source, each.name] for each in chosen]]
    return _cached(cache, "nonspeech", key, count, make, None)


def real(found: Sequence[Recording], *, cache: Path) -> list[Clip]:
    """Recordings of people that no training saw (data.recordings).

    Raises:
        DataError: there are none with a text.
    """
    found = [each for each in found if each.text.strip()]
    if not found:
        raise DataError("there are no real recordings for testing; docs/recordings.md says where they come from")

    def make(index: int) -> tuple[Array, str, str, str]:
        each = found[index]
        return resample(each.audio, each.sample_rate, RATE), each.text, each.source, each.kind

    key = [VERSION, "real", [[each.source, each.name, each.text] for each in found]]
    return _cached(cache, "real", key, len(found), make, None)


def worsen(speech: Array, condition: str, rng: np.random.Generator, *, others: Sequence[Array] = ()) -> Array:
    """16 kHz speech as it arrives through a condition, with a drawn level.

    Raises:
        DataError: an unknown condition.
    """
    speech = np.pad(speech, (int(LEAD * RATE), int(TAIL * RATE)))
    if condition == "room":
        speech = np.convolve(speech, shoebox(rng))[: len(speech)]
    elif condition == "babble":
        speech = add_noise(speech, "babble", float(rng.uniform(12, 20)), rng, others=others)
    elif condition == "gsm":
        speech = through_codec(speech, 8_000, format="WAV", subtype="GSM610")
    elif condition == "mp3":
        speech = through_codec(compress(speech), RATE, format="MP3", subtype="MPEG_LAYER_III")
    elif condition != "clean":
        raise DataError(f"test condition {condition!r} is unknown; there are: {', '.join(CONDITIONS)}")
    level = 10 ** (rng.uniform(-34, -16) / 20) / max(active_rms(speech.astype(np.float32)), 1e-9)
    return np.clip(speech * level, -1, 1).astype(np.float32)


def add_noise(speech: Array, kind: str, db: float, rng: np.random.Generator, *, others: Sequence[Array] = ()) -> Array:
    """Adds a noise whose level is `db` below the level of the speech in its active parts."""
    if kind == "babble":
        noise = sounds.babble([*others] or [speech], len(speech), rng)
    else:
        noise = sounds.KINDS[kind](len(speech), rng)[: len(speech)]
    rms = float(np.sqrt(np.mean(noise**2))) + 1e-9
    mixed = speech + noise * (active_rms(speech) / rms * 10 ** (-db / 20))
    return (mixed / max(1.0, float(np.abs(mixed).max()))).astype(np.float32)


def shoebox(rng: np.random.Generator, *, order: int = 6) -> Array:
    """The response of a rectangular room between two points, by mirror images (Allen and Berkley 1979), 16 kHz."""
    size = rng.uniform([3.0, 2.5, 2.3], [8.0, 6.0, 3.2])  # metres
    source, microphone = (rng.uniform(0.15, 0.85, 3) * size for _ in range(2))
    bounce = rng.uniform(0.55, 0.85)
    steps = np.arange(-order, order + 1)
    cells = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    images = np.where(cells % 2 == 0, cells * size + source, (cells + 1) * size - source)
    distance = np.linalg.norm(images - microphone, axis=1)
    strength = bounce ** np.abs(cells).sum(1) / np.maximum(distance, 0.3)
    arrival = ((distance - distance.min()) / 343.0 * RATE).astype(int)
    response = np.zeros(int(arrival.max()) + 1)
    np.add.at(response, arrival, strength)
    return response / response[0]


def compress(speech: Array) -> Array:
    """A microphone's automatic gain: quiet parts are lifted, loud ones pressed and rounded off."""
    size = RATE // 50
    power = np.convolve(speech**2, np.ones(size) / size, mode="same")
    gain = (np.sqrt(power) + 0.01) ** -0.6
    return np.tanh(speech * gain / (gain.max() * np.abs(speech).max() + 1e-9) * 6)


def through_codec(speech: Array, rate: int, *, format: str, subtype: str) -> Array:
    """Encodes and decodes 16 kHz speech at another rate with libsndfile's codec.

    Raises:
        AudioError: this libsndfile lacks the codec.
    """
    file = io.BytesIO()
    narrow = resample(speech / max(1.0, float(np.abs(speech).max())), RATE, rate)
    try:
        if format == "MP3":
            level = {"compression_level": 0.9, "bitrate_mode": "CONSTANT"}
        else:
            level = {}
        soundfile.write(file, narrow, rate, format=format, subtype=subtype, **level)
        file.seek(0)
        decoded = soundfile.read(file, dtype="float32")[0]
    except (soundfile.LibsndfileError, ValueError) as error:
        raise AudioError(f"libsndfile cannot write {format} {subtype} ({error}); update soundfile") from error
    wide = resample(decoded, rate, RATE)
    return np.pad(wide, (0, max(0, len(speech) - len(wide))))[: len(speech)]


_CROWD = ("I went to the market to buy bread and some apples.", "They said that the train would be late again.")


def _say(speaker: Speaker, text: str, seed: int) -> Array:
    return resample(speaker.speak(text, seed), speaker.sample_rate, RATE)


def _cached(
    cache: Path,
    name: str,
    key: object,
    count: int,
    make: Callable[[int], tuple[Array, str, str, str]],
    progress: Progress | None,
) -> list[Clip]:
    """Makes the clips of a set, or reads them back where they were made before from the same key."""
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
    folder = Path(cache) / f"{name}-{digest}"
    index = folder / "index.json"
    if not index.is_file():
        partial = folder.with_name(folder.name + ".part")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        rows = []
        for number in range(count):
            audio, text, voice, condition = make(number)
            soundfile.write(partial / f"{number:04d}.flac", audio, RATE, subtype="PCM_16")
            rows.append({"path": f"{number:04d}.flac", "text": text, "voice": voice, "condition": condition})
            if progress:
                progress(number + 1, count)
        (partial / "index.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    rows = json.loads(index.read_text(encoding="utf-8"))
    return [Clip(**{**row, "path": folder / row["path"]}) for row in rows]


def describe(clips: Sequence[Clip]) -> dict[str, dict[str, int]]:
    """How many clips there are of each voice and of each condition."""
    counts: dict[str, dict[str, int]] = {"voices": {}, "conditions": {}}
    for clip in clips:
        for group, name in (("voices", clip.voice), ("conditions", clip.condition)):
            counts[group][name] = counts[group].get(name, 0) + 1
    return counts
