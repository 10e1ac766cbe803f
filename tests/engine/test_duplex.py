"""Duplex families in the engine: ticks on the clock, whatever the clients send and however long the model takes."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import DuplexEcho, tone
from loudness import Loudness

from duologue.engine import Engine, Session, SessionConfig
from duologue.engine.duplex import Intake, TickClock
from duologue.errors import BusyError
from duologue.streaming.events import Audio, Declined, Event, Failed, Heard, Late, Text

RATE, TICK = 24_000, 1_920


class Watching:
    """Counts."""

    def __init__(self):
        self.misses = 0

    def step(self, seconds):
        pass

    def opened(self):
        pass

    def refused(self):
        pass

    def underrun(self):
        pass

    def missed(self, sessions):
        self.misses += sessions

    def event(self, event):
        pass


class Driver:
    """An engine whose thread is the test, and whose clock is set by hand."""

    def __init__(self, model: DuplexEcho | None = None, *, slots: int = 3):
        self.time, self.model, self.watch = 100.0, model or DuplexEcho(), Watching()
        self.engine = Engine(self.model, slots=slots, voice=Loudness(), watch=self.watch, clock=lambda: self.time)

    def open(self, **options) -> tuple[Session, list[Event]]:
        events: list[Event] = []
        session = self.engine.open(events.append, SessionConfig(**options))
        self.run()
        return session, events

    def run(self) -> None:
        """Until there is nothing to do now."""
        self.engine._take_posts(wait=None)
        while self.engine.step():
            pass

    def wait(self, seconds: float, *, each: float = 0.01) -> None:
        for _ in range(round(seconds / each)):
            self.time += each
            self.run()

    def say(self, session: Session, samples: np.ndarray, *, each: float = 0.02) -> None:
        """Hands audio in as a microphone does."""
        for block in np.split(samples, range(size := round(each * RATE), len(samples), size)):
            session.listen(block)
            self.wait(len(block) / RATE)


def heard(events: list[Event]) -> np.ndarray:
    return np.concatenate([np.zeros(0)] + [event.samples for event in events if isinstance(event, Audio)])


def loud_ticks(events: list[Event]) -> int:
    return int((np.abs(heard(events).reshape(-1, TICK)).max(1) > 0.1).sum())


def test_there_is_a_tick_every_80_ms_also_where_the_client_sends_nothing():
    driver = Driver()
    _, events = driver.open()
    driver.wait(0.8)
    assert len(heard(events)) == 10 * TICK and driver.watch.misses == 0
    assert not [event for event in events if not isinstance(event, Audio)]


def test_what_is_heard_is_answered_in_the_same_tick_all_of_it_and_nothing_else():
    driver = Driver()
    session, events = driver.open()
    driver.wait(0.4)
    driver.say(session, tone(1.6, rate=RATE))
    driver.wait(0.8)
    assert loud_ticks(events) == 20 and "".join(e.text for e in events if isinstance(e, Text)) == "abcdefghijklmnopqrst"
    assert len(heard(events)) == pytest.approx(2.8 * RATE, abs=TICK)
    assert [event.text for event in events if isinstance(event, Heard)][-1].split()[-1] == "20"


def test_sessions_that_began_at_any_time_share_every_tick():
    driver = Driver()
    (first, _), _ = driver.open(), driver.wait(0.03)
    driver.open()
    driver.wait(0.03)
    driver.open()
    driver.say(first, tone(0.4, rate=RATE))
    assert set(driver.model.batches) == {3}


def test_jitter_within_a_tick_loses_nothing():
    driver, rng = Driver(), np.random.default_rng(0)
    session, events = driver.open()
    for block in np.split(tone(4.0, rate=RATE), 200):
        session.listen(block)
        driver.wait(0.02 + round(rng.choice([-0.02, 0.0, 0.0, 0.02]), 2))
    driver.wait(0.8)
    assert loud_ticks(events) >= 50 and not [event for event in events if isinstance(event, Late)]


def test_late_audio_is_heard_up_to_a_bound_and_what_is_not_is_reported():
    driver = Driver()
    session, events = driver.open(late=0.24)
    driver.say(session, tone(0.8, rate=RATE))
    driver.wait(2.0)  # the network is away
    before = loud_ticks(events)
    session.listen(tone(2.0, rate=RATE))  # all at once
    driver.run()
    driver.wait(0.8)
    late = sum(event.seconds for event in events if isinstance(event, Late))
    assert late == pytest.approx(2.0 - 0.24, abs=0.08)
    assert loud_ticks(events) - before == pytest.approx(3, abs=1)


def test_after_late_audio_the_next_silence_brings_a_session_back_to_the_clock():
    driver = Driver()
    session, events = driver.open()
    driver.say(session, tone(0.8, rate=RATE))
    driver.wait(0.24)
    session.listen(tone(0.16, rate=RATE))  # late, but within the bound
    driver.say(session, np.zeros(RATE, np.float32))
    count = len(heard(events))
    driver.say(session, tone(0.16, rate=RATE))
    driver.wait(0.08)
    assert np.abs(heard(events)[count : count + 3 * TICK]).max() > 0.1  # and not three ticks later
    assert not [event for event in events if isinstance(event, Late)]


def test_audio_ahead_of_time_waits_for_its_ticks():
    driver = Driver()
    session, events = driver.open(backlog=5.0)
    session.listen(tone(4.8, rate=RATE))
    with pytest.raises(BusyError, match="at most 5 seconds"):
        session.listen(tone(1.0, rate=RATE))
    driver.wait(0.2)
    assert loud_ticks(events) in (2, 3)
    driver.wait(6.0)
    assert loud_ticks(events) == 60 and not [event for event in events if isinstance(event, Late)]


def test_what_was_kept_back_while_the_client_connected_is_late_too():
    driver = Driver()
    session, events = driver.open()
    driver.wait(1.6)
    session.listen(tone(1.6, rate=RATE))
    driver.run()
    driver.say(session, tone(0.8, rate=RATE))
    driver.wait(0.4)
    assert loud_ticks(events) == pytest.approx(10 + 3, abs=1)  # and no more than that behind ever after


def test_from_a_microphone_nothing_comes_ahead_of_time():
    driver = Driver()
    session, events = driver.open(ahead=False)
    session.listen(tone(1.6, rate=RATE))  # kept back on the way
    driver.say(session, tone(0.8, rate=RATE))
    driver.wait(0.4)
    assert loud_ticks(events) == pytest.approx(10 + 3, abs=1)
    assert sum(event.seconds for event in events if isinstance(event, Late)) == pytest.approx(1.6 - 0.24, abs=0.1)


def test_a_part_of_a_tick_is_heard_when_nothing_follows():
    driver = Driver()
    session, events = driver.open()
    session.listen(tone(0.05, rate=RATE))
    driver.wait(0.4)
    assert loud_ticks(events) == 1


class Slow(DuplexEcho):
    """Takes its time in the next so many ticks."""

    def __init__(self):
        super().__init__()
        self.pass_time, self.seconds = None, []

    def speak(self, state, live_B):
        if self.seconds:
            self.pass_time(self.seconds.pop())
        return super().speak(state, live_B)


def slow() -> Driver:
    driver = Driver(model := Slow())
    model.pass_time = lambda seconds: setattr(driver, "time", driver.time + seconds)
    return driver


def test_missed_deadlines_are_counted_for_every_session_and_made_up_for():
    driver = slow()
    driver.open()
    _, events = driver.open()
    driver.wait(0.8)
    driver.model.seconds = [0.2]
    driver.wait(0.8)
    assert driver.watch.misses == 2 * 2  # the slow tick, and the one that was due meanwhile, in both
    assert len(heard(events)) // TICK == pytest.approx((driver.time - 100.0) / 0.08, abs=1)  # none is lost


def test_a_stall_that_is_too_long_to_be_made_up_for_loses_time_and_old_audio():
    driver = slow()
    session, events = driver.open()
    driver.say(session, tone(0.4, rate=RATE))
    driver.model.seconds = [5.0]
    driver.wait(0.08)
    count = len(heard(events))
    session.listen(tone(5.0, rate=RATE))  # what the client said meanwhile
    driver.run()
    driver.wait(0.4)
    assert len(heard(events)) - count <= 6 * TICK
    assert sum(event.seconds for event in events if isinstance(event, Late)) > 4.0


def test_a_session_that_reads_does_not_hold_up_the_ticks_of_others():
    driver = Driver()
    session, events = driver.open()
    _, others = driver.open()
    session.write("user", "word " * 50)
    for _ in range(5):
        driver.time += 0.08
        driver.engine._take_posts(wait=None)
        driver.engine.step()
    assert len(heard(others)) == 5 * TICK and len(heard(events)) < 5 * TICK
    driver.wait(0.4)
    assert len(heard(events)) >= 4 * TICK


def test_turns_and_answers_asked_for_change_nothing_and_a_text_is_said():
    driver = Driver()
    session, events = driver.open()
    session.end_turn()
    session.answer()
    session.stop()
    session.say("Hello there.")
    driver.wait(1.0)
    assert "".join(event.text for event in events if isinstance(event, Text)) == "Hello there. "
    assert {type(event) for event in events} == {Text, Audio}


@pytest.mark.parametrize("ask", [lambda s: s.say("Hello."), lambda s: s.write("system", "Be brief.")])
def test_what_the_family_cannot_do_is_declined_and_the_conversation_goes_on(ask):
    driver = Driver(DuplexEcho(says=False))
    session, events = driver.open()
    driver.wait(0.4)
    ask(session)
    driver.wait(0.4)
    assert [type(event) for event in events if not isinstance(event, Audio)] == [Declined]
    assert not session.closed and len(heard(events)) >= 9 * TICK


def test_an_hour_of_text_costs_no_more_than_a_minute():
    class Counting(DuplexEcho):
        longest = 0

        def text(self, ids):
            self.longest = max(self.longest, len(ids))
            return super().text(ids)

    driver = Driver(model := Counting())
    session, events = driver.open(backlog=100.0)
    session.listen(tone(60.0, rate=RATE))
    driver.wait(61.0, each=0.08)
    text = "".join(event.text for event in events if isinstance(event, Text))
    assert text == ("abcdefghijklmnopqrstuvwxyz" * 30)[:750] and model.longest <= 80


def test_without_pace_ticks_wait_for_audio_and_nothing_is_late():
    driver = Driver()
    session, events = driver.open(paced=False)
    driver.wait(0.4)
    assert not events
    session.listen(tone(2.0, rate=RATE))
    driver.run()
    assert loud_ticks(events) == 25 and len(heard(events)) == 25 * TICK


def test_a_place_that_is_given_back_is_fresh_for_the_next():
    driver = Driver(slots=1)
    session, _ = driver.open()
    driver.say(session, tone(0.8, rate=RATE))
    session.close()
    driver.run()
    later, events = driver.open()
    driver.wait(0.1)
    driver.say(later, tone(0.32, rate=RATE))
    driver.wait(0.2)
    assert "".join(event.text for event in events if isinstance(event, Text)).startswith("a")
    assert not any(isinstance(event, Failed) for event in events)


def test_the_thread_keeps_the_clock():
    import threading

    over, events = threading.Event(), []

    def sink(event: Event) -> None:
        events.append(event)
        if len(events) == 5:
            over.set()

    engine = Engine(DuplexEcho(), slots=2, voice=Loudness())
    engine.start()
    engine.open(sink)
    assert over.wait(30)
    engine.close()


def test_the_clock_says_what_is_due_missed_and_lost():
    clock = TickClock(0.08, behind=1.0)
    assert not clock.due(10.0) and clock.wait(10.0) == pytest.approx(0.08)
    assert clock.due(10.09) and clock.done(10.1) == (False, 0)
    assert not clock.due(10.1) and clock.due(10.16)
    assert clock.done(10.25) == (True, 0) and clock.due(10.25)
    missed, lost = clock.done(12.0)
    assert missed and lost == 20 and clock.wait(12.0) <= 0.08


def test_an_intake_gives_ticks_of_one_length_whatever_comes():
    intake = Intake(TICK, most=3)
    for size in (1, 3_000, 500, 5_000, 0, 1_919):
        intake.push(np.ones(size, np.float32))
    taken = [intake.take()[0] for _ in range(8)]
    assert all(len(tick) == TICK for tick in taken)
    assert sum(float(tick.sum()) for tick in taken) == 1 + 3_000 + 500 + 5_000 + 1_919 and intake.waiting == 0
