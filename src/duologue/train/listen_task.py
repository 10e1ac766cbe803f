"""Stage 0, listening: fine-tunes a Whisper-shaped recogniser on audio without padding, in noise, and on no speech."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from duologue.audio.features import SAMPLE_RATE, log_mel
from duologue.models.whisper import Whisper

IGNORED = -100  # label of positions that carry no loss


@dataclass(frozen=True)
class Utterance:
    """One clip and the tokens that were said in it; none where nobody speaks."""

    audio: NDArray[np.int16]  # 16 kHz mono
    ids: tuple[int, ...]


@dataclass(frozen=True)
class ListenBatch:
    audio_BN: Tensor
    samples_B: Tensor
    ids_BT: Tensor  # prompt, words
    labels_BT: Tensor  # words, end


def batches(
    utterances: Sequence[Utterance],
    *,
    prompt: Sequence[int],
    end: int,
    seconds: float = 64.0,
    seed: int = 0,
    position: int = 0,
) -> Iterator[ListenBatch]:
    """Endless batches of about `seconds` of audio, clips of like length together, in an order fixed by the seed.

    Args:
        position: batches already used; the stream continues there.
    """
    epoch, count = 0, 0
    while True:
        rng = np.random.default_rng((seed, epoch))
        lengths = np.array([len(u.audio) for u in utterances]) * rng.uniform(0.9, 1.1, len(utterances))
        order, groups, group = np.argsort(lengths), [], []
        for index in order:
            if group and (len(group) + 1) * lengths[index] > seconds * SAMPLE_RATE:
                groups.append(group)
                group = []
            group.append(int(index))
        groups.append(group)
        for choice in rng.permutation(len(groups)):
            count += 1
            if count > position:
                yield collate([utterances[i] for i in groups[choice]], prompt=prompt, end=end)
        epoch += 1


def collate(rows: Sequence[Utterance], *, prompt: Sequence[int], end: int) -> ListenBatch:
    """Pads clips and tokens to the longest of the batch."""
    samples = [len(row.audio) for row in rows]
    audio_BN = torch.zeros(len(rows), max(samples))
    width = len(prompt) + max(len(row.ids) for row in rows)
    ids_BT = torch.full((len(rows), width), end)
    labels_BT = torch.full((len(rows), width), IGNORED)
    for b, row in enumerate(rows):
        audio_BN[b, : samples[b]] = torch.from_numpy(row.audio.astype(np.float32) / 32768)
        tokens = [*prompt, *row.ids]
        ids_BT[b, : len(tokens)] = torch.tensor(tokens)
        labels_BT[b, len(prompt) - 1 : len(tokens)] = torch.tensor([*row.ids, end])
    return ListenBatch(audio_BN, torch.tensor(samples), ids_BT, labels_BT)


def loss(model: Whisper, batch: ListenBatch, *, mask_frames: int = 0) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of the words and of the end.

    Args:
        mask_frames: up to this many 10 ms frames are blanked at one place of each clip.
    """
    with torch.autocast("cpu", enabled=False):
        features_BMT, frames_B = log_mel(batch.audio_BN, batch.samples_B, num_mels=model.config.num_mels)
    if mask_frames:
        width_B = (torch.rand(len(frames_B)) * mask_frames).long()
        begin_B = (torch.rand(len(frames_B)) * (frames_B - width_B).clamp(min=1)).long()
        frame_T = torch.arange(features_BMT.shape[-1])
        blank_BT = (frame_T >= begin_B[:, None]) & (frame_T < (begin_B + width_B)[:, None])
        features_BMT = features_BMT.masked_fill(blank_BT[:, None], 0.0)
    encoded_BTD, steps_B = model.encoder(features_BMT, frames_B)
    memory = model.decoder.remember(encoded_BTD, steps_B)
    slots = batch.ids_BT.shape[0]
    state = model.decoder.init_state(slots, batch.ids_BT.shape[1])
    hidden_BTD = model.decoder(batch.ids_BT, state, memory, torch.ones(slots, dtype=torch.bool))
    keep_BT = batch.labels_BT != IGNORED
    logits_NV = model.decoder.logits(hidden_BTD[keep_BT]).float()
    labels_N = batch.labels_BT[keep_BT]
    value = F.cross_entropy(logits_NV, labels_N, label_smoothing=0.05)
    return value, {"token_accuracy": (logits_NV.argmax(-1) == labels_N).float().mean().item()}
