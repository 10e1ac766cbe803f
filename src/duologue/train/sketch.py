"""A sketch of the sound: spectra that a small head guesses from the steps of a codec's decoder, before it makes sound.

What has to come across (words, pitch, voice) is in these spectra, and to guess them costs next to nothing, while the
convolutions that make 24,000 samples a second are most of a codec's training. So encoder and codebooks can learn from
sketches first, and the decoder's convolutions from codes that no longer change.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.errors import ConfigError
from duologue.train.mel_loss import log_mel

SCALES = ((512, 64, 120), (2048, 128, 480))  # (samples of a window, mel bands, samples between windows)
HIDDEN = 512


class Sketch(nn.Module):
    """Steps of `step` samples, each to the spectra of the windows whose middles lie in it."""

    def __init__(self, dim: int, *, step: int, rate: int):
        super().__init__()
        if step % math.lcm(*(hop for _, _, hop in SCALES)):
            raise ConfigError(f"Sketch: need steps that are a multiple of 480 samples, got {step}")
        self.step, self.rate = step, rate
        outputs = sum(step // hop * bands for _, bands, hop in SCALES)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, outputs))

    def forward(self, steps_BTD: Tensor, audio_BN: Tensor) -> Tensor:
        """Mean absolute distance in log amplitude of the guess from what the audio's windows hold, over the scales.

        Args:
            steps_BTD: of all of the audio, T * step samples.
        """
        with torch.autocast(audio_BN.device.type, enabled=False):
            sizes = [self.step // hop * bands for _, bands, hop in SCALES]
            guesses = self.head(steps_BTD.float()).split(sizes, dim=-1)
            found = [
                self._distance(guess_BTS.unflatten(-1, (self.step // hop, bands)).flatten(1, 2), audio_BN, window, hop)
                for guess_BTS, (window, bands, hop) in zip(guesses, SCALES, strict=True)
            ]
            return torch.stack(found).mean()

    def _distance(self, guess_BTM: Tensor, audio_BN: Tensor, window: int, hop: int) -> Tensor:
        around = window - hop  # a window's middle is its hop's; those that reach beyond the audio's end are left out
        padded_BN = F.pad(audio_BN.float(), (around // 2, 0))
        wanted_BMT = log_mel(padded_BN, window, guess_BTM.shape[-1], self.rate, hop)
        begins = -(-around // 2 // hop)  # so are those that reach before its beginning
        wanted_BTM = wanted_BMT[:, :, begins:].transpose(1, 2)
        return (guess_BTM[:, begins : begins + wanted_BTM.shape[1]] - wanted_BTM).abs().mean()
