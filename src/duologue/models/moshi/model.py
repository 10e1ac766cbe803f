"""Moshi's language model: many streams of tokens in, the next tokens of its own streams out.

Source: Defossez et al. 2024, arXiv:2410.00037.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from duologue.errors import ShapeError
from duologue.models.moshi.conditions import Conditions
from duologue.models.moshi.config import ZERO, MoshiConfig
from duologue.models.moshi.depth import DepthTransformer
from duologue.models.moshi.embeddings import SummedEmbedding, TokenEmbedding
from duologue.nn.ring import RingCache
from duologue.nn.window_transformer import WindowTransformer, make_norm

PASSES = 8  # over whole rows, until what is heard is written down


@dataclass(frozen=True)
class Scores:
    """Scores of known tokens, each at its token's place; where `mask` is False they mean nothing."""

    text_BTV: Tensor
    text_mask_BT: Tensor
    audio_BKTV: Tensor  # of the codebooks that the depth transformer can say
    audio_mask_BKT: Tensor


class MoshiModel(nn.Module):
    """The weights, and one call over whole conversations. `generation.MoshiGenerator` is the step by step use."""

    def __init__(self, config: MoshiConfig):
        super().__init__()
        c, t = config, config.temporal
        self.config = config
        self.text_embedding = TokenEmbedding(c.text_vocab + 1, t.dim, second_stream=c.second_text_stream)
        self.audio_embedding = SummedEmbedding(c.codebooks, c.codebook_size + 1, t.dim)
        self.conditions = Conditions(c.conditions, t.dim) if c.conditions else None
        self.transformer = WindowTransformer(t)
        self.norm = make_norm(t.norm, t.dim, t.norm_eps)
        self.text_head = nn.Linear(t.dim, c.text_outputs, bias=c.head_bias)
        self.extra_heads = nn.ModuleList(nn.Linear(t.dim, c.extra_head_dim, bias=False) for _ in range(c.extra_heads))
        self.hear = None if c.hear_delay is None else nn.Linear(t.dim, t.dim, bias=False)
        self.reread = None if c.hear_delay is None else nn.Linear(t.dim, t.dim, bias=False)
        self.depth = None if c.depth is None else DepthTransformer(c)

    def initial(self, device: torch.device) -> Tensor:
        """What each stream holds before its first token, [K]."""
        c = self.config
        return torch.tensor([c.text_vocab] + [c.codebook_size] * c.codebooks, device=device)

    def embed(self, codes_BTK: Tensor) -> Tensor:
        """The sum of all streams at each step, [B, T, D].

        Args:
            codes_BTK: with a head for what is heard there may be one more, the piece that it wrote a step ago.
        """
        codebooks, written_BT = self.config.codebooks, codes_BTK[..., 1 + self.config.codebooks :]
        x_BTD = self.text_embedding(codes_BTK[..., 0]) + self.audio_embedding(codes_BTK[..., 1 : 1 + codebooks])
        if self.reread is None or not written_BT.shape[-1]:
            return x_BTD
        return x_BTD + self.reread(self.text_embedding(written_BT[..., 0]))

    def hidden(
        self, codes_BTK: Tensor, state: RingCache, live_B: Tensor, conditions_BN: Tensor | None = None
    ) -> Tensor:
        """The temporal transformer's output after the next steps of tokens, delays applied, [B, T, D].

        Args:
            conditions_BN: see `Conditions.ids`; None: no condition.
        """
        x_BTD = self.embed(codes_BTK)
        if self.conditions is not None:
            if conditions_BN is None:
                conditions_BN = self.conditions.none(len(x_BTD), x_BTD.device)
            x_BTD = x_BTD + self.conditions(conditions_BN)[:, None].to(x_BTD.dtype)
        return self.norm(self.transformer(x_BTD, state, live_B))

    def delayed(self, codes_BKT: Tensor) -> Tensor:
        """Moves every stream back by its delay, with its initial token before, and one more in front, [B, T + 1, K]."""
        B, _, T = codes_BKT.shape
        out_BTK = self.initial(codes_BKT.device).repeat(B, T + 1, 1)
        for stream, delay in enumerate(self.config.delays):
            out_BTK[:, 1 + delay :, stream] = codes_BKT[:, stream, : max(T - delay, 0)]
        return out_BTK

    def forward(self, codes_BKT: Tensor, conditions_BN: Tensor | None = None) -> Scores:
        """Scores of all tokens of conversations that are known.

        Args:
            codes_BKT: text, own and heard streams, not delayed; ZERO where there is nothing.
            conditions_BN: see `Conditions.ids`; None: no condition.
        Raises:
            ShapeError: another number of streams.
        """
        c, (B, streams, T) = self.config, codes_BKT.shape
        if streams != 1 + c.codebooks:
            raise ShapeError(f"MoshiModel: need {1 + c.codebooks} streams, text first, got {streams}")
        delayed_BTK = self.delayed(codes_BKT)
        state = self.transformer.init_state(B, steps=T)
        live_B = torch.ones(B, dtype=torch.bool, device=codes_BKT.device)
        input_BTK = delayed_BTK[:, :-1]
        if self.hear is not None:
            input_BTK = with_written(input_BTK, self.write(input_BTK, conditions_BN))
        z_BTD = self.hidden(input_BTK, state, live_B, conditions_BN)
        text_BTV, text_mask_BT = self._undelayed(self.text_head(z_BTD), codes_BKT, 0)
        audio_BTKV = self.score_frames(z_BTD, delayed_BTK[:, 1:])
        placed = [self._undelayed(audio_BTKV[:, :, k], codes_BKT, 1 + k) for k in range(c.depth_steps)]
        if not placed:
            return Scores(text_BTV, text_mask_BT, audio_BTKV.transpose(1, 2), text_mask_BT[:, None][:, :0])
        return Scores(text_BTV, text_mask_BT, *(torch.stack(each, 1) for each in zip(*placed, strict=True)))

    def score_heard(self, z_BTD: Tensor) -> Tensor:
        """Scores of the pieces of what the other side says, `hear_delay` frames after its words begin."""
        assert self.hear is not None
        return self.text_head(self.hear(z_BTD))

    def pieces(self, scores_BTV: Tensor) -> Tensor:
        """What is written of such scores: the best piece; ZERO where it is a padding."""
        c, best_BT = self.config, scores_BTV.argmax(-1)
        return torch.where((best_BT == c.padding_id) | (best_BT == c.end_padding_id), ZERO, best_BT)

    @torch.no_grad()
    def write(self, input_BTK: Tensor, conditions_BN: Tensor | None = None) -> Tensor:
        """What is heard in whole rows, [B, T], as it would be written step by step.

        All steps are run at once, again and again, until what they write is what they have read, which takes two or
        three times where the head is sure of itself; `PASSES` times at most.
        """
        B, T, _ = input_BTK.shape
        live_B = torch.ones(B, dtype=torch.bool, device=input_BTK.device)
        written_BT = torch.full((B, T), ZERO, device=input_BTK.device)
        for _ in range(PASSES):
            state, before_BT = self.transformer.init_state(B, steps=T), written_BT
            z_BTD = self.hidden(with_written(input_BTK, written_BT), state, live_B, conditions_BN)
            written_BT = self.pieces(self.score_heard(z_BTD))
            if torch.equal(written_BT, before_BT):
                break
        return written_BT

    def score_frames(self, z_BTD: Tensor, tokens_BTK: Tensor) -> Tensor:
        """The depth transformer's scores of the tokens that follow each step, delays applied, [B, T, steps, V]."""
        B, T, _ = z_BTD.shape
        if self.depth is None:
            return z_BTD.new_zeros(B, T, 0, self.config.codebook_size)
        tokens_NS = tokens_BTK[:, :, : self.config.depth_steps].flatten(0, 1)
        return self.depth(z_BTD.flatten(0, 1), tokens_NS).unflatten(0, (B, T))

    def _undelayed(self, scores_BTV: Tensor, codes_BKT: Tensor, stream: int) -> tuple[Tensor, Tensor]:
        """Takes a stream's delay back, and says where there are scores of a token."""
        delay, known_BT = self.config.delays[stream], codes_BKT[:, stream] != ZERO
        scores_BTV = torch.cat([scores_BTV[:, delay:], scores_BTV.new_zeros(scores_BTV[:, :delay].shape)], 1)
        known_BT[:, max(known_BT.shape[1] - delay, 0) :] = False
        return scores_BTV, known_BT


def with_written(input_BTK: Tensor, written_BT: Tensor) -> Tensor:
    """The inputs of steps, each with the piece that was written in the one before, [B, T, K + 1]."""
    before_BT = torch.cat([torch.full_like(written_BT[:, :1], ZERO), written_BT[:, :-1]], 1)
    return torch.cat([input_BTK, before_BT[..., None]], -1)
