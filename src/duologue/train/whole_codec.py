"""Mimi over whole stretches for training: the streaming codec's numbers from a stream's beginning, by torch's own
convolutions, which have the faster gradients on a CPU (docs/training.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from duologue.codecs.mimi import MimiDecoder, MimiEncoder
from duologue.codecs.seanet import ResidualUnit, Seanet
from duologue.nn.conv import StepConv1d, StepConvTranspose1d


def encode_whole(encoder: MimiEncoder, audio_BN: Tensor) -> Tensor:
    """What the quantiser gets of whole frames of audio, [B, T, D]."""
    state, live_B = encoder.init_state(len(audio_BN)), _live(audio_BN)
    x_BTD = seanet_whole(encoder.seanet, audio_BN[..., None])
    with torch.autocast(x_BTD.device.type, enabled=False):
        x_BTD = encoder.transformer(x_BTD.float(), state.transformer, live_B)
        return encoder.downsample(x_BTD, state.downsample, live_B)


def steps_whole(decoder: MimiDecoder, x_BTD: Tensor) -> Tensor:
    """What the decoder's transformer makes of what the quantiser gave: its own steps, [B, T * resample, D]."""
    state, live_B = decoder.init_state(len(x_BTD)), _live(x_BTD)
    with torch.autocast(x_BTD.device.type, enabled=False):
        x_BTD = decoder.upsample(x_BTD.float(), state.upsample, live_B)
        return decoder.transformer(x_BTD, state.transformer, live_B)


def sound_whole(decoder: MimiDecoder, steps_BTD: Tensor) -> Tensor:
    """Audio [B, N] of those steps."""
    return seanet_whole(decoder.seanet, steps_BTD)[..., 0].float()


def seanet_whole(seanet: Seanet, x_BTC: Tensor) -> Tensor:
    """`Seanet.forward` of a stream's beginning. Images of one row whose channels lie last in memory: of all of torch's
    convolutions those have the fastest gradients on a CPU."""
    x_BC1T = x_BTC.transpose(1, 2)[:, :, None].contiguous(memory_format=torch.channels_last)
    for number, layer in enumerate(seanet.layers):
        if isinstance(layer, ResidualUnit):
            inner_BC1T = F.elu(_convolve(layer.conv, F.elu(x_BC1T)))
            x_BC1T = x_BC1T + F.conv2d(inner_BC1T, layer.out.weight[..., None, None], layer.out.bias)
            continue
        x_BC1T = F.elu(x_BC1T) if number else x_BC1T
        if isinstance(layer, StepConvTranspose1d):
            x_BC1T = _spread(layer, x_BC1T)
        elif isinstance(layer, StepConv1d):
            x_BC1T = _convolve(layer, x_BC1T)
    return x_BC1T[:, :, 0].transpose(1, 2)


def _convolve(layer: StepConv1d, x_BC1T: Tensor) -> Tensor:
    weight = layer.taps.weight.unflatten(1, (layer.kernel, layer.channels_in)).transpose(1, 2)[:, :, None]
    x_BC1T = F.pad(x_BC1T, (layer.tail, 0))
    return F.conv2d(x_BC1T, weight, layer.taps.bias, (1, layer.stride), dilation=(1, layer.dilation))


def _spread(layer: StepConvTranspose1d, x_BC1T: Tensor) -> Tensor:
    weight = layer.taps.weight.unflatten(0, (2 * layer.stride, layer.channels_out)).permute(2, 1, 0)[:, :, None]  # type: ignore[union-attr,operator]
    y_BC1T = F.conv_transpose2d(x_BC1T, weight, layer.bias, (1, layer.stride))
    return y_BC1T[..., : x_BC1T.shape[-1] * layer.stride]


def _live(x: Tensor) -> Tensor:
    return torch.ones(len(x), dtype=torch.bool, device=x.device)
