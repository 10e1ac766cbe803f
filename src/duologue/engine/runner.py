"""The model and the memory of all its conversations: batched calls over the slots that need them.

One thread calls. An error of a batched call is looked into slot by slot, so that it costs only those slots their
conversation that it comes from.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from duologue.errors import in_a_line
from duologue.streaming.protocol import Chunked, StreamingModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spoken:
    """What one step brought to one slot."""

    samples: np.ndarray  # mono float32 in [-1, 1]
    ids: list[int]
    done: bool


class Runner:
    """Calls the model for some of its slots.

    Args:
        slots: most conversations at once.
    """

    def __init__(self, model: StreamingModel, slots: int):
        self.model, self.spec, self.slots = model, model.spec, slots
        with torch.inference_mode():
            self._state = model.init_state(slots)

    def reset(self, slot: int) -> None:
        """Makes a slot a conversation that has not begun."""
        with torch.inference_mode():
            self._state.reset(self._live([slot]))

    def listen(self, ticks: Mapping[int, np.ndarray]) -> dict[int, Exception]:
        """Hears one tick in some slots. Gives the errors of those that failed, like every method below."""
        samples_BN = np.zeros((self.slots, self.spec.input_samples), np.float32)
        for slot, tick in ticks.items():
            samples_BN[slot] = tick
        audio_BN = torch.from_numpy(samples_BN)
        return self._each(ticks, lambda live_B: self.model.listen(self._state, audio_BN, live_B))

    def write(self, slot: int, work: Iterator[None]) -> tuple[bool, dict[int, Exception]]:
        """One piece of the work of `StreamingModel.write`. Gives whether there is more of it."""
        over = False

        def piece(_: Tensor) -> None:
            nonlocal over
            over = next(work, True) is True

        failed = self._each([slot], piece)
        return not over and not failed, failed

    def writing(self, slot: int, role: str, text: str) -> Iterator[None]:
        """The work of adding text to the context of a slot, for `write`."""
        return self.model.write(self._state, slot, role, text)

    def set_omega(self, slot: int, omega: int) -> None:
        """Chooses the size of a slot's chunks, in a family that has such; 0: the model's own."""
        if isinstance(self.model, Chunked):
            with torch.inference_mode():
                self.model.set_omega(self._state, slot, omega)

    def say(self, slot: int, text: str) -> dict[int, Exception]:
        return self._each([slot], lambda _: self.model.say(self._state, slot, text))

    def end_turn(self, slots: Iterable[int]) -> dict[int, Exception]:
        return self._each(slots, lambda live_B: self.model.end_turn(self._state, live_B))

    def resume(self, slots: Iterable[int]) -> dict[int, Exception]:
        return self._each(slots, lambda live_B: self.model.resume(self._state, live_B))

    def truncate(self, heard: Mapping[int, float]) -> dict[int, Exception]:
        """Cuts answers to the seconds that were heard of them."""
        ticks_B = torch.zeros(self.slots, dtype=torch.int64)
        for slot, seconds in heard.items():
            ticks_B[slot] = int(max(0.0, seconds) / self.spec.tick)
        return self._each(heard, lambda live_B: self.model.truncate(self._state, live_B, ticks_B))

    def speak(self, slots: Iterable[int]) -> tuple[dict[int, Spoken], dict[int, Exception]]:
        """One step of speech in some slots."""
        found: dict[int, Spoken] = {}

        def step(live_B: Tensor) -> None:
            frame = self.model.speak(self._state, live_B)
            audio_BN, samples_B = frame.audio_BN.float().cpu().numpy(), frame.samples_B.tolist()  # all at once: on a
            ids_BT, done_B = frame.ids_BT.tolist(), frame.done_B.tolist()  # device every look costs a wait
            for slot in live_B.nonzero()[:, 0].tolist():
                ids = [token for token in ids_BT[slot] if token >= 0]
                found[slot] = Spoken(audio_BN[slot, : samples_B[slot]].copy(), ids, done_B[slot])

        failed = self._each(slots, step)
        return found, failed

    def complete(self, slot: int) -> float | None:
        """How complete the turn sounds that was just ended in a slot; None: not known."""
        with torch.inference_mode():
            return self.model.complete(self._state, slot)

    def overhear(self, audio_N: np.ndarray, expected: Sequence[str] = ()) -> str:
        """The words in a piece of audio apart from any conversation; none where the model fails."""
        with torch.inference_mode():
            try:
                return self.model.overhear(torch.from_numpy(audio_N), expected).strip()
            except Exception as error:
                logger.warning("overhearing failed: %s", in_a_line(error))
                return ""

    def transcript(self, slot: int) -> str:
        """What was heard in the turn of a slot."""
        with torch.inference_mode():
            return self.model.heard(self._state, slot).strip()

    def _live(self, slots: Iterable[int]) -> Tensor:
        live_B = torch.zeros(self.slots, dtype=torch.bool)
        live_B[list(slots)] = True
        return live_B

    def _each(self, slots: Iterable[int], call: Callable[[Tensor], Any]) -> dict[int, Exception]:
        slots = list(slots)
        with torch.inference_mode():
            try:
                call(self._live(slots))
                return {}
            except Exception as error:  # whatever it is, it must not reach the other conversations
                if len(slots) == 1:
                    return {slots[0]: error}
                together = in_a_line(error)
        failed = {slot: error for one in slots for slot, error in self._each([one], call).items()}
        if not failed:  # otherwise they are told of one by one
            logger.warning("a call for %d conversations failed, for each alone not: %s", len(slots), together)
        return failed
