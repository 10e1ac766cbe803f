"""SEANet: the convolutional encoder and decoder of EnCodec and Mimi, causal and streaming, channels last.

Sources: SEANet (Tagliasacchi et al. 2020, arXiv:2009.02095) as in SoundStream (Zeghidour et al. 2021, arXiv:2107.03312)
and Mimi (Defossez et al. 2024, arXiv:2410.00037).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from duologue.errors import ConfigError
from duologue.nn.conv import OverlapState, StepConv1d, StepConvState, StepConvTranspose1d
from duologue.streaming.state import State


@dataclass(frozen=True, kw_only=True)
class SeanetConfig:
    """Shape of both halves. Defaults: Mimi."""

    dim: int = 512  # channels of the features
    filters: int = 64  # channels at the rate of the audio; twice as many after every ratio
    ratios: tuple[int, ...] = (8, 6, 5, 4)  # of the decoder, from the features to the audio
    kernel: int = 7
    last_kernel: int = 3
    residual_kernel: int = 3
    residual_layers: int = 1  # units at each rate
    dilation_base: int = 2  # unit n of a rate is dilated by the base to the power of n
    compress: int = 2  # channels of a unit over those inside

    def __post_init__(self):
        if not self.ratios or min(self.ratios) < 1 or self.filters % self.compress:
            raise ConfigError(f"SeanetConfig: need ratios of 1 or more, and compress must divide filters, got {self}")

    @property
    def hop(self) -> int:
        """Samples of audio in one step of the features."""
        return math.prod(self.ratios)


class ResidualUnit(nn.Module):
    """x + out(elu(conv(elu(x)))), with fewer channels inside."""

    def __init__(self, channels: int, *, hidden: int, kernel: int, dilation: int):
        super().__init__()
        self.conv = StepConv1d(channels, hidden, kernel=kernel, dilation=dilation)
        self.out = nn.Linear(hidden, channels)

    def init_state(self, slots: int) -> StepConvState:
        return self.conv.init_state(slots)

    def forward(self, x_BTC: Tensor, state: StepConvState, live_B: Tensor) -> Tensor:
        return x_BTC + self.out(F.elu(self.conv(F.elu(x_BTC), state, live_B)))


@dataclass
class SeanetState(State):
    layers: list[StepConvState | OverlapState]


class Seanet(nn.Module):
    """Convolutions and residual units one after the other; an ELU before every convolution but the first."""

    def __init__(self, layers: Sequence[StepConv1d | StepConvTranspose1d | ResidualUnit]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def init_state(self, slots: int) -> SeanetState:
        return SeanetState([layer.init_state(slots) for layer in self.layers])  # type: ignore[operator]

    def forward(self, x_BTC: Tensor, state: SeanetState, live_B: Tensor) -> Tensor:
        """Runs the next steps of each stream; rows that are not live mean nothing.

        Raises:
            ShapeError: an encoder got steps that are not a positive multiple of its hop.
        """
        for number, (layer, inner) in enumerate(zip(self.layers, state.layers, strict=True)):
            bare = number == 0 or isinstance(layer, ResidualUnit)
            x_BTC = layer(x_BTC if bare else F.elu(x_BTC), inner, live_B)
        return x_BTC


def seanet_encoder(config: SeanetConfig) -> Seanet:
    """Audio [B, N, 1] to features [B, N / hop, dim]."""
    c, channels = config, config.filters
    layers: list[StepConv1d | ResidualUnit] = [StepConv1d(1, channels, kernel=c.kernel)]
    for ratio in reversed(c.ratios):
        layers += [*_units(c, channels), StepConv1d(channels, 2 * channels, kernel=2 * ratio, stride=ratio)]
        channels *= 2
    return Seanet([*layers, StepConv1d(channels, c.dim, kernel=c.last_kernel)])


def seanet_decoder(config: SeanetConfig) -> Seanet:
    """Features [B, T, dim] to audio [B, T * hop, 1]."""
    c, channels = config, config.filters * 2 ** len(config.ratios)
    layers: list[StepConv1d | StepConvTranspose1d | ResidualUnit] = [StepConv1d(c.dim, channels, kernel=c.kernel)]
    for ratio in c.ratios:
        layers += [StepConvTranspose1d(channels, channels // 2, stride=ratio), *_units(c, channels // 2)]
        channels //= 2
    return Seanet([*layers, StepConv1d(channels, 1, kernel=c.last_kernel)])


def _units(config: SeanetConfig, channels: int) -> list[ResidualUnit]:
    hidden = channels // config.compress
    return [
        ResidualUnit(channels, hidden=hidden, kernel=config.residual_kernel, dilation=config.dilation_base**number)
        for number in range(config.residual_layers)
    ]
