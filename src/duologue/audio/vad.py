"""Is somebody speaking: Silero's voice activity model with its memory handed in.

The weights come from the silero-vad package (MIT), 16 kHz. The network is small: a short-time Fourier transform as a
convolution, four convolutions, one LSTM cell, one output; 0.3 M parameters, a fraction of a millisecond a window.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from duologue.errors import AudioError

SAMPLE_RATE = 16_000  # Hz
WINDOW = 512  # samples in a window, 32 ms
_CONTEXT = 64  # samples of the last window that the next one sees


@dataclass
class VadState:
    """The memory of `slots` streams; all zeros means not begun."""

    context_BN: Tensor
    hidden_BD: Tensor
    cell_BD: Tensor


class VoiceActivity(nn.Module):
    """Silero VAD at 16 kHz."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    @classmethod
    def load(cls, path: Path | None = None) -> VoiceActivity:
        """With the weights of the silero-vad package, or of another file.

        Raises:
            AudioError: they are not there.
        """
        from safetensors.torch import load_file

        path = path or _packaged_weights()
        try:
            model = cls()
            model.load_state_dict(load_file(path))
        except (OSError, RuntimeError) as error:
            raise AudioError(
                f"voice activity: cannot load {path} ({str(error).splitlines()[0]}); pip install silero-vad"
            ) from error
        return model.eval().requires_grad_(False)

    def init_state(self, slots: int) -> VadState:
        zeros = self.final_conv.weight.new_zeros
        return VadState(zeros(slots, _CONTEXT), zeros(slots, 128), zeros(slots, 128))

    def forward(self, window_BN: Tensor, state: VadState) -> Tensor:
        """The probability of speech in the next window of each stream, [B]. `state` moves on, in place."""
        x = F.pad(torch.cat([state.context_BN, window_BN], dim=1), (0, 64), mode="reflect")
        real, imaginary = self.stft_conv(x[:, None]).chunk(2, dim=1)
        x = (real.square() + imaginary.square()).sqrt()
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = conv(x).relu()
        state.hidden_BD, state.cell_BD = self.lstm_cell(x.squeeze(-1), (state.hidden_BD, state.cell_BD))
        state.context_BN = window_BN[:, -_CONTEXT:]
        return self.final_conv(state.hidden_BD.relu()[..., None]).sigmoid().flatten()


def together(model: VoiceActivity, windows: Sequence[np.ndarray], states: Sequence[VadState]) -> list[float]:
    """The probability of speech in the next window of several streams, each with a state of its own, of one slot."""
    state = VadState(*(torch.cat([getattr(one, field.name) for one in states]) for field in fields(VadState)))
    probabilities = model(torch.from_numpy(np.stack(windows)), state).tolist()
    for field in fields(VadState):
        for one, part in zip(states, getattr(state, field.name).split(1), strict=True):
            setattr(one, field.name, part.clone())
    return probabilities


def _packaged_weights() -> Path:
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise AudioError("voice activity needs the silero-vad package; pip install silero-vad")
    return Path(spec.submodule_search_locations[0]) / "data" / "silero_vad_16k.safetensors"
