"""Losses of a Moshi over whole rows whose tokens are known, and the measures that its training is watched by.

Text: cross-entropy, frames of padding counting less. Sound: cross-entropy of each codebook through the depth
transformer, the first of a side counting more, over the sum of what they count. Both are added up. Source: Defossez et
al. 2024, arXiv:2410.00037, section 3.4; the weight of padding as in section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from duologue.errors import ConfigError
from duologue.models.moshi.config import MoshiConfig
from duologue.models.moshi.model import MoshiModel, with_written
from duologue.nn.ring import RingCache
from duologue.nn.window_transformer import WindowConfig

LEAD = 12  # frames of silence before what counts as the beginning of speech, and in which it may be begun: 0.96 s


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """What counts how much."""

    semantic: float = 100.0  # of a side's first codebook, where another one counts 1
    padding: float = 0.5  # of a frame in which no word is written, where another one counts 1
    user: float = 1.0  # times that of what the user says, where the depth transformer has steps for it
    heard: float = 1.0  # of what the user says, written down, where the model has a head for it
    text: float = 1.0  # of all text of conversations, beside their sound
    reading: float = 1.0  # of text without sound

    def __post_init__(self):
        if min(self.semantic, self.padding, self.user, self.heard, self.text, self.reading) < 0:
            raise ConfigError(f"LossWeights: need numbers from 0, got {self}")

    def of_codebooks(self, config: MoshiConfig, like: Tensor) -> Tensor:
        """The weight of each step of the depth transformer, [K]."""
        own = [self.semantic] + [1.0] * (config.own_codebooks - 1)
        user = [self.user * self.semantic] + [self.user] * (config.heard_codebooks - 1)
        return like.new_tensor((own + user)[: config.depth_steps])


@dataclass(frozen=True)
class Told:
    """Cross-entropies of known tokens, each at the step that says it (delays applied)."""

    text_BT: Tensor  # 0 where unknown
    text_known_BT: Tensor
    word_BT: Tensor  # known, and no padding
    silent_BT: Tensor  # log-probability of the padding token, where asked for; else empty
    heard_N: Tensor  # of the pieces of what is heard, in some order
    heard_word_N: Tensor  # no padding
    audio_NK: Tensor  # of N frames; 0 where unknown
    audio_known_NK: Tensor
    right_NK: Tensor  # the best code is the known one


def tell(
    model: MoshiModel,
    codes_BKT: Tensor,
    heard_BT: Tensor | None = None,
    written_BT: Tensor | None = None,
    given_BKT: Tensor | None = None,
    *,
    share: float = 1.0,
    still: float = 1.0,
    hazards: bool = False,
) -> Told:
    """Runs a model over rows.

    Args:
        codes_BKT: as `MoshiModel.forward`.
        heard_BT: the pieces of what is heard (`duplex_data.Rows.heard_words`); None: they are not known.
        written_BT: what a model with a head for them has written of them; None: what it does write.
        given_BKT: what the next steps are told it was, as `codes_BKT`; None: the truth.
        share: of the frames with sound, drawn with torch's generator, that go through the depth transformer.
        still: of those of them whose codes are the same as in the frame before.
        hazards: also give `silent_BT`.
    """
    c, (B, _, T) = model.config, codes_BKT.shape
    delayed_BTK = model.delayed(codes_BKT)
    state = _memory(c.temporal, B, T, codes_BKT.device)
    input_BTK = (delayed_BTK if given_BKT is None else model.delayed(given_BKT))[:, :-1]
    if model.hear is not None:
        input_BTK = with_written(input_BTK, model.write(input_BTK) if written_BT is None else written_BT)
    z_BTD = model.hidden(input_BTK, state, torch.ones(B, dtype=torch.bool, device=codes_BKT.device))
    target_BTK = delayed_BTK[:, 1:]
    text_BT = target_BTK[..., 0]
    known_BT = (text_BT >= 0) & (text_BT < c.text_outputs)
    silent_BT = z_BTD.new_zeros(0)
    if hazards:
        scores_BTV = model.text_head(z_BTD).float()
        silent_BT = scores_BTV[..., c.padding_id] - scores_BTV.logsumexp(-1)
        scores_NV = scores_BTV[known_BT]
    else:
        scores_NV = model.text_head(z_BTD[known_BT]).float()
    ce_N = F.cross_entropy(scores_NV, text_BT[known_BT], reduction="none")
    padding_BT = (text_BT == c.padding_id) | (text_BT == c.end_padding_id)
    heard_N, heard_word_N = _heard(model, z_BTD, heard_BT)
    audio_NK, audio_known_NK, right_NK = _sound(model, z_BTD, target_BTK, share, still)
    return Told(
        text_BT=ce_N.new_zeros(B, T).masked_scatter(known_BT, ce_N),
        text_known_BT=known_BT,
        word_BT=known_BT & ~padding_BT,
        silent_BT=silent_BT,
        heard_N=heard_N,
        heard_word_N=heard_word_N,
        audio_NK=audio_NK,
        audio_known_NK=audio_known_NK,
        right_NK=right_NK,
    )


def _memory(config: WindowConfig, rows: int, steps: int, device: torch.device) -> RingCache:
    """As `WindowTransformer.init_state`, of plain tensors where the weights are spread over processes."""
    c, like = config, torch.zeros(0, device=device)
    capacity = min(c.context + c.chunk - 1, steps)
    return RingCache.make(
        rows, layers=c.layers, kv_heads=c.key_heads, capacity=capacity, head_dim=c.head_dim, like=like
    )


def _heard(model: MoshiModel, z_BTD: Tensor, heard_BT: Tensor | None) -> tuple[Tensor, Tensor]:
    if model.hear is None or heard_BT is None:
        none = z_BTD.new_zeros(0)
        return none, none.bool()
    known_BT, paddings = heard_BT >= 0, (model.config.padding_id, model.config.end_padding_id)
    heard_N = heard_BT[known_BT]
    ce_N = F.cross_entropy(model.score_heard(z_BTD[known_BT]).float(), heard_N, reduction="none")
    return ce_N, ~torch.isin(heard_N, heard_N.new_tensor(paddings))


def _sound(
    model: MoshiModel, z_BTD: Tensor, target_BTK: Tensor, share: float, still: float
) -> tuple[Tensor, Tensor, Tensor]:
    steps = model.config.depth_steps
    if model.depth is None:
        none = z_BTD.new_zeros(0, 0)
        return none, none.bool(), none.bool()
    codes_MK = target_BTK[..., 1 : 1 + steps].flatten(0, 1)
    known_MK = (codes_MK >= 0) & (codes_MK < model.config.codebook_size)
    place_N = known_MK.any(1).nonzero()[:, 0]
    if still < 1:
        own_BTK = target_BTK[..., 1 : 1 + steps]
        same_BT = F.pad((own_BTK[:, 1:] == own_BTK[:, :-1]).all(-1), (1, 0))
        same_N = same_BT.flatten()[place_N]
        place_N = place_N[~same_N | (torch.rand(len(place_N)).to(same_N.device) < still)]
    if share < 1:
        place_N = place_N[torch.randperm(len(place_N))[: math.ceil(share * len(place_N))].to(place_N.device)]
    if not len(place_N):  # one frame that counts nothing: every process must pass here, with FSDP
        place_N = place_N.new_zeros(1)
    codes_NK, known_NK = codes_MK[place_N], known_MK[place_N]
    tokens_NS = target_BTK[..., :steps].flatten(0, 1)[place_N]
    scores_NKV = model.depth(z_BTD.flatten(0, 1)[place_N], tokens_NS).float()
    codes_N = torch.where(known_NK, codes_NK, 0).flatten()
    ce_NK = F.cross_entropy(scores_NKV.flatten(0, 1), codes_N, reduction="none").unflatten(0, known_NK.shape)
    right_NK = (scores_NKV.argmax(-1) == codes_NK) & known_NK
    return torch.where(known_NK, ce_NK, 0), known_NK, right_NK


def mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted, and 0 where nothing counts."""
    return (values * weights).sum() / weights.sum().clamp_min(1e-6)


