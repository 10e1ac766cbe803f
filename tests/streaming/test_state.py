from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from duologue.errors import ShapeError
from duologue.streaming.state import State, slots, write


@dataclass
class Inner(State):
    x_BT: Tensor


@dataclass
class Outer(State):
    count_B: Tensor
    inner: Inner
    layers: list[Inner]


def make(size: int = 3) -> Outer:
    return Outer(torch.arange(1, 4), Inner(torch.rand(3, size) + 1), [Inner(torch.rand(3, 2) + 1) for _ in range(2)])


def test_every_tensor_is_found_by_its_dotted_name():
    assert [name for name, _ in make().tensors()] == ["count_B", "inner.x_BT", "layers.0.x_BT", "layers.1.x_BT"]


def test_reset_clears_the_chosen_slots_only():
    state = make()
    before = state.save(0)
    state.reset(torch.tensor([False, True, True]))
    assert all(not tensor[1:].any() for _, tensor in state.tensors())
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.save(0).items())


def test_a_slot_moves_to_another_state_and_place():
    state, other = make(), make()
    other.load(2, state.save(0))
    assert all(torch.equal(tensor, state.save(0)[name]) for name, tensor in other.save(2).items())


def test_loading_from_another_shape_names_the_tensor():
    with pytest.raises(ShapeError, match=r"inner\.x_BT"):
        make(3).load(0, make(4).save(0))
    with pytest.raises(ShapeError, match="same model"):
        make().load(0, Inner(torch.ones(3, 2)).save(0))


def test_write_touches_live_slots_and_carries_no_gradient():
    target, value = torch.zeros(2, 3), torch.ones(2, 3, requires_grad=True)
    write(target, value, torch.tensor([True, False]))
    assert target.tolist() == [[1, 1, 1], [0, 0, 0]]
    assert not target.requires_grad


def test_live_slots_are_taken_out_and_put_back():
    state = make()
    before = [state.save(slot) for slot in range(3)]
    with slots(state, torch.tensor([True, False, True])) as (taken, rows_R):
        assert rows_R.tolist() == [0, 2] and taken.layers[1].x_BT.shape == (2, 2)
        for _, tensor in taken.tensors():
            tensor += 1
    for slot, added in enumerate((1, 0, 1)):
        assert all(torch.equal(tensor, before[slot][name] + added) for name, tensor in state.save(slot).items())


def test_all_slots_are_not_copied():
    state = make()
    with slots(state, torch.tensor([True, True, True])) as (taken, _):
        assert taken is state


def test_after_an_error_nothing_is_written_back():
    state = make()
    before = state.save(0)
    with pytest.raises(ZeroDivisionError), slots(state, torch.tensor([True, False, True])) as (taken, _):
        taken.count_B += 1
        raise ZeroDivisionError
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.save(0).items())
