"""Mimi: speech at 12.5 frames a second, each frame a handful of codes, streaming both ways.

Encoder: SEANet, a causal transformer at 25 Hz, a convolution that halves the rate. Decoder: the reverse. Between them a
split residual quantiser. Offline is one chunk from a fresh state.

Source: Defossez et al. 2024, arXiv:2410.00037, section 3.3. Weights: `codecs.mimi_weights`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from duologue.codecs.rvq import QuantizerConfig, SplitQuantizer
from duologue.codecs.seanet import Seanet, SeanetConfig, SeanetState, seanet_decoder, seanet_encoder
from duologue.errors import ConfigError, ShapeError
from duologue.nn.conv import OverlapState, StepConv1d, StepConvState, StepConvTranspose1d
from duologue.nn.packed import can_pack, pack_linears
from duologue.nn.ring import RingCache
from duologue.nn.window_transformer import WindowConfig, WindowTransformer
from duologue.streaming.state import State, slots, write

PIECE = 25  # frames that are worked on at a time where no gradient is wanted: bounds the memory of long audio
HALVE_FROM = 1 << 17  # numbers of a matrix from which bfloat16 pays: smaller ones see many steps at a time


def mimi_transformer() -> WindowConfig:
    """The transformer of either half in the released model: 10 s of context."""
    return WindowConfig(
        dim=512,
        layers=8,
        heads=8,
        ffn_dim=2048,
        ffn="gelu",
        norm="layer",
        norm_eps=1e-5,
        layer_scale=0.01,
        rope_theta=10_000.0,
        context=250,
        chunk=2,
    )


@dataclass(frozen=True, kw_only=True)
class MimiConfig:
    """Shape of the codec. Defaults: the released 12.5 Hz model, with the 8 codebooks that Moshi uses."""

    sample_rate: int = 24_000  # Hz
    frame_rate: float = 12.5  # frames a second
    num_codebooks: int = 8  # how many of the quantiser's are used where a call does not say
    seanet: SeanetConfig = field(default_factory=SeanetConfig)
    transformer: WindowConfig = field(default_factory=mimi_transformer)
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)

    def __post_init__(self):
        q = self.quantizer
        if self.sample_rate % self.frame_rate or self.frame_samples % self.seanet.hop or self.resample < 2:
            raise ConfigError(
                f"MimiConfig: a frame of {self.sample_rate / self.frame_rate} samples must be a multiple, by 2 or "
                f"more, of SEANet's hop of {self.seanet.hop}"
            )
        if not self.seanet.dim == self.transformer.dim == q.dim:
            raise ConfigError(
                f"MimiConfig: need one width for all parts, got seanet.dim {self.seanet.dim}, transformer.dim "
                f"{self.transformer.dim}, quantizer.dim {q.dim}"
            )
        if not q.semantic <= self.num_codebooks <= q.codebooks:
            raise ConfigError(
                f"MimiConfig: num_codebooks must be {q.semantic} to {q.codebooks}, got {self.num_codebooks}"
            )

    @property
    def frame_samples(self) -> int:
        """Samples in one frame."""
        return int(self.sample_rate / self.frame_rate)

    @property
    def resample(self) -> int:
        """Steps of the transformers in one frame."""
        return self.frame_samples // self.seanet.hop


@dataclass
class DownsampleState(State):
    conv: StepConvState
    begun_B: Tensor


class Downsample(nn.Module):
    """A learnt convolution to fewer steps. Before its first step a stream is taken to have stood at that step's value:
    the released model was trained so."""

    def __init__(self, dim: int, stride: int):
        super().__init__()
        self.conv = StepConv1d(dim, dim, kernel=2 * stride, stride=stride, bias=False)

    def init_state(self, slots: int) -> DownsampleState:
        conv = self.conv.init_state(slots)
        return DownsampleState(conv, conv.tail_BTC.new_zeros(slots, dtype=torch.bool))

    def forward(self, x_BTD: Tensor, state: DownsampleState, live_B: Tensor) -> Tensor:
        first_B = live_B & ~state.begun_B
        if not first_B.any():
            return self.conv(x_BTD, state.conv, live_B)
        write(state.conv.tail_BTC, x_BTD[:, :1].expand_as(state.conv.tail_BTC), first_B)
        write(state.begun_B, live_B, first_B)
        return self.conv(x_BTD, state.conv, live_B)


@dataclass
class MimiEncoderState(State):
    seanet: SeanetState
    transformer: RingCache
    downsample: DownsampleState


class MimiEncoder(nn.Module):
    """Audio to what the quantiser gets."""

    def __init__(self, config: MimiConfig):
        super().__init__()
        self.frame, self.dim = config.frame_samples, config.seanet.dim
        self.seanet = seanet_encoder(config.seanet)
        self.transformer = WindowTransformer(config.transformer)
        self.downsample = Downsample(config.seanet.dim, config.resample)

    def init_state(self, slots: int) -> MimiEncoderState:
        return MimiEncoderState(
            self.seanet.init_state(slots), self.transformer.init_state(slots), self.downsample.init_state(slots)
        )

    def forward(self, audio_BN: Tensor, state: MimiEncoderState, live_B: Tensor) -> Tensor:
        """Encodes the next frames of each live stream.

        Args:
            audio_BN: in [-1, 1] at the codec's rate, any whole number of frames.
        Returns:
            [B, frames, D]; rows that are not live mean nothing.
        Raises:
            ShapeError: not a whole number of frames.
        """
        samples = audio_BN.shape[-1]
        if audio_BN.dim() != 2 or samples == 0 or samples % self.frame:
            raise ShapeError(
                f"MimiEncoder: need [B, N] with N a positive multiple of {self.frame} samples, got "
                f"{tuple(audio_BN.shape)}. Cut the audio into whole frames first (audio.frames.Framer({self.frame}))."
            )
        if not torch.is_grad_enabled() and samples > PIECE * self.frame:
            pieces = audio_BN.split(PIECE * self.frame, dim=1)
            return torch.cat([self(piece, state, live_B) for piece in pieces], dim=1)
        if not live_B.any():
            return audio_BN.new_zeros(len(audio_BN), samples // self.frame, self.dim)
        x_BTD = _live_rows(self.seanet, audio_BN[..., None], state.seanet, live_B)
        x_BTD = self.transformer(x_BTD, state.transformer, live_B)
        return self.downsample(x_BTD, state.downsample, live_B)


@dataclass
class MimiDecoderState(State):
    upsample: OverlapState
    transformer: RingCache
    seanet: SeanetState


class MimiDecoder(nn.Module):
    """What the quantiser gives to audio. The upsampling mixes no channels, as in the released model."""

    def __init__(self, config: MimiConfig):
        super().__init__()
        dim, self.frame = config.seanet.dim, config.frame_samples
        self.upsample = StepConvTranspose1d(dim, dim, stride=config.resample, bias=False, channelwise=True)
        self.transformer = WindowTransformer(config.transformer)
        self.seanet = seanet_decoder(config.seanet)

    def init_state(self, slots: int) -> MimiDecoderState:
        return MimiDecoderState(
            self.upsample.init_state(slots), self.transformer.init_state(slots), self.seanet.init_state(slots)
        )

    def forward(self, x_BTD: Tensor, state: MimiDecoderState, live_B: Tensor) -> Tensor:
        """Decodes the next frames of each live stream.

        Returns:
            audio_BN, N = frames * frame_samples; rows that are not live mean nothing.
        """
        if not torch.is_grad_enabled() and x_BTD.shape[1] > PIECE:
            return torch.cat([self(piece, state, live_B) for piece in x_BTD.split(PIECE, dim=1)], dim=1)
        if not live_B.any():
            return x_BTD.new_zeros(len(x_BTD), x_BTD.shape[1] * self.frame)
        x_BTD = self.upsample(x_BTD, state.upsample, live_B)
        x_BTD = self.transformer(x_BTD, state.transformer, live_B)
        return _live_rows(self.seanet, x_BTD, state.seanet, live_B)[..., 0]


@dataclass
class MimiState(State):
    encoder: MimiEncoderState
    decoder: MimiDecoderState


class Mimi(nn.Module):
    """The codec: audio to codes and back."""

    def __init__(self, config: MimiConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = MimiEncoder(config), MimiDecoder(config)
        self.quantizer = SplitQuantizer(config.quantizer)

    def pack(self, *, half_encoder: bool = False, half_decoder: bool = False) -> None:
        """Lays the weights out for a CPU, in place: after this the codec is for inference and stays there.

        Args:
            half_encoder: its large matrices in bfloat16, where the CPU can; this changes codes.
            half_decoder: its large matrices in bfloat16, where the CPU can; this adds a little noise.
        """
        for part, half in ((self.encoder, half_encoder), (self.decoder, half_decoder)):
            if half and can_pack() and torch.ops.mkldnn._is_mkldnn_bf16_supported():
                _halve(part)
            pack_linears(part)

    def init_state(self, slots: int) -> MimiState:
        """Streams that have not begun, both ways. Who needs one way makes `encoder` or `decoder` states alone."""
        return MimiState(self.encoder.init_state(slots), self.decoder.init_state(slots))

    def encode(
        self, audio_BN: Tensor, state: MimiEncoderState, live_B: Tensor, *, num_codebooks: int | None = None
    ) -> Tensor:
        """Codes of the next frames of each live stream.

        Args:
            audio_BN: in [-1, 1] at the codec's rate, any whole number of frames.
            num_codebooks: how many to use; None: the config's.
        Returns:
            codes_BKT, int64, one T a frame; rows that are not live mean nothing.
        Raises:
            ShapeError: not a whole number of frames, or more codebooks than there are.
        """
        count = self.config.num_codebooks if num_codebooks is None else num_codebooks
        return self.quantizer.encode(self.encoder(audio_BN, state, live_B), count)

    def decode(self, codes_BKT: Tensor, state: MimiDecoderState, live_B: Tensor) -> Tensor:
        """Audio of the next frames of each live stream.

        Args:
            codes_BKT: of any number of codebooks that the codec has. Rows that are not live must hold codes, too.
        Returns:
            audio_BN in [-1, 1], or a little beyond; rows that are not live mean nothing.
        Raises:
            ShapeError: another number of codebooks, or a number that is no code.
        """
        return self.decoder(self.quantizer.decode(codes_BKT), state, live_B)


def _live_rows(module: Seanet, x_BTC: Tensor, state: SeanetState, live_B: Tensor) -> Tensor:
    """Runs the live rows alone, so that the others cost nothing; theirs are zeros."""
    with slots(state, live_B) as (taken, rows_R):
        if len(rows_R) == len(live_B):
            return module(x_BTC, taken, live_B)
        y_RTC = module(x_BTC[rows_R], taken, live_B[rows_R])
        return y_RTC.new_zeros(len(live_B), *y_RTC.shape[1:]).index_copy(0, rows_R, y_RTC)


class HalfLinear(nn.Module):
    """A linear layer in bfloat16 between others in float32."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.layer = layer.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.to(torch.bfloat16)).to(x.dtype)


def _halve(module: nn.Module) -> None:
    for name, layer in list(module.named_modules()):
        if type(layer) is nn.Linear and layer.weight.numel() >= HALVE_FROM:
            parent, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, HalfLinear(layer))
