"""What every streaming module promises, written once.

A case says how to make a module's state, what goes in and how to call it; `check_all(case)` holds it to the contract:
pieces equal the whole, an idle step leaves no trace, slots are isolated, reset is fresh, save and load resume exactly.

    @pytest.fixture
    def case():
        return Case(make_state=conv.init_state, call=lambda x, state, live, _: conv(x, state, live), inputs=x_BCT)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from duologue.streaming.state import State

CHECKS: list[Callable[[Case], None]] = []


@dataclass(frozen=True)
class Case:
    """One streaming module and a stream for each of its slots.

    Attributes:
        make_state: slots -> a fresh state with room for twice the inputs.
        call: (piece, state, live_B, last) -> a tensor whose axis 0 is the slot and whose axis `axis` is time, or, where
            a step may give any number of outputs, such a tensor and the count of each slot. `last`: the stream ends.
        inputs: the streams, axis 0 the slot (3 or more), axis `axis` time, long enough for `cuts`.
        cuts: ways of cutting the inputs; each sums to the length.
        axis: the time axis of inputs and outputs; where counts come with the outputs, theirs is 1.
        exact: outputs must be equal, not close (units, text).
    """

    make_state: Callable[[int], State]
    call: Callable[[Tensor, State, Tensor, bool], Tensor | tuple[Tensor, Tensor]]
    inputs: Tensor
    cuts: Sequence[Sequence[int]]
    axis: int = 1
    tolerance: float = 1e-4
    exact: bool = False
    idle: Tensor | None = field(default=None)  # what an idle slot is fed; default: other slots' inputs

    @property
    def slots(self) -> int:
        return self.inputs.shape[0]

    def step(self, piece: Tensor, state: State, live_B: Tensor, *, last: bool) -> list[Tensor]:
        """Each slot's outputs, time first; nothing for a slot that is not live."""
        out = self.call(piece, state, live_B, last)
        if isinstance(out, tuple):
            rows = [row[: int(count)] for row, count in zip(*out, strict=True)]
            for slot in range(self.slots):
                assert live_B[slot] or len(rows[slot]) == 0, "a slot that is not live gave something"
        else:
            rows = [row.movedim(self.axis - 1, 0) for row in out]
        return [row if live_B[slot] else row[:0] for slot, row in enumerate(rows)]

    def run(self, cut: Sequence[int], *, state: State | None = None, inputs: Tensor | None = None) -> list[Tensor]:
        """Every slot's whole output, all slots live, cut as told."""
        state = self.make_state(self.slots) if state is None else state
        inputs = self.inputs if inputs is None else inputs
        live_B = torch.ones(self.slots, dtype=torch.bool)
        pieces = inputs.split(list(cut), dim=self.axis)
        steps = [self.step(p, state, live_B, last=i == len(pieces) - 1) for i, p in enumerate(pieces)]
        return [torch.cat(rows) for rows in zip(*steps, strict=True)]

    def same(self, got: Sequence[Tensor], want: Sequence[Tensor]) -> None:
        tolerance = 0.0 if self.exact else self.tolerance
        for slot, (a, b) in enumerate(zip(got, want, strict=True)):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=lambda m, s=slot: f"slot {s}: {m}")


def check(function: Callable[[Case], None]) -> Callable[[Case], None]:
    CHECKS.append(function)
    return function


@check
def pieces_equal_the_whole(case: Case) -> None:
    whole = case.run([case.inputs.shape[case.axis]])
    assert sum(row.numel() for row in whole) > 0, "the whole gave nothing: this case could not fail"
    for cut in case.cuts:
        case.same(case.run(cut), whole)


@check
def an_idle_step_leaves_no_trace(case: Case) -> None:
    cut = case.cuts[-1]
    pieces, want = case.inputs.split(list(cut), dim=case.axis), case.run(cut)
    for idle in range(case.slots):
        state, rows = case.make_state(case.slots), [[] for _ in range(case.slots)]
        others_B = torch.arange(case.slots) != idle
        for i, piece in enumerate(pieces):
            last = i == len(pieces) - 1
            before = state.save(idle)
            for slot, row in enumerate(case.step(piece.roll(1, 0), state, others_B & False, last=last)):
                rows[slot].append(row)  # nobody is live
            for slot, row in enumerate(case.step(piece, state, others_B, last=last)):
                rows[slot].append(row)
            for name, tensor in state.save(idle).items():
                assert torch.equal(tensor, before[name]), f"{name} of an idle slot changed"
            for slot, row in enumerate(case.step(piece, state, ~others_B, last=last)):
                rows[slot].append(row)
        case.same([torch.cat(row) for row in rows], want)


@check
def slots_are_isolated(case: Case) -> None:
    cut = case.cuts[-1]
    want, changed = case.run(cut), case.inputs.clone()
    changed[0] = changed[1]
    got = case.run(cut, inputs=changed)
    case.same(got[1:], want[1:])
    case.same(got[:1], want[1:2])  # and the place of a slot does not matter


@check
def reset_is_fresh(case: Case) -> None:
    cut = case.cuts[-1]
    want, state = case.run(cut), case.make_state(case.slots)
    live_B = torch.ones(case.slots, dtype=torch.bool)
    first, *_ = case.inputs.split(list(cut), dim=case.axis)
    case.step(first.roll(1, 0), state, live_B, last=False)
    assert any(tensor.any() for _, tensor in state.tensors()), "the state stayed empty: this case could not fail"
    state.reset(live_B)
    assert not any(tensor.any() for _, tensor in state.tensors())
    case.same(case.run(cut, state=state), want)


@check
def save_and_load_resume_exactly(case: Case) -> None:
    cut = case.cuts[-1]
    pieces, want = case.inputs.split(list(cut), dim=case.axis), case.run(cut)
    live_B = torch.ones(case.slots, dtype=torch.bool)
    state = case.make_state(case.slots)
    steps = [case.step(pieces[0], state, live_B, last=False)]
    saved = [state.save(slot) for slot in range(case.slots)]
    case.step(pieces[0].roll(1, 0), state, live_B, last=False)  # what was saved is a copy
    other = case.make_state(case.slots)
    for slot in range(case.slots):  # into another state, at another place
        other.load((slot + 1) % case.slots, saved[slot])
    for i, piece in enumerate(pieces[1:], 2):
        rows = case.step(piece.roll(1, 0), other, live_B, last=i == len(pieces))
        steps.append(rows[1:] + rows[:1])
    case.same([torch.cat(rows) for rows in zip(*steps, strict=True)], want)


def check_all(case: Case) -> None:
    """Every promise of the streaming contract."""
    assert case.slots >= 3 and all(len(cut) > 1 for cut in case.cuts[-1:])
    with torch.no_grad():
        for function in CHECKS:
            function(case)
