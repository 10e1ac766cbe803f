"""The contract between a family and whatever drives it: an engine, a pipeline, an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from duologue.streaming.state import State


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """What flows in and out of a streaming model."""

    input_rate: int  # Hz
    output_rate: int  # Hz
    tick: float = 0.08  # seconds
    duplex: bool = False  # listens and speaks at every tick

    @property
    def input_samples(self) -> int:
        """Samples of the user's audio in one tick."""
        return round(self.input_rate * self.tick)

    @property
    def output_samples(self) -> int:
        """Samples of own speech in one tick."""
        return round(self.output_rate * self.tick)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What `speak` gives for every slot: at most one tick of speech and the text that was thought meanwhile.

    Rows of slots that are not live mean nothing.
    """

    audio_BN: Tensor  # own speech in [-1, 1] at output_rate, N = spec.output_samples
    samples_B: Tensor  # how many of the N are real: 0 while thinking, fewer than N at the very end
    ids_BT: Tensor  # text tokens decoded in this step, padded with -1
    done_B: Tensor  # True once the answer's last sample is in this frame (or an earlier one)


class StreamingModel(Protocol):
    """A family under the streaming contract (docs/streaming.md). All memory is in the `state` handed in."""

    spec: StreamSpec

    def init_state(self, slots: int) -> State: ...

    def write(self, state: State, slot: int, role: str, text: str) -> Iterator[None]:
        """Adds text to the context of one slot, in short pieces of work: to be exhausted before anything else is done
        with the slot.

        Args:
            role: "system": instructions, before all else; "user": part of the user's turn, beside what is heard;
                "assistant": an answer that was given.
        Raises:
            PartError: instructions where something was said already, or a role that the family does not know.
        """
        ...

    def listen(self, state: State, audio_BN: Tensor, live_B: Tensor) -> None:
        """Hears one tick of the user's audio, in [-1, 1] at input_rate, N = spec.input_samples."""
        ...

    def end_turn(self, state: State, live_B: Tensor) -> None:
        """The user has finished: makes the answer ready to start. Turn-taking families only.

        A slot that heard no speech is done at once: its next `speak` gives nothing but `done_B`.
        """
        ...

    def resume(self, state: State, live_B: Tensor) -> None:
        """Takes `end_turn` back, with whatever was answered: the user goes on with the same turn."""
        ...

    def say(self, state: State, slot: int, text: str) -> None:
        """After `end_turn`: the answer is this text, spoken as if the model had thought of it. Nothing was heard or
        written before? It is said all the same.

        Raises:
            PartError: it is longer than an answer may be; nothing is changed.
        """
        ...

    def speak(self, state: State, live_B: Tensor) -> Frame:
        """Thinks and speaks for at most one tick."""
        ...

    def truncate(self, state: State, live_B: Tensor, heard_ticks_B: Tensor) -> None:
        """After barge-in: forgets the part of the answer that was not heard."""
        ...

    def heard(self, state: State, slot: int) -> str:
        """What the model believes was said in this turn, as text; empty when it heard no speech, or writes no text."""
        ...

    def complete(self, state: State, slot: int) -> float | None:
        """After `end_turn`: how complete what was said sounds, 0 to 1; None where the family cannot tell."""
        ...

    def overhear(self, audio_N: Tensor, expected: Sequence[str] = ()) -> str:
        """The words in a short piece of audio at input_rate, apart from any conversation.

        Args:
            expected: sentences that are likelier than others; a family that cannot weigh them ignores them.
        """
        ...

    def text(self, ids: list[int]) -> str:
        """The text of some `Frame.ids_BT`, as far as it is whole characters."""
        ...


@runtime_checkable
class Chunked(Protocol):
    """A family that makes speech in chunks, whose size a conversation may choose (Omega in LLaMA-Omni's paper)."""

    @property
    def omegas(self) -> tuple[int, int, int]:
        """Units of a chunk: the fewest and the most that may be chosen, and what it is otherwise."""
        ...

    def set_omega(self, state: State, slot: int, omega: int) -> None:
        """Chooses for one slot, from its next chunk until it is reset; 0: what it is otherwise."""
        ...
