"""Causal 1-D convolutions: the same numbers whole or in pieces.

`CausalConv1d` takes channels first and is torch's own convolution. `StepConv1d` and `StepConvTranspose1d` take channels
last and are one matrix product over windows of steps: for the few steps that a stream brings at a time that is many
times faster on a CPU, where torch would rearrange all weights at each call.

Source: SEANet blocks as streamed in Mimi (Defossez et al. 2024, arXiv:2410.00037).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

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
        self.stride, self.tail = stride, _tail("CausalConv1d", kernel, stride, dilation)
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
        _whole_strides("CausalConv1d", x_BCT.shape[-1], self.stride)
        x_BCT = torch.cat([state.tail_BCT.to(x_BCT.dtype), x_BCT], dim=-1)
        write(state.tail_BCT, x_BCT[..., x_BCT.shape[-1] - self.tail :], live_B)
        return self.conv(x_BCT)


@dataclass
class StepConvState(State):
    tail_BTC: Tensor  # the last (kernel - 1) * dilation + 1 - stride inputs


class StepConv1d(nn.Module):
    """`CausalConv1d` over [B, T, C]. Its weight is [out, kernel * in], the taps of a window one after the other."""

    def __init__(
        self, channels_in: int, channels_out: int, *, kernel: int, stride: int = 1, dilation: int = 1, bias: bool = True
    ):
        super().__init__()
        self.kernel, self.stride, self.dilation = kernel, stride, dilation
        self.tail = _tail("StepConv1d", kernel, stride, dilation)
        self.channels_in = channels_in
        self.taps = nn.Linear(kernel * channels_in, channels_out, bias=bias)

    def init_state(self, slots: int) -> StepConvState:
        return StepConvState(_like(self).new_zeros(slots, self.tail, self.channels_in))

    def forward(self, x_BTC: Tensor, state: StepConvState, live_B: Tensor) -> Tensor:
        """Convolves the next chunk of each stream and keeps its tail in `state`, live slots only.

        Returns:
            y_BTC, T / stride steps long. Rows of slots that are not live mean nothing.
        Raises:
            ShapeError: T is not a positive multiple of the stride.
        """
        B, T, C = x_BTC.shape
        _whole_strides("StepConv1d", T, self.stride)
        if self.tail:
            x_BTC = torch.cat([state.tail_BTC.to(x_BTC.dtype), x_BTC], dim=1)
            write(state.tail_BTC, x_BTC[:, -self.tail :], live_B)
        row, step, one = x_BTC.contiguous().stride()
        windows = x_BTC.contiguous().as_strided(
            (B, T // self.stride, self.kernel, C), (row, step * self.stride, step * self.dilation, one)
        )
        return self.taps(windows.flatten(2))


@dataclass
class OverlapState(State):
    rest_BTC: Tensor  # what the last input adds to the next `stride` outputs


class StepConvTranspose1d(nn.Module):
    """A transposed convolution over [B, T, C] with a kernel of twice the stride: every input reaches two blocks of
    `stride` outputs, its own and the next one. Its weight is [2 * stride * out, in]; [2 * stride, out] if channelwise.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, stride: int, bias: bool = True, channelwise: bool = False
    ):
        super().__init__()
        if channelwise and channels_in != channels_out:
            raise ConfigError(
                f"StepConvTranspose1d: channelwise needs as many channels out as in, got {channels_in}, {channels_out}"
            )
        self.stride, self.channels_out = stride, channels_out
        self.taps = nn.Identity() if channelwise else nn.Linear(channels_in, 2 * stride * channels_out, bias=False)
        self.scales = nn.Parameter(torch.empty(2 * stride, channels_out).uniform_(-0.5, 0.5)) if channelwise else None
        self.bias = nn.Parameter(torch.zeros(channels_out)) if bias else None

    def init_state(self, slots: int) -> OverlapState:
        return OverlapState(_like(self).new_zeros(slots, self.stride, self.channels_out))

    def forward(self, x_BTC: Tensor, state: OverlapState, live_B: Tensor) -> Tensor:
        """Spreads the next steps of each stream and keeps in `state` what reaches beyond them, live slots only.

        Returns:
            y_BTC, T * stride steps long. Rows of slots that are not live mean nothing.
        """
        B, T, _ = x_BTC.shape
        if T == 0:
            raise ShapeError("StepConvTranspose1d: need at least one step, got none")
        spread = self.taps(x_BTC) if self.scales is None else x_BTC[:, :, None] * self.scales
        own, rest = spread.view(B, T, 2, self.stride, self.channels_out).unbind(2)
        before = torch.cat([state.rest_BTC[:, None].to(rest.dtype), rest[:, :-1]], dim=1)
        write(state.rest_BTC, rest[:, -1], live_B)
        y_BTC = (own + before).view(B, T * self.stride, self.channels_out)
        return y_BTC if self.bias is None else y_BTC + self.bias


def _like(module: nn.Module) -> Tensor:
    """A tensor of the device and type that a module's states need, also where its weights are int8 or packed."""
    held = (tensor for tensor in chain(module.parameters(), module.buffers()) if tensor.is_floating_point())
    return next(held, torch.empty(0))  # packed weights show no tensor: they are on the CPU


def _tail(name: str, kernel: int, stride: int, dilation: int) -> int:
    """Inputs to keep for the next chunk."""
    tail = (kernel - 1) * dilation + 1 - stride
    if tail < 0:
        raise ConfigError(f"{name}: a kernel that spans {tail + stride} steps skips some at {stride=}")
    return tail


def _whole_strides(name: str, steps: int, stride: int) -> None:
    if steps == 0 or steps % stride:
        raise ShapeError(
            f"{name}: need a positive multiple of {stride} steps, got {steps}. "
            "Cut the audio into whole frames first (audio.frames.Framer)."
        )
