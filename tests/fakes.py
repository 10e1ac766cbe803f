"""A family that needs no training: it 'hears' whether there was sound, and answers with fixed text and a tone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from duologue import config
from duologue.checkpoints import ModelFolder, load_into, save_model
from duologue.errors import PartError
from duologue.streaming.protocol import Frame, StreamSpec
from duologue.streaming.state import State

INPUT_RATE, OUTPUT_RATE = 16_000, 24_000
ANSWER = "You spoke, and I répond — with a tone."  # characters of one, two and three bytes


@dataclass(frozen=True, kw_only=True)
class EchoConfig:
    """What the echo says."""

    answer: str = ANSWER
    omega: int = 4  # bytes of text a step
    lead: int = 2  # steps of text before the first sound
    audio_ticks: int = 8  # ticks of speech, of which the last is half full
    speak: bool = True
    complete: float | None = None


class Tone(nn.Module):
    """The echo's vocoder: a sine."""

    def __init__(self, frequency: float = 440.0, sample_rate: int = OUTPUT_RATE):
        super().__init__()
        self.sample_rate = sample_rate
        self.frequency = nn.Parameter(torch.tensor([frequency]))

    def forward(self, begin: int, samples: int) -> Tensor:
        return 0.3 * torch.sin(2 * math.pi * self.frequency * torch.arange(begin, begin + samples) / self.sample_rate)


@dataclass
class EchoState(State):
    """heard: ticks of the turn, loud: those with sound, spoken: steps of the answer, turns: questions so far."""

    heard_B: Tensor
    loud_B: Tensor
    spoken_B: Tensor
    speaking_B: Tensor
    turns_B: Tensor
    read_B: Tensor  # words written into the context
    forced_BT: Tensor  # bytes that are to be said


