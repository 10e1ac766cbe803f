"""Trains the spectral vocoder to say what a teacher says.

`VocoderTask` is the stage. What it does, in order: `prepare` (the teacher reads texts aloud; cached), `build_model`
(with the frame space fitted to the teacher's spectra), `batches` and `loss` in the loop, `evaluate` on texts held out.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.codecs.units import mini_units
from duologue.data.teacher import VOICED
from duologue.errors import DataError
from duologue.train.distributed import to_device
from duologue.train.parts import load_part, save_part
from duologue.train.vocoder_data import FrameSpace, VocoderData, prepare, weights
from duologue.vocoders.spectral import SpectralVocoder, SpectralVocoderConfig


@dataclass(frozen=True, kw_only=True)
class VocoderTask:
    """The stage `vocoder`: says units as the teacher says them, with the prosody that it is given or its own."""

    texts: tuple[str, ...]  # text files, a text a line: the first `held_out` lines of each file are kept for evaluation
    cache: str  # a folder for what the teacher said
    most: int = 2000  # texts of each file
    held_out: int = 20
    vocoder: SpectralVocoderConfig = field(default_factory=SpectralVocoderConfig)
    start: str = ""  # a folder with a trained vocoder to go on from; empty: from nothing
    frames: int = 2400  # of 12.5 ms in a batch

    def make(self) -> _Vocoding:
        """The task."""
        return _Vocoding(self)


class _Vocoding:
    """`VocoderTask` at work."""

    def __init__(self, config: VocoderTask):
        self.config = config

    @functools.cached_property
    @torch.autocast("cpu", enabled=False)  # the loop may ask for it while it evaluates in bf16
    def _data(self) -> tuple[VocoderData, VocoderData]:
        """For training and held out, in the frame space of the start or of the first file."""
        c, like = self.config, None
        kept: tuple[list[VocoderData], list[VocoderData]] = ([], [])
        if c.start:
            space = self._begun()
            like = FrameSpace(mean_C=space.mean.detach(), basis_CR=space.basis.detach())
        for number, name in enumerate(c.texts):
            lines = _lines(Path(name))[: c.most + c.held_out]
            for part, texts in enumerate((lines[c.held_out :], lines[: c.held_out])):
                if texts:
                    out = Path(c.cache) / f"{('train', 'dev')[part]}-{_digest(texts, c.vocoder.rank, like)}.safetensors"
                    data = prepare(texts, out, rank=c.vocoder.rank, like=like, seed=number)
                    like = like or data.space
                    kept[part].append(data)
        if not kept[0] or not kept[1]:
            raise DataError(f"VocoderTask: need more than {c.held_out} texts in {', '.join(c.texts) or 'no files'}")
        return VocoderData.joined(kept[0]), VocoderData.joined(kept[1])

    def _begun(self) -> SpectralVocoder:
        return load_part(SpectralVocoder(self.config.vocoder), "vocoder", Path(self.config.start))

    def build(self) -> nn.Module:
        if not self.config.start:
            return build_model(self.config.vocoder, self._data[0])
        model = self._begun().train()
        for fixed in (model.basis, model.mean):
            fixed.requires_grad_(False)
        return model

    def prepare(self) -> None:
        self._data  # noqa: B018

    def batches(self, seed: int, position: int) -> Iterator[Callable[[], Batch]]:
        return batches(self._data[0], frames=self.config.frames, seed=seed, position=position)

    def loss(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        value, parts = loss(module, batch)  # type: ignore[arg-type]
        return value, {**parts, "weight": float(batch.frames_B.sum())}

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """The parts of the loss on held-out texts. Rank vocoders by ear, recogniser and DNSMOS, not by these."""
        return evaluate(module, self._data[1])  # type: ignore[arg-type]

    def export(self, module: nn.Module, folder: Path) -> None:
        """vocoder.safetensors, vocoder.json."""
        save_part(module, "vocoder", folder)


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the texts ({error}). Give a UTF-8 file with a text a line.") from error


def _digest(texts: Sequence[str], rank: int, like: FrameSpace | None) -> str:
    """Names what the teacher is asked to say, so that a cached answer to another question is not taken."""
    digest = hashlib.sha256(f"{rank}\n{mini_units().digest}\n".encode() + "\n".join(texts).encode())
    if like:
        digest.update(like.basis_CR.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Batch:
    units_BU: Tensor
    counts_B: Tensor
    prosody_BUP: Tensor  # what the model is given
    truth_BUP: Tensor  # what it shall guess
    coefficients_BFR: Tensor
    f0_BF: Tensor
    frames_B: Tensor


def build_model(config: SpectralVocoderConfig, data: VocoderData | None = None) -> SpectralVocoder:
    """A fresh vocoder; its frame space is the data's where given, and then stays as it is."""
    model = SpectralVocoder(config)
    if data is not None:
        if data.basis.shape[1] != config.rank:
            raise DataError(
                f"build_model: the data's frames have rank {data.basis.shape[1]}, the config's {config.rank}"
            )
        with torch.no_grad():
            model.basis.copy_(data.basis)
            model.mean.copy_(data.mean)
            model.head.weight.mul_(0.5)
        model.basis.requires_grad_(False)
        model.mean.requires_grad_(False)
    return model


