"""Who comes first."""

from __future__ import annotations

import math
from dataclasses import dataclass

from duologue.engine.scheduler import Scheduler, SchedulerConfig

CONFIG = SchedulerConfig(dry=0.2, low=0.6, high=4.0, patience=0.25)


@dataclass
class One:
    can_listen: bool = False
    can_write: bool = False
    can_end: bool = False
    waiting_since: float = 0.0
    speaking: bool = False
    ahead: float = -math.inf

    def lead(self, now: float) -> float:
        return self.ahead


def talker(ahead: float) -> One:
    return One(speaking=True, ahead=ahead)


def test_all_speak_together_but_who_has_much_ahead():
    first, near, far, full = talker(-math.inf), talker(0.5), talker(3.0), talker(4.5)
    plan = Scheduler(CONFIG).plan([first, near, far, full], 0.0)
    assert plan.speak == [first, near, far]  # the step is made anyway
    plan = Scheduler(CONFIG).plan([far, full], 0.0)
    assert plan.speak == [far]
    assert Scheduler(CONFIG).plan([full], 0.0).empty


def test_ends_of_turns_wait_for_speech_that_is_needed_but_not_for_ever():
    scheduler, ending, near = Scheduler(CONFIG), One(can_end=True, waiting_since=1.0), talker(0.5)
    assert scheduler.plan([ending, near], 1.1).speak == [near]
    assert scheduler.plan([ending, near], 1.3).end == [ending]
    assert scheduler.plan([ending, talker(3.0)], 1.0).end == [ending]


def test_text_is_read_a_piece_at_a_time_after_ends_of_turns():
    scheduler, ending, writers = Scheduler(CONFIG), One(can_end=True), [One(can_write=True), One(can_write=True)]
    plan = scheduler.plan([ending, *writers], 0.0)
    assert plan.end == [ending] and not plan.write
    assert scheduler.plan(writers, 0.0).write == writers[:1]


def test_where_speech_would_run_dry_all_else_waits_for_a_moment():
    scheduler, listener, drying = Scheduler(CONFIG), One(can_listen=True), talker(0.1)
    for now in (0.0, 0.1, 0.2):
        plan = scheduler.plan([listener, drying], now)
        assert plan.speak == [drying] and not plan.listen
    assert scheduler.plan([listener, drying], 0.3).listen == [listener]
    assert not scheduler.plan([listener, drying], 0.31).listen  # and again


def test_speech_that_has_run_dry_comes_before_all_else_too():
    plan = Scheduler(CONFIG).plan([One(can_end=True, waiting_since=-9.0), dry := talker(-0.05)], 0.0)
    assert plan.speak == [dry] and not plan.end
    assert Scheduler(CONFIG).plan([ending := One(can_end=True, waiting_since=-9.0), talker(-math.inf)], 0.0).end == [
        ending
    ]


def test_one_long_piece_of_work_at_a_time_while_somebody_speaks_with_little_ahead():
    listener, ending = One(can_listen=True), One(can_end=True, waiting_since=0.0)
    assert Scheduler(CONFIG).plan([listener, ending, talker(0.5)], 1.0).listen == []
    assert Scheduler(CONFIG).plan([listener, ending, talker(0.7)], 1.0).listen == [listener]
