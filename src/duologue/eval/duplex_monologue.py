"""The perplexity of a full-duplex model's inner monologue on conversations of both sides that are known.

The text, the assistant's sound and the user's are given to the model as they were (teacher forcing); what is scored is
the text token of each frame: all of them, and those alone that are words. Source: Moshi (arXiv:2410.00037).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import soundfile
import torch
from torch import Tensor
from torch.nn import functional as F

from duologue.data.interleave import interleave
from duologue.data.word_times import Word
from duologue.errors import DataError
from duologue.eval.duplex_cases import Case
from duologue.eval.judges import resample


class Monologue(Protocol):
    """What is needed of `models.moshi.family.Moshi`."""

    model: Any
    mimi: Any
    pieces: Any
    config: Any


@dataclass(frozen=True)
class Scored:
    """Sums over the frames of one conversation, in nats."""

    nats: float
    frames: int
    word_nats: float
    words: int  # tokens that are neither padding nor its end


def has_monologue(model: object) -> bool:
    """Whether a family thinks in text, frame by frame, and can be given its frames."""
    return all(hasattr(model, name) for name in ("model", "mimi", "pieces", "config"))


def scored(model: object, case: Case) -> Scored:
    """The text's score in one conversation.

    Raises:
        DataError: the assistant's side is not there, or the conversation is shorter than a frame.
    """
    family = cast(Monologue, model)
    if case.other is None:
        raise DataError(f"{case.name}: need the assistant's channel and its words")
    c, rate = family.config, family.mimi.config.frame_rate
    assistant, own_rate = soundfile.read(case.other, dtype="float32")
    own_KT = _codes(family, assistant, own_rate, c.own_codebooks)
    heard_KT = _codes(family, *case.sound(), c.heard_codebooks)
    frames = min(own_KT.shape[1], heard_KT.shape[1])
    if not frames:
        raise DataError(f"{case.name}: shorter than a frame of {1 / rate:.2f} s")
    text = interleave(
        [Word(*word) for word in case.words],
        encode=lambda word: _encoded(family, word),
        frames=frames,
        frame_rate=rate,
        pad=c.padding_id,
        end_of_pad=c.end_padding_id,
        queue=bool(c.text_lead),
        lead=c.text_lead / rate,
    )
    codes_1KT = torch.cat([torch.tensor([text]), own_KT[:, :frames], heard_KT[:, :frames]])[None]
    with torch.inference_mode():
        scores = family.model(codes_1KT.to(_device(family)))
    return _sums(scores.text_BTV[0], scores.text_mask_BT[0], codes_1KT[0, 0], (c.padding_id, c.end_padding_id))


def _encoded(family: Monologue, word: str) -> list[int]:
    """A word's pieces with the space before it, which SentencePiece adds by itself."""
    ids: list[int] = family.pieces.encode(word)
    return ids if family.pieces.decode(ids).startswith(" ") else family.pieces.encode(f" {word}")


def _sums(scores_TV: Tensor, known_T: Tensor, text_T: Tensor, paddings: Sequence[int]) -> Scored:
    known_T = known_T.cpu() & (text_T >= 0)
    nats_T = F.cross_entropy(scores_TV.float().cpu(), text_T.clamp_min(0), reduction="none").double()
    word_T = known_T & ~torch.isin(text_T, torch.tensor(paddings))
    return Scored(float(nats_T[known_T].sum()), int(known_T.sum()), float(nats_T[word_T].sum()), int(word_T.sum()))


def _codes(family: Monologue, audio_N: np.ndarray, rate: int, codebooks: int) -> Tensor:
    """Codes [K, T] of a whole channel, its end filled up with silence."""
    config = family.mimi.config
    audio_N = resample(audio_N, rate, config.sample_rate)
    audio_1N = torch.from_numpy(np.pad(audio_N, (0, -len(audio_N) % config.frame_samples)))[None].to(_device(family))
    live_B = torch.ones(1, dtype=torch.bool, device=audio_1N.device)
    with torch.inference_mode():
        state = family.mimi.init_state(1).encoder
        return family.mimi.encode(audio_1N, state, live_B, num_codebooks=codebooks)[0].cpu()


def _device(family: Monologue) -> torch.device:
    return cast(torch.device, next(family.model.parameters()).device)


def perplexity(found: Sequence[Scored], *, words: bool = False) -> float:
    """Over all frames, or over those with words."""
    nats = sum(each.word_nats if words else each.nats for each in found)
    return math.exp(nats / max(1, sum(each.words if words else each.frames for each in found)))
