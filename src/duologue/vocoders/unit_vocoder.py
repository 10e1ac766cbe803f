"""Unit HiFi-GAN with duration prediction: discrete speech units to a waveform.

Sources: HiFi-GAN (Kong et al. 2020, arXiv:2010.05646), its unit-driven form (Polyak et al. 2021, arXiv:2104.00355), the
duration predictor (Lee et al. 2021, arXiv:2107.05604; FastSpeech 2's variance predictor).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.errors import ConfigError, PartError
from duologue.vocoders.chunking import ChunkState, Reach, init_chunks, vocode

SLOPE = 0.1  # of the leaky rectifiers; the last one has torch's default, 0.01, in every released HiFi-GAN
OUTER_KERNEL = 7  # of the first and the last convolution


@dataclass(frozen=True, kw_only=True)
class CodeGeneratorConfig:
    """Shape of a unit HiFi-GAN. Defaults: mHuBERT's 1000 units at 50 Hz, the vocoder that LLaMA-Omni uses."""

    sample_rate: int = 16_000  # Hz
    num_units: int = 1000
    embedding_dim: int = 128
    initial_channels: int = 512  # halved by every upsampling stage
    upsample_rates: tuple[int, ...] = (5, 4, 4, 2, 2)
    upsample_kernels: tuple[int, ...] = (11, 8, 8, 4, 4)
    block_kernels: tuple[int, ...] = (3, 7, 11)
    block_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    duration_dim: int = 128
    duration_kernel: int = 3

    def __post_init__(self):
        rates, kernels = self.upsample_rates, self.upsample_kernels
        if len(rates) != len(kernels) or any(k < r or (k - r) % 2 for r, k in zip(rates, kernels, strict=True)):
            raise ConfigError(f"upsample_kernels must exceed their rates by an even number, got {kernels}, {rates}")
        if len(self.block_kernels) != len(self.block_dilations):
            raise ConfigError(f"need a tuple of dilations for each of block_kernels {self.block_kernels}")
        if any(kernel % 2 == 0 for kernel in (*self.block_kernels, self.duration_kernel)):
            raise ConfigError(f"block_kernels and duration_kernel must be odd, got {self}")
        if self.initial_channels % 2 ** len(rates):
            raise ConfigError(f"initial_channels must be halved {len(rates)} times, got {self.initial_channels}")

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return math.prod(self.upsample_rates)


def _same(channels_in: int, channels_out: int, kernel: int, dilation: int = 1) -> nn.Conv1d:
    """A convolution centred on its output."""
    return nn.Conv1d(channels_in, channels_out, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)


