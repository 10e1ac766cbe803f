"""What the listener's clips go through anew each time they come: longer talks, a crowd behind them, other throats.

What takes long, rooms and codecs and lines, was done when the data was made (`data.audio_augment`); this is cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from duologue.audio.features import SAMPLE_RATE

Samples = NDArray[np.int16]


@dataclass(frozen=True)
class Utterance:
    """One clip and the tokens that were said in it; none where nobody speaks."""

    audio: Samples  # 16 kHz mono
    ids: tuple[int, ...]


def joined(
    clips: Sequence[Utterance], rng: np.random.Generator, *, most_pieces: int, longest: float = 27.0
) -> list[Utterance]:
    """Clips one after another with pauses of up to 1.2 s, two to six in one: people go on after a sentence.

    A listener that has only ever heard one sentence stops after the first, or says it again.
    """
    order = [clips[index] for index in rng.permutation(len(clips))]
    pauses = [np.zeros(int(rng.uniform(0.1, 1.2) * SAMPLE_RATE), np.int16) for _ in order]
    size, made = int(rng.integers(2, 7)), list[Utterance]()
    audio, ids, count = list[Samples](), tuple[int, ...](), 0
    for clip, pause in zip(order, pauses, strict=True):
        length = sum(map(len, audio)) + len(clip.audio)
        if count and (count == size or length > longest * SAMPLE_RATE or len(ids) + len(clip.ids) > most_pieces):
            made.append(Utterance(np.concatenate(audio[:-1]), ids))
            audio, ids, count = [], (), 0
        audio, ids, count = [*audio, clip.audio, pause], ids + clip.ids, count + 1
    return [*made, Utterance(np.concatenate(audio[:-1]), ids)]


def in_company(clips: Sequence[Utterance], rng: np.random.Generator, *, share: float) -> list[Utterance]:
    """A share of the clips with voices of the batch behind them: one, 10 to 25 dB down, or up to six, 4 to 22 dB."""
    made = list(clips)
    for index in np.flatnonzero(rng.random(len(clips)) < share).tolist():
        speech = clips[index].audio.astype(np.float32)
        crowd, size = np.zeros_like(speech), int(rng.integers(1, 7))
        for other in map(int, rng.integers(len(clips), size=size)):
            voice = np.roll(clips[other].audio.astype(np.float32), int(rng.integers(len(clips[other].audio))))
            crowd += np.resize(voice, len(speech)) / (_rms(voice) + 1)
        decibels = rng.uniform(4, 22) if size > 1 else rng.uniform(10, 25)
        mixed = speech + crowd * (_rms(speech) / max(_rms(crowd), 1e-3) * 10 ** (-decibels / 20))
        made[index] = Utterance(np.clip(mixed, -32767, 32767).astype(np.int16), clips[index].ids)
    return made


def _rms(samples: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(samples).mean()))


def bent(features_BMT: Tensor, ratio_B: Tensor) -> Tensor:
    """Log-mel features with their frequency axis stretched: longer and shorter throats (Jaitly and Hinton 2013).

    Args:
        ratio_B: the band that is read for band m is m * ratio; between bands in proportion, beyond the last the last.
    """
    bands = features_BMT.shape[1]
    place_BM = (torch.arange(bands, device=ratio_B.device) * ratio_B[:, None]).clamp(max=bands - 1)
    low_BM = place_BM.long()
    part_BM1 = (place_BM - low_BM).unsqueeze(-1)
    row_B1 = torch.arange(len(ratio_B), device=ratio_B.device)[:, None]
    high_BM = (low_BM + 1).clamp(max=bands - 1)
    return torch.lerp(features_BMT[row_B1, low_BM], features_BMT[row_B1, high_BM], part_BM1)


def blanked(features_BMT: Tensor, frames_B: Tensor, *, frames: int, bands: int) -> Tensor:
    """A stretch of up to so many 10 ms frames in every 4 s and one of so many bands are blank (Park et al. 2019)."""
    count, num_bands, num_frames = features_BMT.shape
    device, spans = features_BMT.device, 1 + num_frames // 400
    width_BS, begin_BS = _spans(torch.rand(2, count, spans, device=device), frames, frames_B[:, None])
    hidden_BT = _inside(num_frames, begin_BS, width_BS)
    width_BS, begin_BS = _spans(torch.rand(2, count, 1, device=device), bands, torch.tensor(num_bands, device=device))
    hidden_BM = _inside(num_bands, begin_BS, width_BS)
    floor_B11 = features_BMT.amin((1, 2), keepdim=True)
    return torch.where(hidden_BM[..., None], floor_B11, features_BMT).masked_fill(hidden_BT[:, None], 0.0)


def _spans(draw_2BS: Tensor, widest: int, size: Tensor) -> tuple[Tensor, Tensor]:
    width_BS = (draw_2BS[0] * (widest + 1)).long()
    return width_BS, (draw_2BS[1] * (size - width_BS).clamp(min=1)).long()


def _inside(size: int, begin_BS: Tensor, width_BS: Tensor) -> Tensor:
    place_N = torch.arange(size, device=begin_BS.device)
    begin_BS1 = begin_BS.unsqueeze(-1)
    return ((place_N >= begin_BS1) & (place_N < begin_BS1 + width_BS.unsqueeze(-1))).any(1)