def plan(data: VocoderData, *, frames: int, seed: int, epoch: int) -> list[list[int]]:
    """One pass over the data: rows of batches of about `frames` frames, utterances of like length together."""
    random = torch.Generator().manual_seed(seed * 100_003 + epoch)
    lengths = data.frame_starts.diff()
    groups: list[list[int]] = [[]]
    for row in (lengths.float() * (1 + 0.1 * torch.rand(len(data), generator=random))).argsort().tolist():
        if groups[-1] and (len(groups[-1]) + 1) * int(lengths[row]) > frames:
            groups.append([])
        groups[-1].append(row)
    return [groups[index] for index in torch.randperm(len(groups), generator=random).tolist()]


def batches(
    data: VocoderData, *, frames: int = 2400, seed: int = 0, position: int = 0
) -> Iterator[Callable[[], Batch]]:
    """Endless makers of batches in an order that `seed` fixes, from number `position` on; prosody is `jittered`."""

    def make(rows: list[int], number: int) -> Batch:
        return jittered(collate(data, rows), torch.Generator().manual_seed(seed * 100_003 + number))

    number = 0
    for epoch in itertools.count():
        for rows in plan(data, frames=frames, seed=seed, epoch=epoch):
            if number >= position:
                yield functools.partial(make, rows, number)
            number += 1


def collate(data: VocoderData, rows: Sequence[int]) -> Batch:
    """Some utterances padded to the longest of them."""

    def padded(values: Tensor, starts: Tensor) -> Tensor:
        parts = [values[int(starts[row]) : int(starts[row + 1])] for row in rows]
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)

    index = torch.tensor(list(rows))
    prosody_BUP = padded(data.prosody, data.unit_starts)
    return Batch(
        units_BU=padded(data.units, data.unit_starts).long(),
        counts_B=data.unit_starts.diff()[index],
        prosody_BUP=prosody_BUP,
        truth_BUP=prosody_BUP,
        coefficients_BFR=padded(data.coefficients, data.frame_starts).float(),
        f0_BF=padded(data.f0, data.frame_starts),
        frames_B=data.frame_starts.diff()[index],
    )


def jittered(batch: Batch, random: torch.Generator) -> Batch:
    """The given pitch and loudness with noise, and one utterance's pitch moved by up to 12 %; lengths stay true."""
    truth_BUP, B = batch.truth_BUP, len(batch.units_BU)
    moved_B11 = (torch.rand(B, 1, 1, generator=random) * 2 - 1) * 0.12 * (torch.rand(B, 1, 1, generator=random) < 0.5)
    noise_BUP = torch.randn(truth_BUP.shape, generator=random) * torch.tensor([0.0, 0.02, 0.15])
    noise_BUP = noise_BUP * torch.rand(B, 1, 1, generator=random)
    noise_BUP[..., 1:2] += moved_B11
    voiced_BU1 = truth_BUP[..., 1:2] > 0
    noise_BUP[..., 1:2] *= voiced_BU1
    return replace(batch, prosody_BUP=truth_BUP + noise_BUP, f0_BF=batch.f0_BF * torch.exp(moved_B11[..., 0]))


