"""The depth transformer: the codebooks of one frame, one after another, with weights of their own for each step.

Its memory is one frame long, so it has no streaming state. Source: Moshi (arXiv:2410.00037), section 3.4.1, after the
RQ-Transformer (Lee et al. 2022, arXiv:2203.01941).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.errors import ShapeError
from duologue.models.moshi.config import DepthConfig, MoshiConfig
from duologue.models.moshi.embeddings import TokenEmbedding
from duologue.nn.attention import attend
from duologue.nn.window_transformer import make_norm

Memory = tuple[Tensor, Tensor, Tensor]
"""Of one layer and one step of a frame: where its key and value go, [N, 2 * key_heads, D]; the keys and the values of
the steps up to it, [N, key_heads, S, D]. All three are views of the same numbers."""


class DepthSet(nn.Module):
    """One set of weights of one layer."""

    def __init__(self, config: DepthConfig, ffn_dim: int):
        super().__init__()
        c = config
        self.qkv = nn.Linear(c.dim, c.dim // c.heads * (c.heads + 2 * c.key_heads), bias=False)
        self.out = nn.Linear(c.dim, c.dim, bias=False)
        self.up = nn.Linear(c.dim, 2 * ffn_dim, bias=False)  # the gate first
        self.down = nn.Linear(ffn_dim, c.dim, bias=False)

    def feed_forward(self, x_NSD: Tensor) -> Tensor:
        gate, up = self.up(x_NSD).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class DepthBlock(nn.Module):
    """Pre-norm attention without positions and gated feed-forward; the norms are the same for all steps."""

    def __init__(self, config: DepthConfig):
        super().__init__()
        c = config
        self.heads, self.key_heads, self.weight_of = c.heads, c.key_heads, c.weight_of
        self.attention_norm = make_norm(c.norm, c.dim, c.norm_eps)
        self.ffn_norm = make_norm(c.norm, c.dim, c.norm_eps)
        self.sets = nn.ModuleList(DepthSet(c, ffn_dim) for ffn_dim in c.ffn_dims)

    def forward(self, x_NSD: Tensor, mask_NSS: Tensor) -> Tensor:
        """Runs all steps of whole frames."""
        sets = [self.sets[which] for which in self.weight_of]
        qkv = per_step([one.qkv for one in sets], self.attention_norm(x_NSD))
        qkv = qkv.unflatten(-1, (self.heads + 2 * self.key_heads, -1)).transpose(1, 2)
        q, k, v = qkv.split([self.heads, self.key_heads, self.key_heads], dim=1)
        x_NSD = x_NSD + per_step([one.out for one in sets], attend(q, k, v, mask_NSS))
        return x_NSD + per_step([one.feed_forward for one in sets], self.ffn_norm(x_NSD))

    def step(self, x_ND: Tensor, step: int, memory: Memory) -> Tensor:
        """Runs one step. A step is made of many small calls, and each costs: so there are as few as can be."""
        one: Any = self.sets[self.weight_of[step]]
        new_NHD, keys_NHSD, values_NHSD = memory
        qkv_NHD = one.qkv(self.attention_norm(x_ND)).view(len(x_ND), self.heads + 2 * self.key_heads, -1)
        new_NHD.copy_(qkv_NHD[:, self.heads :])
        q_NHSD = qkv_NHD[:, : self.heads, None].to(keys_NHSD.dtype)
        mixed_ND = attend(q_NHSD, keys_NHSD, values_NHSD)[:, 0]
        x_ND = x_ND + one.out(mixed_ND.to(x_ND.dtype))
        return x_ND + one.feed_forward(self.ffn_norm(x_ND))


class DepthTransformer(nn.Module):
    """Says the codebooks of a frame, given what the temporal transformer made of all before and the frame's text."""

    def __init__(self, config: MoshiConfig):
        super().__init__()
        assert config.depth is not None
        c = self.config = config.depth
        self.num_inputs = c.sets if c.inputs_per_step else 1
        self.inputs = nn.Linear(config.temporal.dim, self.num_inputs * c.dim, bias=False)
        self.text_embedding = TokenEmbedding(
            config.text_vocab + 1, c.dim, low_rank=c.low_rank, second_stream=config.second_text_stream
        )
        self.embeddings = nn.ModuleList(
            TokenEmbedding(config.codebook_size + 1, c.dim, low_rank=c.low_rank) for _ in range(c.steps - 1)
        )
        self.layers = nn.ModuleList(DepthBlock(c) for _ in range(c.layers))
        self.norms = nn.ModuleList(
            make_norm(c.norm, c.dim, c.head_norm_eps) if c.head_norm else nn.Identity() for _ in range(c.steps)
        )
        self.heads = nn.ModuleList(
            nn.Linear(c.dim, config.codebook_size, bias=config.head_bias) for _ in range(c.steps)
        )

    def forward(self, z_ND: Tensor, tokens_NS: Tensor) -> Tensor:
        """The scores of every step of whole frames whose tokens are known, [N, steps, codebook_size].

        Args:
            z_ND: the temporal transformer's output at each frame.
            tokens_NS: the frame's text, then its codebooks but for the last, whose token nothing depends on.
        Raises:
            ShapeError: another number of tokens.
        """
        c = self.config
        if tokens_NS.shape[1:] != (c.steps,):
            raise ShapeError(f"DepthTransformer: need [N, {c.steps}] tokens, text first, got {tuple(tokens_NS.shape)}")
        inputs = self._inputs(z_ND)
        x_NSD = torch.stack([inputs[step] + self._embed(step, tokens_NS[:, step]) for step in range(c.steps)], 1)
        seen_SS = torch.ones(c.steps, c.steps, dtype=torch.bool, device=z_ND.device).tril()
        for layer in self.layers:
            x_NSD = layer(x_NSD, seen_SS[None])
        return torch.stack([self._score(step, x_NSD[:, step]) for step in range(c.steps)], 1)

    def generate(self, z_ND: Tensor, text_N: Tensor, count: int, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """The first `count` codebooks of one frame, [N, count].

        Args:
            choose: (codebook, scores [N, codebook_size]) -> its tokens, [N].
        """
        c = self.config
        inputs, token_N, said = self._inputs(z_ND), text_N, []
        # As in nn.ring: on a CPU half-precision keys are slow.
        dtype = torch.float32 if z_ND.device.type == "cpu" else z_ND.dtype
        kept = z_ND.new_empty(c.layers, len(z_ND), 2 * c.key_heads, count, c.dim // c.heads, dtype=dtype)
        keys, values = kept.chunk(2, dim=2)
        layers: list[Any] = list(self.layers)
        for step in range(count):
            x_ND, seen = inputs[step] + self._embed(step, token_N), slice(step + 1)
            each = zip(
                kept[..., step, :].unbind(), keys[..., seen, :].unbind(), values[..., seen, :].unbind(), strict=True
            )
            for layer, memory in zip(layers, each, strict=True):
                x_ND = layer.step(x_ND, step, memory)
            token_N = choose(step, self._score(step, x_ND))
            said.append(token_N)
        return torch.stack(said, 1)

    def _inputs(self, z_ND: Tensor) -> list[Tensor]:
        """What each step hears of the temporal transformer, [N, D] each."""
        each = self.inputs(z_ND).chunk(self.num_inputs, dim=-1)
        return [each[which if self.num_inputs > 1 else 0] for which in self.config.weight_of]

    def _embed(self, step: int, token_N: Tensor) -> Tensor:
        return (self.embeddings[step - 1] if step else self.text_embedding)(token_N)

    def _score(self, step: int, x_ND: Tensor) -> Tensor:
        return self.heads[step](self.norms[step](x_ND))


def per_step(layers: Sequence[Any], x_NSD: Tensor) -> Tensor:
    """Each step through its own layer."""
    if len(layers) == 1:
        return layers[0](x_NSD)
    return torch.cat([layer(x_ND1) for layer, x_ND1 in zip(layers, x_NSD.split(1, 1), strict=True)], 1)
