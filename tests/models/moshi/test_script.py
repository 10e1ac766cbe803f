"""A given text: its words in order, at the places where the model would say one."""

from __future__ import annotations

import pytest
import torch

from duologue.errors import PartError
from duologue.models.moshi.script import LONGEST, append, follow, init_script

PAD, END = 3, 0
ROWS = torch.tensor([0, 1])
FREE = torch.ones(2, dtype=torch.bool)


def steps(script, drawn: list[int], *, free: torch.Tensor = FREE) -> list[int]:
    """What slot 1 says; slot 0 draws 30 throughout."""
    said = []
    for token in drawn:
        text_R = follow(script, ROWS, torch.tensor([30, token]), rests=(PAD, END), free_R=free)
        assert text_R[0] == 30
        said.append(int(text_R[1]))
    return said


def test_a_word_comes_where_the_model_begins_one_and_its_pieces_follow_at_once():
    script = init_script(2, torch.device("cpu"))
    append(script, 1, [10, 11, 12, 13], [True, False, True, True])
    assert steps(script, [PAD, PAD, PAD, END, 20, PAD, 21, 22]) == [10, 11, PAD, END, 12, PAD, 13, 22]


def test_a_rest_is_bounded_and_the_first_word_comes_at_once():
    script = init_script(2, torch.device("cpu"))
    append(script, 1, [10, 11], [True, True])
    assert steps(script, [PAD] * 16) == [10] + [PAD] * 12 + [11] + [PAD] * 2


def test_what_is_given_otherwise_goes_before_it():
    script = init_script(2, torch.device("cpu"))
    append(script, 1, [10], [True])
    assert steps(script, [20, 21], free=~FREE) == [20, 21]
    assert steps(script, [PAD]) == [10]


def test_more_text_comes_after_what_waits_and_too_much_is_refused():
    script = init_script(2, torch.device("cpu"))
    append(script, 1, [10, 11, 12], [True] * 3)
    assert steps(script, [20, 20]) == [10, 11]
    append(script, 1, [13], [True])
    assert steps(script, [PAD, 20, 20, 20]) == [PAD, 12, 13, 20]
    append(script, 1, [5] * (LONGEST - 1), [True] * (LONGEST - 1))
    with pytest.raises(PartError, match=str(LONGEST)):
        append(script, 1, [6, 6], [True] * 2)
    assert steps(script, [20] * LONGEST) == [5] * (LONGEST - 1) + [20]


def test_a_reset_slot_has_nothing_to_say():
    script = init_script(2, torch.device("cpu"))
    append(script, 1, [10], [True])
    script.reset(torch.tensor([False, True]))
    assert steps(script, [20]) == [20]
