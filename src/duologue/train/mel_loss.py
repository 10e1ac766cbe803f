"""How far two sounds are apart to the ear: log-mel spectra at several resolutions.

Source: the multi-scale spectral loss of EnCodec (Defossez et al. 2022, arXiv:2210.13438, section 3.4).
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

SCALES = ((256, 20), (512, 40), (1024, 80), (2048, 80))  # (samples of a window, mel bands); windows overlap by 3/4
FLOOR = 1e-4  # of an amplitude: what is fainter is silence; lower, most of the loss would be what pauses hiss like


def mel_distance(a_BN: Tensor, b_BN: Tensor, *, rate: int = 24_000) -> Tensor:
    """Mean absolute difference of log amplitudes, the mean over the scales."""
    with torch.autocast(a_BN.device.type, enabled=False):
        found = [
            (log_mel(a_BN.float(), window, bands, rate) - log_mel(b_BN.float(), window, bands, rate)).abs().mean()
            for window, bands in SCALES
        ]
    return torch.stack(found).mean()


def log_mel(audio_BN: Tensor, window: int, bands: int, rate: int, hop: int | None = None) -> Tensor:
    """Natural log of mel amplitudes, [B, bands, T]; a window every `hop` samples, a quarter of one if None."""
    shape = torch.hann_window(window, device=audio_BN.device)
    spectrum = torch.stft(audio_BN, window, hop or window // 4, window=shape, center=False, return_complex=True)
    power = torch.view_as_real(spectrum).square().sum(-1)
    amplitude = (power + FLOOR**2).sqrt() / shape.sum()  # a root has no gradient at 0
    return (mel_bands(bands, window, rate).to(audio_BN.device) @ amplitude + FLOOR).log()


@functools.lru_cache(maxsize=16)
def mel_bands(bands: int, window: int, rate: int) -> Tensor:
    """Triangles of equal height, evenly spaced in mel, [bands, bins]; each at least as wide as a bin."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bands + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.linspace(0, rate / 2, window // 2 + 1, dtype=torch.float64)
    width = rate / window
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None].clamp(min=width)
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None].clamp(min=width)
    return torch.minimum(rising, falling).clamp(min=0).float()
