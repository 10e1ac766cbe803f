"""Typed streaming state: the memory of many conversations, apart from the weights.

Axis 0 of every tensor is the slot (one user's stream); all zeros means a stream not begun. So that reset, save, load
and move are written once, here, a state holds nothing but tensors and other states (alone or in a list).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from duologue.errors import ShapeError

AState = TypeVar("AState", bound="State")


@dataclass
class State:
    """Base of every streaming state. Subclasses are dataclasses of tensors and states."""

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Walks every tensor with its dotted name, in the order of the fields."""
        for field in fields(self):
            value = getattr(self, field.name)
            name = f"{prefix}{field.name}"
            if isinstance(value, Tensor):
                yield name, value
            elif isinstance(value, State):
                yield from value.tensors(f"{name}.")
            else:
                for index, item in enumerate(value):
                    yield from item.tensors(f"{name}.{index}.")

    def reset(self, live_B: Tensor) -> None:
        """Makes the chosen slots streams that have not begun, in place."""
        slots = live_B.nonzero()[:, 0].tolist()
        for _, tensor in self.tensors():
            for slot in slots:  # a mask would take ten times as long, with every conversation waiting
                tensor[slot].zero_()

    def take(self: AState, slots_R: Tensor) -> AState:
        """A copy of some slots, as a state of its own."""
        return self._map(lambda tensor: tensor[slots_R])

    def put(self, slots_R: Tensor, taken: State) -> None:
        """Writes slots that were taken back, in place."""
        for (_, tensor), (_, value) in zip(self.tensors(), taken.tensors(), strict=True):
            tensor[slots_R] = value

    def _map(self: AState, change: Callable[[Tensor], Tensor]) -> AState:
        def mapped(value: Any) -> Any:
            if isinstance(value, Tensor):
                return change(value)
            return value._map(change) if isinstance(value, State) else [item._map(change) for item in value]

        return type(self)(**{field.name: mapped(getattr(self, field.name)) for field in fields(self)})

    def save(self, slot: int) -> dict[str, Tensor]:
        """Copies one slot out, so that `load` resumes it exactly, here or in another state of the same shape."""
        return {name: tensor[slot].clone() for name, tensor in self.tensors()}

    def load(self, slot: int, saved: dict[str, Tensor]) -> None:
        """Puts a saved slot back, in place.

        Raises:
            ShapeError: `saved` comes from a state of another shape.
        """
        own = dict(self.tensors())
        if own.keys() != saved.keys():
            raise ShapeError(
                f"State.load: need the tensors {sorted(own)}, got {sorted(saved)}. Load a slot saved by the same model."
            )
        for name, tensor in own.items():
            if tensor.shape[1:] != saved[name].shape:
                raise ShapeError(
                    f"State.load: {name} has shape {tuple(tensor.shape[1:])} a slot, the saved one has "
                    f"{tuple(saved[name].shape)}. Load a slot saved by a state of the same size."
                )
            tensor[slot] = saved[name].to(tensor)


def write(target: Tensor, value: Tensor, live_B: Tensor) -> None:
    """Overwrites the live slots of `target` with `value`, in place; the others keep theirs. No gradient flows."""
    target.copy_(torch.where(live_B.view(-1, *[1] * (target.dim() - 1)), value.detach().to(target.dtype), target))


@contextmanager
def slots(state: AState, live_B: Tensor) -> Iterator[tuple[AState, Tensor]]:
    """The live slots as a state of their own, and their numbers, so that the others cost nothing. What happens to them
    is written back at the end, unless there was an error."""
    rows_R = live_B.nonzero()[:, 0]
    if len(rows_R) == len(live_B):
        yield state, rows_R
        return
    taken = state.take(rows_R)
    yield taken, rows_R
    state.put(rows_R, taken)
