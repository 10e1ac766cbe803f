"""Is somebody speaking, and when did they stop: Silero's voice activity model with its memory handed in.

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

from duologue.audio.frames import Framer
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


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """When a turn begins and ends."""

    threshold: float = 0.5  # probability from which a window is speech; it stays speech down to 0.15 less
    start: float = 0.096  # seconds of speech that begin a turn
    end: float = 0.6  # seconds of silence that end it
    before: float = 0.4  # seconds before the beginning that belong to the turn


@dataclass(frozen=True)
class Began:
    """A turn has begun; `samples` are its audio so far, a little of what came before included."""

    samples: np.ndarray


@dataclass(frozen=True)
class Goes:
    """More audio of the turn."""

    samples: np.ndarray


@dataclass(frozen=True)
class Ended:
    """The turn is over; the silence that told so has been given as audio already."""


class Endpointer:
    """Finds the turns in one stream of 16 kHz mono audio. All its memory is of this one stream."""

    def __init__(self, model: VoiceActivity, config: EndpointConfig | None = None):
        self.model, self.config = model, config or EndpointConfig()
        self._framer = Framer(WINDOW)
        self.reset()

    def reset(self) -> None:
        """Forgets what was heard: the next samples begin a stream."""
        self._framer.flush()
        self._state = self.model.init_state(1)
        self._before: list[np.ndarray] = []
        self.speaking = False
        self._run = 0  # windows in a row that speak against the present state

    def push(self, samples: np.ndarray) -> list[Began | Goes | Ended]:
        """Takes the next samples and says what became of the turn."""
        return [event for window in self._framer.push(samples) for event in self._step(window)]

    @torch.inference_mode()
    def _step(self, window: np.ndarray) -> list[Began | Goes | Ended]:
        config, seconds = self.config, WINDOW / SAMPLE_RATE
        probability = float(self.model(torch.from_numpy(np.array(window))[None], self._state))
        speech = probability >= config.threshold - (0.15 if self.speaking else 0.0)
        self._run = self._run + 1 if speech != self.speaking else 0
        if self.speaking:
            over = self._run * seconds >= config.end
            if over:
                self.speaking, self._run = False, 0
            return [Goes(window), *([Ended()] if over else [])]
        self._before.append(window)
        if self._run * seconds >= config.start:
            begun, self._before, self.speaking, self._run = np.concatenate(self._before), [], True, 0
            return [Began(begun)]
        del self._before[: max(0, len(self._before) - round(config.before / seconds))]
        return []


def _packaged_weights() -> Path:
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise AudioError("voice activity needs the silero-vad package; pip install silero-vad")
    return Path(spec.submodule_search_locations[0]) / "data" / "silero_vad_16k.safetensors"