def combine(
    told: Told, read_B: Tensor, weights: LossWeights, config: MoshiConfig
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """The loss, and numbers to log.

    Args:
        read_B: rows that are text without sound.
    """
    spoken_BT = told.text_known_BT & ~read_B[:, None]
    weight_BT = spoken_BT * torch.where(told.word_BT, 1.0, weights.padding)
    text = mean(told.text_BT, weight_BT)
    reading = mean(told.text_BT, (told.text_known_BT & read_B[:, None]).float())
    audio = mean(told.audio_NK, told.audio_known_NK * weights.of_codebooks(config, told.audio_NK))
    heard = mean(told.heard_N, torch.where(told.heard_word_N, 1.0, weights.padding))
    numbers: dict[str, float | Tensor] = {
        "text": text.detach(),
        "words": mean(told.text_BT, (told.word_BT & spoken_BT).float()).detach(),
        "reading": reading.detach(),
        "audio": audio.detach(),
    }
    if len(told.heard_N):
        numbers["heard"] = mean(told.heard_N, told.heard_word_N.float()).detach()
    return weights.text * text + weights.heard * heard + weights.reading * reading + audio, numbers


class Measures:
    """What held-out rows sum up to."""

    def __init__(self, config: MoshiConfig):
        self.config = config
        self.sums: dict[str, list[float]] = {}

    def add(self, told: Told, codes_BKT: Tensor) -> None:
        """Takes in some rows; `told` with all frames and with hazards."""
        known_BT, word_BT = told.text_known_BT, told.word_BT
        self._sum("text", told.text_BT, known_BT)
        self._sum("words", told.text_BT, word_BT)
        if len(told.heard_N):
            self._sum("heard", told.heard_N, told.heard_word_N)
        for book in range(told.audio_NK.shape[1]):
            self._sum(f"code_{book + 1}", told.audio_NK[:, book], told.audio_known_NK[:, book])
            self._sum(f"right_{book + 1}", told.right_NK[:, book], told.audio_known_NK[:, book])
        if self.config.delays[0] == 0:
            for row_T, silent_T, ce_T in zip(codes_BKT[:, 0], told.silent_BT, told.text_BT, strict=True):
                self._turns(row_T, silent_T, ce_T)

    def _sum(self, name: str, values: Tensor, where: Tensor) -> None:
        total = self.sums.setdefault(name, [0.0, 0.0])
        total[0] += float(values[where].double().sum())
        total[1] += float(where.sum())

    def _turns(self, text_T: Tensor, silent_T: Tensor, ce_T: Tensor) -> None:
        """Beginnings of speech, and silence that goes on, in one row."""
        silent = (text_T == self.config.padding_id).tolist()
        log_T, run = silent_T.double().tolist(), 0
        for step, quiet in enumerate(silent):
            if not quiet and run >= LEAD and text_T[step] >= 0:
                taken = 1 - math.exp(sum(log_T[step - LEAD + 1 : step + 1]))
                self._count("taken", taken, 1.0)
                place = step + int(text_T[step] == self.config.end_padding_id)
                if place < len(silent) and not silent[place]:
                    self._count("first", float(ce_T[place]), 1.0)
            run = run + 1 if quiet else 0
            if run and all(silent[step : step + LEAD]) and step + LEAD <= len(silent):
                self._count("false_starts", 1 - math.exp(log_T[step]), 1.0)

    def _count(self, name: str, value: float, weight: float) -> None:
        total = self.sums.setdefault(name, [0.0, 0.0])
        total[0], total[1] = total[0] + value, total[1] + weight

    def result(self, frame_rate: float) -> dict[str, float]:
        """Means by name.

        text, words: cross-entropy with padding and without; perplexity: of words; heard: cross-entropy of the words
        that are heard; first: of the first piece after `LEAD` frames of silence, which says what is answered. code_k,
        right_k: cross-entropy and accuracy of each codebook. taken: how likely the model would have begun to speak by
        the frame in which the assistant did, within `LEAD` frames; false_starts: how often a minute it would begin
        where silence goes on.
        """
        found = {name: total / max(count, 1e-9) for name, (total, count) in self.sums.items()}
        if "words" in found:
            found["perplexity"] = math.exp(min(found["words"], 20.0))
        if "false_starts" in found:
            found["false_starts"] *= 60 * frame_rate
        return found