class EchoModel:
    """A turn-taking StreamingModel."""

    spec = StreamSpec(input_rate=INPUT_RATE, output_rate=OUTPUT_RATE)

    def __init__(self, config: EchoConfig | None = None, *, vocoder: Tone | None = None):
        self.config = config or EchoConfig()
        self.vocoder = vocoder or Tone()
        self.truncated: list[int] = []  # what tests look at

    def init_state(self, slots: int) -> EchoState:
        counts = (torch.zeros(slots, dtype=torch.long) for _ in range(6))
        return EchoState(*counts, torch.zeros(slots, 100, dtype=torch.long))

    def write(self, state: EchoState, slot: int, role: str, text: str) -> Iterator[None]:
        if role == "system" and int(state.turns_B[slot]):
            raise PartError("write: instructions come first")
        for _ in text.split():
            state.read_B[slot] += 1
            yield

    def say(self, state: EchoState, slot: int, text: str) -> None:
        if len(text.encode()) > state.forced_BT.shape[1]:
            raise PartError("say: too long")
        state.speaking_B[slot] = 1
        state.spoken_B[slot] = 0
        state.forced_BT[slot, : len(text.encode())] = torch.tensor(list(text.encode()))

    def listen(self, state: EchoState, audio_BN: Tensor, live_B: Tensor) -> None:
        assert audio_BN.shape[1] == self.spec.input_samples
        assert not bool((state.speaking_B.bool() & live_B).any()), "listen while the model has the floor"
        state.heard_B += live_B.long()
        state.loud_B += ((audio_BN.abs().amax(1) > 0.01) & live_B).long()

    def end_turn(self, state: EchoState, live_B: Tensor) -> None:
        state.speaking_B[live_B] = 1
        state.spoken_B[live_B] = 0
        state.turns_B[live_B] += 1

    def resume(self, state: EchoState, live_B: Tensor) -> None:
        state.speaking_B[live_B] = 0
        state.turns_B[live_B] -= 1

    def speak(self, state: EchoState, live_B: Tensor) -> Frame:
        slots, full = len(live_B), self.spec.output_samples
        frame = Frame(
            audio_BN=torch.zeros(slots, full),
            samples_B=torch.zeros(slots, dtype=torch.long),
            ids_BT=torch.full((slots, self.config.omega), -1),
            done_B=torch.ones(slots, dtype=torch.bool),
        )
        for slot in live_B.nonzero()[:, 0].tolist():
            self._speak(state, slot, frame)
        state.spoken_B += live_B.long()
        self._hand_over(state, live_B & frame.done_B)
        return frame

    def _speak(self, state: EchoState, slot: int, frame: Frame) -> None:
        answer = bytes(state.forced_BT[slot][state.forced_BT[slot] > 0].tolist()) or self.config.answer.encode()
        if not self.heard(state, slot) and not state.read_B[slot] and not state.forced_BT[slot].any():
            return
        step, full = int(state.spoken_B[slot]), self.spec.output_samples
        ids = list(answer)[step * self.config.omega : (step + 1) * self.config.omega]
        tick, last = step - self.config.lead, self.config.lead + self.config.audio_ticks - 1
        samples = 0 if tick < 0 or step > last or not self.config.speak else full // 2 if step == last else full
        frame.audio_BN[slot, :samples] = self.vocoder(max(tick, 0) * full, samples)
        frame.samples_B[slot] = samples
        frame.ids_BT[slot, : len(ids)] = torch.tensor(ids)
        frame.done_B[slot] = step >= last and (step + 1) * self.config.omega >= len(answer)

    def truncate(self, state: EchoState, live_B: Tensor, heard_ticks_B: Tensor) -> None:
        self.truncated += heard_ticks_B[live_B].tolist()
        self._hand_over(state, live_B)

    def heard(self, state: EchoState, slot: int) -> str:
        loud = int(state.loud_B[slot])
        return f"sound for {loud} ticks in turn {max(1, int(state.turns_B[slot]))}" if loud else ""

    def complete(self, state: EchoState, slot: int) -> float | None:
        return self.config.complete

    def overhear(self, audio_N: Tensor, expected: Sequence[str] = ()) -> str:
        """A loud tone is words, a soft one is a sign of listening."""
        peak = float(audio_N.abs().max())
        return "stop now please" if peak > 0.2 else "uh-huh" if peak > 0.01 else ""

    def text(self, ids: list[int]) -> str:
        return bytes(ids).decode("utf-8", errors="ignore")

    def parts(self) -> Mapping[str, Any]:
        return {"vocoder": self.vocoder}

    def replace_part(self, name: str, part: Any) -> None:
        if getattr(part, "sample_rate", None) != OUTPUT_RATE:
            raise PartError(f"vocoder: need {OUTPUT_RATE} Hz, got {getattr(part, 'sample_rate', part)!r}")
        setattr(self, name, part)

    @staticmethod
    def _hand_over(state: EchoState, live_B: Tensor) -> None:
        for tensor in (state.speaking_B, state.heard_B, state.loud_B, state.read_B, state.forced_BT):
            tensor[live_B] = 0


@dataclass
class DuplexState(State):
    """ticks: heard so far, loud: those with sound, last: the peak of the last one, read: words that were written."""

    ticks_B: Tensor
    loud_B: Tensor
    last_B: Tensor
    read_B: Tensor
    forced_BT: Tensor  # bytes that are to be said next
    forced_at_B: Tensor  # how many of them were


