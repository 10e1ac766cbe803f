"""What the spectral vocoder learns from: the teacher's utterances, and the space that their frames lie in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from duologue.data.teacher import HibariTeacher, Spoken
from duologue.errors import DataError
from duologue.vocoders.pulse_noise import BINS, SAMPLE_RATE
from duologue.vocoders.spectral import SpectralVocoderConfig

# What a spectrum counts for: the amplitudes of harmonics and of the free part most, phases less.
PART_WEIGHTS = (1.0, 0.3, 0.3, 1.0, 0.5)
FLOORS = (-9.0, -math.inf, -9.0, -9.0, -math.inf)  # natural log amplitude below which nothing is heard


@dataclass(frozen=True, kw_only=True)
class VocoderData:
    """Utterances one behind the other, with where each begins."""

    unit_starts: Tensor  # [utterances + 1]
    frame_starts: Tensor
    units: Tensor
    frames: Tensor  # of each unit
    prosody: Tensor  # [units, 3]
    f0: Tensor  # Hz a frame
    coefficients: Tensor  # [frames, rank], fp16
    basis: Tensor  # [spectra, rank]: coefficients -> spectra
    mean: Tensor  # [spectra]

    def __len__(self) -> int:
        return len(self.unit_starts) - 1

    @property
    def hours(self) -> float:
        return float(self.frame_starts[-1]) / 80 / 3600

    @staticmethod
    def joined(parts: Sequence[VocoderData]) -> VocoderData:
        """Several data sets of one frame space as one."""
        if any(not torch.equal(part.basis, parts[0].basis) for part in parts):
            raise DataError("VocoderData.joined: the parts have different frame spaces; prepare them with `like=`")
        rows = {name: torch.cat([getattr(part, name) for part in parts]) for name in _ROWS}
        starts = {}
        for name in ("unit_starts", "frame_starts"):
            starts[name] = torch.cat([getattr(part, name).diff() for part in parts]).cumsum(0)
            starts[name] = F.pad(starts[name], (1, 0))
        return VocoderData(**rows, **starts, basis=parts[0].basis, mean=parts[0].mean)

    @property
    def space(self) -> FrameSpace:
        return FrameSpace(mean_C=self.mean, basis_CR=self.basis)

    def save(self, path: Path) -> None:
        save_file({name: value.contiguous() for name, value in vars(self).items()}, path)

    @staticmethod
    def load(path: Path) -> VocoderData:
        """Raises DataError where the file is not there or is another kind of file."""
        try:
            return VocoderData(**load_file(path))
        except (OSError, TypeError, ValueError) as error:
            raise DataError(f"{path}: no vocoder data there ({error}); make it with vocoder_data.prepare") from error


def weights() -> Tensor:
    """Of each bin of the five spectra: by part, and falling with frequency as the ear's resolution does."""
    hertz_K = torch.arange(BINS) * (SAMPLE_RATE / 2 / (BINS - 1))
    ear_K = 0.3 + 0.7 / (1 + hertz_K / 1500)
    return torch.cat([part * ear_K for part in PART_WEIGHTS])


def audible(spectra_FC: Tensor) -> Tensor:
    """The spectra with amplitudes that nobody hears raised to a floor, so that no capacity is spent on them."""
    floors_C = torch.tensor(FLOORS).repeat_interleave(BINS)
    return torch.maximum(spectra_FC, floors_C)


@dataclass(frozen=True, kw_only=True)
class FrameSpace:
    """Directions of the five spectra: coefficients of unit variance @ basis.T + mean are spectra."""

    mean_C: Tensor
    basis_CR: Tensor

    def encoder(self) -> Tensor:
        """(spectra - mean) @ encoder are coefficients: the directions are orthogonal after weighting."""
        weight_C1 = weights()[:, None]
        return self.basis_CR * weight_C1**2 / (self.basis_CR * weight_C1).square().sum(0)

    def encode(self, spectra_FC: Tensor) -> Tensor:
        return (audible(spectra_FC) - self.mean_C) @ self.encoder()


def fit_space(spectra: Sequence[Tensor], rank: int) -> FrameSpace:
    """The best `rank` directions of weighted spectra (principal components)."""
    all_FC = torch.cat([audible(part) for part in spectra])
    if len(all_FC) < rank:
        raise DataError(f"fit_space: need at least {rank} frames for {rank} dimensions, got {len(all_FC)}: more texts")
    mean_C = all_FC.mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        most = min(rank + 16, *all_FC.shape)
        _, size_R, directions_CR = torch.svd_lowrank((all_FC - mean_C) * weights(), q=most, niter=4)
    scale_R = (size_R[:rank] / math.sqrt(len(all_FC))).clamp(min=1e-4)
    return FrameSpace(mean_C=mean_C, basis_CR=directions_CR[:, :rank] * scale_R / weights()[:, None])


def prepare(
    texts: Sequence[str],
    out: Path,
    *,
    rank: int = SpectralVocoderConfig.rank,
    like: FrameSpace | None = None,
    fit_texts: int = 60,
    speeds: tuple[float, float] = (0.9, 1.12),
    seed: int = 0,
) -> VocoderData:
    """The teacher reads every text once, at a speed drawn from `speeds`; the result is cached in the file `out`.

    The frame space is `like`, else fitted to the first `fit_texts` texts: put varied ones there.

    Raises:
        DataError: none of the texts has anything to say.
    """
    out = Path(out)
    if out.exists():
        return VocoderData.load(out)
    said = _said(HibariTeacher(), texts, speeds, np.random.default_rng(seed))
    first = list(itertools.islice(said, 1 if like else fit_texts))
    if not first:
        raise DataError("vocoder_data.prepare: none of the texts has anything to say")
    space = like or fit_space([torch.from_numpy(spoken.frames.stacked()) for spoken in first], rank)
    data = _packed([_row(spoken, space) for spoken in itertools.chain(first, said)], space)
    out.parent.mkdir(parents=True, exist_ok=True)
    data.save(out.with_suffix(".part"))
    out.with_suffix(".part").rename(out)
    return data


def _said(
    teacher: HibariTeacher, texts: Iterable[str], speeds: tuple[float, float], random: np.random.Generator
) -> Iterator[Spoken]:
    for text in texts:
        speed = float(random.uniform(*speeds))
        try:
            yield teacher.speak(text, speed=speed)
        except DataError:
            continue  # nothing to say in it


_ROWS = ("units", "frames", "prosody", "f0", "coefficients")


def _row(spoken: Spoken, space: FrameSpace) -> dict[str, Tensor]:
    return {
        "units": torch.tensor(spoken.units, dtype=torch.int16),
        "frames": torch.from_numpy(spoken.frames_U).short(),
        "prosody": torch.from_numpy(spoken.prosody_UP),
        "f0": torch.from_numpy(spoken.frames.f0_F.copy()),
        "coefficients": space.encode(torch.from_numpy(spoken.frames.stacked())).half(),
    }


def _packed(rows: list[dict[str, Tensor]], space: FrameSpace) -> VocoderData:
    return VocoderData(
        unit_starts=torch.tensor([0, *(len(row["units"]) for row in rows)]).cumsum(0),
        frame_starts=torch.tensor([0, *(len(row["f0"]) for row in rows)]).cumsum(0),
        **{name: torch.cat([row[name] for row in rows]) for name in _ROWS},
        basis=space.basis_CR,
        mean=space.mean_C,
    )
