"""What tells real speech from decoded speech: convolutions over complex spectra, at several resolutions.

Source: the multi-scale STFT discriminator and its losses in EnCodec (Defossez et al. 2022, arXiv:2210.13438, section
3.4), which Mimi is trained with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from duologue.errors import ConfigError

DILATIONS = (1, 2, 4)  # in time, of the layers that halve the frequencies


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Shape. Defaults: EnCodec and Mimi."""

    windows: tuple[int, ...] = (2048, 1024, 512, 256, 128)  # samples, one discriminator each; they overlap by 3/4
    channels: int = 32

    def __post_init__(self):
        if not self.windows or min(self.windows) < 16 or self.channels < 1:
            raise ConfigError(f"DiscriminatorConfig: need windows of 16 samples or more and channels, got {self}")


@dataclass(frozen=True)
class Verdict:
    """One discriminator's opinion."""

    logits: Tensor  # [B, 1, T, bins]: above 0 means real
    features: list[Tensor]  # of every layer before


class SpectrumDiscriminator(nn.Module):
    """One resolution: time along the first axis of an image, frequency along the second."""

    def __init__(self, window: int, channels: int):
        super().__init__()
        self.window = window
        c = channels
        layers = [nn.Conv2d(2, c, (3, 9), padding=(1, 4))]
        layers += [nn.Conv2d(c, c, (3, 9), stride=(1, 2), dilation=(d, 1), padding=(d, 4)) for d in DILATIONS]
        layers += [nn.Conv2d(c, c, 3, padding=1), nn.Conv2d(c, 1, 3, padding=1)]
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)

    def forward(self, audio_BN: Tensor) -> Verdict:
        with torch.autocast(audio_BN.device.type, enabled=False):
            shape = torch.hann_window(self.window, device=audio_BN.device)
            x = torch.stft(
                audio_BN.float(),
                self.window,
                self.window // 4,
                window=shape / shape.square().sum().sqrt(),
                center=False,
                return_complex=True,
            )
            x = torch.view_as_real(x).permute(0, 3, 2, 1)
        x, features = x.contiguous(memory_format=torch.channels_last), []
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return Verdict(self.layers[-1](x), features)


class Discriminators(nn.Module):
    """All resolutions."""

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.scales = nn.ModuleList(SpectrumDiscriminator(window, config.channels) for window in config.windows)

    def forward(self, audio_BN: Tensor) -> list[Verdict]:
        return [scale(audio_BN) for scale in self.scales]


def told_apart(real: Sequence[Verdict], decoded: Sequence[Verdict]) -> Tensor:
    """The discriminators' own hinge loss, the mean over them."""
    found = [
        F.relu(1 - r.logits.float()).mean() + F.relu(1 + d.logits.float()).mean()
        for r, d in zip(real, decoded, strict=True)
    ]
    return torch.stack(found).mean()


def found_out(decoded: Sequence[Verdict]) -> Tensor:
    """The codec's hinge loss: how surely its sound is told to be decoded."""
    return torch.stack([F.relu(1 - d.logits.float()).mean() for d in decoded]).mean()


def unlike(real: Sequence[Verdict], decoded: Sequence[Verdict]) -> Tensor:
    """Feature matching: absolute difference of every layer's features over the size of the real ones, the mean."""
    pairs = [
        (r.float(), d.float())
        for one, other in zip(real, decoded, strict=True)
        for r, d in zip(one.features, other.features, strict=True)
    ]
    return torch.stack([(r - d).abs().mean() / r.abs().mean().detach().clamp(min=1e-6) for r, d in pairs]).mean()
