"""What a codec learns from: crops of speech at 24 kHz, each with what a teacher hears in it.

Rows of data folders are cut into steps of 20 ms: 480 samples and one vector of the teacher. A crop is some whole steps
of a row, or of several rows one behind the other where one is too short.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
import torch.nn.functional as F
from torch import Tensor

from duologue.data.audio_augment import active_rms
from duologue.data.manifest import ANSWER_RATE, QUESTION_RATE, Turn, decode_flac, read_rows
from duologue.errors import DataError
from duologue.train import codec_teacher
from duologue.train.codec_teacher import Teacher, taught
from duologue.train.features import Ragged, RowCache, cached, to_card
from duologue.train.parts import fingerprint

RATE = ANSWER_RATE
STEP = RATE // 50  # samples
COLUMNS = ("answer_audio", "question_audio")
LEVELS = (-38.0, -14.0)  # dB of full scale, of the parts of a crop that are heard
DITHER = 1e-4  # of noise under it, as no microphone gives zeros
SAMPLE = 400  # rows that tell the teacher's mean and spread


@dataclass(frozen=True)
class Crops:
    audio_BN: Tensor  # 24 kHz, [-1, 1]
    taught_BTD: Tensor | None  # what the teacher hears around each frame of the codec, of zero mean and unit spread


@dataclass(frozen=True)
class Folder:
    cache: RowCache
    rows: list[str]  # of the split
    share: float  # of the crops


class CodecData:
    """One split of some data folders.

    Args:
        spread: mean and standard deviation [D] of what the teacher hears; None: there is no teacher.
        as_said: rows from their beginning, at their own level, nothing under them: as a model's own speech is coded.
    """

    def __init__(
        self,
        folders: Sequence[Folder],
        *,
        spread: tuple[Tensor, Tensor] | None,
        frame_steps: int,
        as_said: bool = False,
    ):
        self.folders, self.spread, self.frame_steps, self.as_said = folders, spread, frame_steps, as_said
        self._odds = [_odds(folder) for folder in folders]

    def crop(self, frames: int, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        """Some frames from anywhere: audio [N], taught [T, D]."""
        steps = frames * self.frame_steps
        index = int(rng.choice(len(self.folders), p=[folder.share for folder in self.folders]))
        parts: list[Ragged] = []
        while steps > 0:
            folder = self.folders[index]
            row = folder.cache[folder.rows[int(np.searchsorted(self._odds[index], rng.random()))]]
            count = len(row["audio"])
            begin = 0 if self.as_said else int(rng.integers(0, max(1, count - steps + 1)))
            parts.append({name: value[begin : begin + steps] for name, value in row.items()})
            steps -= len(parts[-1]["audio"])
        audio_N = torch.cat([part["audio"] for part in parts]).flatten().float() / 32_768
        if not self.as_said:
            level = 10 ** (rng.uniform(*LEVELS) / 20) / max(active_rms(audio_N.numpy()), 1e-4)
            audio_N = audio_N * level + DITHER * torch.from_numpy(rng.standard_normal(len(audio_N), np.float32))
        if self.spread is None:
            return audio_N.clamp(-1, 1), None
        mean_D, spread_D = self.spread
        heard_SD = torch.cat([part["taught"] for part in parts]).float()
        return audio_N.clamp(-1, 1), pooled((heard_SD - mean_D) / spread_D, self.frame_steps)

    @torch.autocast("cpu", enabled=False)  # the loop may ask for it while it evaluates in bf16
    def batch(self, rows: int, frames: int, rng: np.random.Generator) -> Crops:
        audio, heard = zip(*(self.crop(frames, rng) for _ in range(rows)), strict=True)
        return Crops(torch.stack(audio), None if self.spread is None else torch.stack(heard))

    def batches(self, rows: int, frames: int, *, seed: int, position: int) -> Iterator[Callable[[], Crops]]:
        """Endless makers of batches, each from its number alone."""
        for number in itertools.count(position):
            yield functools.partial(self._batch_number, number, seed=seed, rows=rows, frames=frames)

    def _batch_number(self, number: int, *, seed: int, rows: int, frames: int) -> Crops:
        return self.batch(rows, frames, np.random.default_rng((seed, number)))


def pooled(heard_SD: Tensor, frame_steps: int) -> Tensor:
    """Means over windows of two frames' steps, one a frame, looking as far ahead as back."""
    windows = F.avg_pool1d(
        heard_SD.T[None], 2 * frame_steps, frame_steps, padding=frame_steps // 2, count_include_pad=False
    )
    return windows[0].T