def loss(model: SpectralVocoder, batch: Batch, *, every: int = 3) -> tuple[Tensor, dict[str, float]]:
    """What training makes small, and its parts.

    The spectra count by absolute difference, weighted as in `weights`, at every `every`-th bin (chosen anew each time).
    """
    B, device = len(batch.units_BU), batch.units_BU.device
    state, final_B = model.init_state(B), torch.ones(B, dtype=torch.bool, device=device)
    reading = model.read_units(batch.units_BU, batch.counts_B, state, final_B, batch.prosody_BUP)
    frames = model.draw_frames(reading, state, final_B)
    real_BF = torch.arange(batch.f0_BF.shape[1], device=device) < batch.frames_B[:, None]
    offset = int(torch.randint(every, ()))
    weight_C = weights().to(device)[offset::every]
    aim_FR, got_FR = batch.coefficients_BFR[real_BF], frames.coefficients_BFR[real_BF]
    off_FC = F.linear(got_FR - aim_FR, model.basis.detach()[offset::every] * weight_C[:, None])
    spectra = off_FC.abs().mean()
    voiced_BF = batch.f0_BF > VOICED
    voicing = F.binary_cross_entropy_with_logits(frames.voiced_BF[real_BF], voiced_BF[real_BF].float())
    both_BF = real_BF & voiced_BF
    pitch = (frames.log_f0_BF[both_BF] - batch.f0_BF[both_BF].log()).abs().mean()
    guess = _guess_loss(reading.guess_BUP, reading.voiced_BU, batch)
    total = spectra + 0.3 * voicing + 3.0 * pitch + 0.3 * guess
    parts = {"spectra": spectra, "voicing": voicing, "pitch": pitch, "guess": guess}
    return total, {name: float(value.detach()) for name, value in parts.items()}


def _guess_loss(guess_BUP: Tensor, voiced_BU: Tensor, batch: Batch) -> Tensor:
    real_BU = torch.arange(batch.units_BU.shape[1], device=batch.units_BU.device) < batch.counts_B[:, None]
    truth_BUP, pitched_BU = batch.truth_BUP, (batch.truth_BUP[..., 1] > 0) & real_BU
    off_BUP = (guess_BUP - truth_BUP).abs()
    length = off_BUP[..., 0][real_BU].mean() / 0.6
    pitch = off_BUP[..., 1][pitched_BU].mean() / 0.2
    energy = off_BUP[..., 2][real_BU].mean() / 1.5
    voicing = F.binary_cross_entropy_with_logits(voiced_BU[real_BU], (truth_BUP[..., 1] > 0)[real_BU].float())
    return length + pitch + energy + voicing


@torch.no_grad()
def evaluate(model: SpectralVocoder, data: VocoderData, *, frames: int = 4000) -> dict[str, float]:
    """The parts of the loss over a data set with true prosody, each the mean over its batches."""
    found = []
    for rows in plan(data, frames=frames, seed=0, epoch=0):
        total, parts = loss(model, to_device(collate(data, rows), model.mean.device), every=1)
        found.append({"loss": float(total), **parts})
    return {name: sum(each[name] for each in found) / len(found) for name in found[0]}


@torch.no_grad()
def speak(
    model: SpectralVocoder, units: Sequence[int], prosody_UP: np.ndarray | None = None, *, chunk: int | None = None
) -> np.ndarray:
    """One utterance as samples, whole or in chunks of `chunk` units."""
    units_1U = torch.tensor([list(units)])
    prosody_1UP = None if prosody_UP is None else torch.from_numpy(prosody_UP)[None]
    state, live_B, pieces = model.init_state(1), torch.ones(1, dtype=torch.bool), []
    size = chunk or len(units)
    for begin in range(0, len(units), size):
        part = slice(begin, min(begin + size, len(units)))
        audio_BN, samples_B = model(
            units_1U[:, part],
            torch.tensor([part.stop - begin]),
            state,
            live_B,
            torch.tensor([part.stop == len(units)]),
            None if prosody_1UP is None else prosody_1UP[:, part],
        )
        pieces.append(audio_BN[0, : int(samples_B[0])])
    return torch.cat(pieces).numpy()