class DuplexEcho:
    """A duplex StreamingModel: a tone at every tick, as loud as what was heard in it; a letter of the alphabet with
    every loud tick, or two of what it is to say. It writes down how much it heard, a word a loud tick."""

    def __init__(self, *, input_rate: int = OUTPUT_RATE, says: bool = True):
        self.spec = StreamSpec(input_rate=input_rate, output_rate=OUTPUT_RATE, duplex=True)
        self.vocoder, self.says = Tone(), says
        self.told: list[tuple[str, str]] = []  # what tests look at
        self.batches: list[int] = []  # conversations in each tick

    def init_state(self, slots: int) -> DuplexState:
        ticks, loud, read, at = (torch.zeros(slots, dtype=torch.long) for _ in range(4))
        return DuplexState(ticks, loud, torch.zeros(slots), read, torch.zeros(slots, 400, dtype=torch.long), at)

    def write(self, state: DuplexState, slot: int, role: str, text: str) -> Iterator[None]:
        if role == "system" and int(state.ticks_B[slot]):
            raise PartError("write: instructions come before the first tick")
        self.told.append((role, text))
        for _ in text.split():
            state.read_B[slot] += 1
            yield

    def say(self, state: DuplexState, slot: int, text: str) -> None:
        if not self.says:
            raise PartError("say: this model says nothing that it has not thought of")
        left = state.forced_BT[slot, int(state.forced_at_B[slot]) :]
        together = [*left[left > 0].tolist(), *text.encode(), ord(" ")]
        state.forced_BT[slot] = 0
        state.forced_at_B[slot] = 0
        state.forced_BT[slot, : len(together)] = torch.tensor(together)

    def listen(self, state: DuplexState, audio_BN: Tensor, live_B: Tensor) -> None:
        assert audio_BN.shape[1] == self.spec.input_samples
        peak_B = audio_BN.abs().amax(1)
        state.ticks_B += live_B.long()
        state.loud_B += ((peak_B > 0.01) & live_B).long()
        state.last_B[live_B] = peak_B[live_B]
        self.batches.append(int(live_B.sum()))

    def speak(self, state: DuplexState, live_B: Tensor) -> Frame:
        slots, full = len(live_B), self.spec.output_samples
        ids_BT = torch.full((slots, 2), -1)
        for slot in live_B.nonzero()[:, 0].tolist():
            left = state.forced_BT[slot, int(state.forced_at_B[slot]) :][:2]  # of what it is to say
            left = left[left > 0]
            if len(left):
                ids_BT[slot, : len(left)] = left
                state.forced_at_B[slot] += len(left)
            elif float(state.last_B[slot]) > 0.01:
                ids_BT[slot, 0] = ord("a") + (int(state.loud_B[slot]) - 1) % 26
        return Frame(
            audio_BN=state.last_B[:, None] / 0.3 * self.vocoder(0, full),
            samples_B=torch.full((slots,), full),
            ids_BT=ids_BT,
            done_B=torch.zeros(slots, dtype=torch.bool),
        )

    def heard(self, state: DuplexState, slot: int) -> str:
        return " ".join(str(number + 1) for number in range(int(state.loud_B[slot])))

    def overhear(self, audio_N: Tensor, expected: Sequence[str] = ()) -> str:
        return ""

    def text(self, ids: list[int]) -> str:
        return bytes(ids).decode("utf-8", errors="ignore")


class EchoFamily:
    """The entry of the echo in a table of families."""

    @staticmethod
    def from_folder(folder: ModelFolder, artefact: Callable[[str], Path], **parts: Any) -> EchoModel:
        settings = config.from_dict(EchoConfig, folder.model, where="config.json.model")
        vocoder = parts.pop("vocoder", None)
        if parts:
            raise PartError(f"echo: there is no part {', '.join(parts)}; the parts are vocoder")
        if vocoder is None:
            vocoder = Tone(0.0)
            load_into(vocoder, folder.tensors("vocoder.safetensors"), where=str(folder.path / "vocoder.safetensors"))
        for role in folder.artefacts:
            artefact(role)
        return EchoModel(settings, vocoder=vocoder)


def save_echo(folder: Path, *, frequency: float = 440.0, artefacts: Mapping[str, str] | None = None) -> Path:
    """A model folder of the echo family."""
    return save_model(
        folder,
        family="echo",
        model=EchoConfig(),
        tensors={"vocoder.safetensors": Tone(frequency).state_dict()},
        artefacts=artefacts,
        card="# echo\n\nFor tests.\n",
    )


def tone(seconds: float, *, rate: int = INPUT_RATE, level: float = 0.3) -> np.ndarray:
    """A question that the echo hears."""
    return (level * np.sin(2 * np.pi * 300 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)