def read(
    folders: Sequence[str],
    teacher: Teacher | None,
    *,
    shares: Sequence[float] = (),
    frame_steps: int,
    as_said: bool = False,
    cache: str = "",
    splits: Sequence[str] = ("train", "dev"),
) -> list[CodecData]:
    """The splits of some data folders, all in the teacher's spread over the first.

    Args:
        teacher: None: nobody teaches.
        shares: how much of the crops each folder gives; empty: as much as it has.
        as_said: see `CodecData`.
    Raises:
        DataError: no folder, or no row of a split in any of them; or other shares than folders.
    """
    if not folders or (shares and len(shares) != len(folders)):
        raise DataError(f"codec_data: need data folders, and a share for each or for none, got {folders}, {shares}")
    mark = "sound"
    if teacher is not None:
        mark = fingerprint(teacher.module)
        teacher.module = to_card(teacher.module)
    caches = [
        cached(folder, f"codec-{mark}", _maker(teacher), columns=COLUMNS, like=_like(teacher), cache=_place(cache, i))
        for i, folder in enumerate(folders)
    ]
    found: list[CodecData] = []
    spread = None
    for split in splits:
        rows = [_rows(folder, kept, split) for folder, kept in zip(folders, caches, strict=True)]
        sizes = [sum(map(kept.count, ids)) for kept, ids in zip(caches, rows, strict=True)]
        if not any(sizes):
            raise DataError(f"{', '.join(folders)}: no row of the split {split!r} has sound")
        parts = [
            Folder(kept, ids, (shares[i] if shares else float(sizes[i])))
            for i, (kept, ids) in enumerate(zip(caches, rows, strict=True))
            if ids
        ]
        total = sum(part.share for part in parts)
        parts = [Folder(part.cache, part.rows, part.share / total) for part in parts]
        if not found and teacher is not None:
            spread = _spread(parts)
        found.append(CodecData(parts, spread=spread, frame_steps=frame_steps, as_said=as_said))
    return found


def _place(cache: str, number: int) -> str:
    return str(Path(cache) / str(number)) if cache else ""


def _rows(folder: str, kept: RowCache, split: str) -> list[str]:
    return [row.id for row in read_rows(Path(folder), split=split, columns=()) if row.id in kept]


def _odds(folder: Folder) -> np.ndarray:
    counts = np.cumsum([folder.cache.count(row) for row in folder.rows])
    return counts / counts[-1]


def _spread(folders: Sequence[Folder]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the teacher's numbers, from rows all over the folders."""
    each = max(1, SAMPLE // len(folders))
    heard = [
        folder.cache[row]["taught"].float()
        for folder in folders
        for row in folder.rows[:: max(1, len(folder.rows) // each)][:each]
    ]
    all_SD = torch.cat(heard)
    return all_SD.mean(0), all_SD.std(0).clamp(min=1e-3)


def _like(teacher: Teacher | None) -> Ragged:
    sound = {"audio": torch.zeros(0, STEP, dtype=torch.int16)}
    return sound if teacher is None else {**sound, "taught": torch.zeros(0, teacher.dim).half()}


def _maker(teacher: Teacher | None) -> Callable[[list[Turn]], dict[str, Ragged]]:
    def make(rows: list[Turn]) -> dict[str, Ragged]:
        found = {row.id: _steps(row, teacher) for row in rows if row.answer_audio or row.question_audio}
        return {name: steps for name, steps in found.items() if len(steps["audio"])}

    return make


def _steps(row: Turn, teacher: Teacher | None) -> Ragged:
    """The answer's sound, which is at the codec's rate, or else the question's."""
    if row.answer_audio:
        audio_N = decode_flac(row.answer_audio, RATE)
    else:
        audio_N = soxr.resample(decode_flac(row.question_audio, QUESTION_RATE), QUESTION_RATE, RATE)
    steps = len(audio_N) // STEP
    audio_N = np.clip(audio_N[: steps * STEP], -1, 1)
    samples = torch.from_numpy((audio_N * 32_767).astype(np.int16)).view(-1, STEP)
    if teacher is None:
        return {"audio": samples}
    at_16_khz = soxr.resample(audio_N, RATE, codec_teacher.RATE) if steps else audio_N
    at_16_khz = np.resize(at_16_khz, steps * codec_teacher.STEP).astype(np.float32)
    heard_SD = taught(teacher, torch.from_numpy(at_16_khz))  # nothing of a row too short to be heard
    return {"audio": samples[: len(heard_SD)], "taught": heard_SD.half()}
