"""How much speech an answer needs before it may play."""

from __future__ import annotations

import pytest

from duologue.engine.pace import Pace


def test_four_steps_without_sound_are_outlasted():
    pace = Pace()
    assert pace.headstart(alone=True) == 0.0
    for seconds in (0.05, 0.06, 0.9, 0.04, 0.06):  # one that the machine was busy with something else at
        pace.thought(seconds)
    assert pace.headstart(alone=True) == pytest.approx(0.24)


def test_beside_others_there_is_more_and_what_was_long_ago_is_forgotten():
    pace = Pace()
    assert pace.headstart(alone=False) == 0.3
    for _ in range(8):
        pace.thought(0.4)
    assert pace.headstart(alone=False) == pytest.approx(1.6)
    for _ in range(16):
        pace.thought(0.03)
    assert pace.headstart(alone=False) == 0.3 and pace.headstart(alone=True) == pytest.approx(0.12)
