"""Causal 1-D convolution: the same numbers whole or in pieces.

Source: SEANet blocks as streamed in Mimi (Defossez et al. 2024, arXiv:2410.00037).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from duologue.errors import ConfigError, ShapeError
from duologue.streaming.state import State, write


@dataclass
class ConvState(State):
    tail_BCT: Tensor  # the last (kernel - 1) * dilation + 1 - stride inputs


class CausalConv1d(nn.Module):
    """A convolution that looks back only: output t sees the inputs up to t * stride + stride - 1."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        super().__init__()
        self.stride, self.tail = stride, (kernel - 1) * dilation + 1 - stride
        if self.tail < 0:
            raise ConfigError(f"CausalConv1d: a kernel that spans {self.tail + stride} steps skips some at {stride=}")
        self.conv = nn.Conv1d(channels_in, channels_out, kernel, stride, dilation=dilation, groups=groups, bias=bias)

    def init_state(self, slots: int) -> ConvState:
        return ConvState(self.conv.weight.new_zeros(slots, self.conv.in_channels, self.tail))

    def forward(self, x_BCT: Tensor, state: ConvState, live_B: Tensor) -> Tensor:
        """Convolves the next chunk of each stream and keeps its tail in `state`, live slots only.

        Returns:
            y_BCT, T / stride steps long. Rows of slots that are not live mean nothing.
        Raises:
            ShapeError: T is not a positive multiple of the stride.
        """
        steps = x_BCT.shape[-1]
        if steps == 0 or steps % self.stride:
            raise ShapeError(
                f"CausalConv1d: need a positive multiple of {self.stride} steps, got {steps}. "
                "Cut the audio into whole frames first (audio.frames.Framer)."
            )
        x_BCT = torch.cat([state.tail_BCT.to(x_BCT.dtype), x_BCT], dim=-1)
        write(state.tail_BCT, x_BCT[..., x_BCT.shape[-1] - self.tail :], live_B)
        return self.conv(x_BCT)
