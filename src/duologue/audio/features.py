"""Log-mel spectrogram, Whisper's: 25 ms windows every 10 ms, Slaney mel bands, 80 dB of range below the loudest frame.

Source: Radford et al. 2022, arXiv:2212.04356; the band shapes are those of Slaney's Auditory Toolbox.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_RATE = 16_000  # Hz
HOP = 160  # samples between frames
_WINDOW = 400  # samples


def _hz_to_mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + math.log(hz / 1000) * 27 / math.log(6.4)


def _mel_to_hz(mel: Tensor) -> Tensor:
    return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * math.log(6.4) / 27))


@functools.lru_cache(maxsize=4)
def mel_bands(num_mels: int) -> Tensor:
    """Triangular filters of equal area, [num_mels, bins]."""
    bins = torch.linspace(0, SAMPLE_RATE / 2, _WINDOW // 2 + 1, dtype=torch.float64)
    edges = _mel_to_hz(torch.linspace(0, _hz_to_mel(SAMPLE_RATE / 2), num_mels + 2, dtype=torch.float64))
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    area = 2 / (edges[2:] - edges[:-2])
    return (torch.minimum(rising, falling).clamp(min=0) * area[:, None]).float()


def log_mel(audio_BN: Tensor, samples_B: Tensor | None = None, *, num_mels: int = 80) -> tuple[Tensor, Tensor]:
    """Whisper's features of each row's first `samples_B` samples.

    Args:
        audio_BN: 16 kHz audio in [-1, 1], zeros beyond `samples_B`; N at least 201 samples.
    Returns:
        features_BMT, and frames_B: how many of the T frames are real. Frames beyond are as of silence.
    """
    if samples_B is None:
        samples_B = torch.full((audio_BN.shape[0],), audio_BN.shape[1], device=audio_BN.device)
    mirror_BN = audio_BN[:, 1 : _WINDOW // 2 + 1].flip(1)  # as Whisper begins; it ends in zeros
    spectrum = torch.stft(
        torch.cat([mirror_BN, F.pad(audio_BN, (0, _WINDOW // 2))], dim=1),
        _WINDOW,
        HOP,
        window=torch.hann_window(_WINDOW, device=audio_BN.device),
        center=False,
        return_complex=True,
    )[..., :-1]
    power_BMT = mel_bands(num_mels).to(audio_BN.device) @ spectrum.abs().square()
    log_BMT = power_BMT.clamp(min=1e-10).log10()
    frames_B = samples_B // HOP
    inside_BT = torch.arange(log_BMT.shape[-1], device=audio_BN.device) < frames_B[:, None]
    peak_B = log_BMT.masked_fill(~inside_BT[:, None], -10.0).amax((1, 2))
    return (torch.maximum(log_BMT, peak_B[:, None, None] - 8) + 4) / 4, frames_B