class ResidualBlock(nn.Module):
    """Dilated convolutions, each followed by a plain one and added to its input."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]):
        super().__init__()
        self.convs1 = nn.ModuleList(_same(channels, channels, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_same(channels, channels, kernel) for _ in dilations)

    def forward(self, x_BCT: Tensor) -> Tensor:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x_BCT = x_BCT + plain(F.leaky_relu(dilated(F.leaky_relu(x_BCT, SLOPE)), SLOPE))
        return x_BCT


class Fusion(nn.Module):
    """The mean of residual blocks that look differently far."""

    def __init__(self, channels: int, kernels: tuple[int, ...], dilations: tuple[tuple[int, ...], ...]):
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(channels, k, d) for k, d in zip(kernels, dilations, strict=True))

    def forward(self, x_BCT: Tensor) -> Tensor:
        total_BCT = torch.zeros_like(x_BCT)
        for block in self.blocks:
            total_BCT = total_BCT + block(x_BCT)
        return total_BCT / len(self.blocks)


class DurationPredictor(nn.Module):
    """Log of (frames + 1) for every unit, from the units around it."""

    def __init__(self, dim: int, hidden_dim: int, kernel: int):
        super().__init__()
        self.conv1, self.conv2 = _same(dim, hidden_dim, kernel), _same(hidden_dim, hidden_dim, kernel)
        self.norm1, self.norm2 = nn.LayerNorm(hidden_dim), nn.LayerNorm(hidden_dim)
        self.out = nn.Linear(hidden_dim, 1)

    def forward(self, x_BTD: Tensor) -> Tensor:
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            x_BTD = norm(F.relu(conv(x_BTD.transpose(1, 2))).transpose(1, 2))
        return self.out(x_BTD)[..., 0]


class CodeGenerator(nn.Module):
    """The vocoder (`vocoders.protocol.Vocoder`). Weights are plain: a checkpoint's weight norm is folded at load.

    Args:
        lookahead: frames held back until they are settled. None: all that the network can see, so that chunks equal the
            whole; fewer give the sound earlier, with small differences at the seams.
        independent: LLaMA-Omni's published algorithm: every call's units on their own.
    """

    def __init__(self, config: CodeGeneratorConfig, *, lookahead: int | None = None, independent: bool = False):
        super().__init__()
        if lookahead is not None and lookahead < 0:
            raise ConfigError(f"lookahead must be 0 frames or more, got {lookahead}")
        self.config, self.independent = config, independent
        c, stages = config, len(config.upsample_rates)
        self.sample_rate, self.num_units, self.hop = c.sample_rate, c.num_units, c.hop
        widths = [c.initial_channels >> stage for stage in range(stages + 1)]
        self.embedding = nn.Embedding(c.num_units, c.embedding_dim)
        self.duration = DurationPredictor(c.embedding_dim, c.duration_dim, c.duration_kernel)
        self.conv_pre = _same(c.embedding_dim, widths[0], OUTER_KERNEL)
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(widths[i], widths[i + 1], kernel, rate, padding=(kernel - rate) // 2)
            for i, (rate, kernel) in enumerate(zip(c.upsample_rates, c.upsample_kernels, strict=True))
        )
        self.fusions = nn.ModuleList(Fusion(width, c.block_kernels, c.block_dilations) for width in widths[1:])
        self.conv_post = _same(widths[-1], 1, OUTER_KERNEL)
        before, after = self._visible_frames()
        after = after if lookahead is None else min(lookahead, after)
        self.reach = Reach(before=before, after=after, neighbours=c.duration_kernel - 1)

    def _visible_frames(self) -> tuple[int, int]:
        """Frames before and after a frame that its samples depend on: its sample span traced back to the input."""
        c, outer = self.config, OUTER_KERNEL // 2
        side = max(
            sum((dilation + 1) * (kernel - 1) // 2 for dilation in dilations)
            for kernel, dilations in zip(c.block_kernels, c.block_dilations, strict=True)
        )
        first, last = -outer, self.hop - 1 + outer
        for rate, kernel in zip(reversed(c.upsample_rates), reversed(c.upsample_kernels), strict=True):
            padding = (kernel - rate) // 2
            first, last = first - side, last + side
            first, last = -((kernel - 1 - padding - first) // rate), (last + padding) // rate
        return outer - first, last + outer

    def log_durations(self, units_BT: Tensor) -> Tensor:
        """Natural log of (frames + 1) of each unit, [B, T]."""
        return self.duration(self.embedding(units_BT))

    def waveform(self, units_BT: Tensor) -> Tensor:
        """Audio [B, T * hop] in [-1, 1] of units that last one frame each (already repeated)."""
        x_BCT = self.conv_pre(self.embedding(units_BT).transpose(1, 2))
        for up, fusion in zip(self.ups, self.fusions, strict=True):
            x_BCT = fusion(up(F.leaky_relu(x_BCT, SLOPE)))
        return torch.tanh(self.conv_post(F.leaky_relu(x_BCT)))[:, 0]

    def frames(self, units_T: Tensor, prosody_TP: Tensor | None = None) -> Tensor:
        """Predicted length of each unit of one stream, in frames."""
        return (self.log_durations(units_T[None])[0].exp() - 1).round().long().clamp(min=1)

    def render(self, units_T: Tensor, frames_T: Tensor, prosody_TP: Tensor | None = None) -> Tensor:
        """The waveform of one stream's units, each held for its frames."""
        return self.waveform(units_T.repeat_interleave(frames_T)[None])[0]

    def init_state(self, slots: int) -> ChunkState:
        return init_chunks(self.reach, slots, prosody=0, device=self.embedding.weight.device)

    def forward(
        self,
        units_BT: Tensor,
        counts_B: Tensor,
        state: ChunkState,
        live_B: Tensor,
        final_B: Tensor,
        prosody_BTP: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Vocoder.forward`.

        Raises:
            PartError: prosody was given; this vocoder speaks units alone.
        """
        if prosody_BTP is not None:
            raise PartError("CodeGenerator: takes units alone, got prosody. Use a speech decoder without prosody.")
        return vocode(self, units_BT, counts_B, state, live_B, final_B, independent=self.independent)
