from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from duologue.skills import Context, answer, due, next_due
from duologue.skills.timer import MOST_ALARMS


def later(context: Context, **length: float) -> Context:
    return context.at(context.now + timedelta(**length))


def test_a_timer_is_said_once_when_it_is_due(ask, context):
    assert ask("timer", "set a timer for five minutes", context) == "Timer set for five minutes."
    assert next_due(context.memory) == context.now + timedelta(minutes=5)
    assert due(later(context, minutes=4, seconds=59)) == []
    assert due(later(context, minutes=5)) == ["Your timer for five minutes is done."]
    assert due(later(context, minutes=6)) == []
    assert next_due(context.memory) is None


def test_two_due_at_once_come_in_the_order_in_which_they_fell_due(ask, context):
    ask("timer", "set a pasta timer for eight minutes", context)
    ask("timer", "set an egg timer for five minutes", context)
    ask("timer", "remind me to call my sister in eight minutes", context)
    assert due(later(context, minutes=10)) == [
        "Your egg timer is done.",
        "Your pasta timer is done.",
        "Reminder: call your sister.",
    ]


def test_alarms_take_the_next_such_time(ask, context):
    assert (
        ask("timer", "set an alarm for six thirty am", context) == "Alarm set for six thirty in the morning tomorrow."
    )
    assert (
        ask("timer", "wake me up at seven tomorrow", context) == "Alarm set for seven o'clock in the morning tomorrow."
    )
    assert ask("timer", "set an alarm for four", context) == "Alarm set for four o'clock in the afternoon today."
    assert due(later(context, hours=1)) == ["It is four o'clock in the afternoon. This is your alarm."]


def test_a_reminder_at_a_time(ask, context):
    said = ask("timer", "remind me at five pm to call my sister", context)
    assert said == "I will remind you at five o'clock in the afternoon today: call your sister."


def test_what_is_left_is_told(ask, context):
    assert ask("timer", "how much time is left on the timer", context) == "You have no timer set."
    ask("timer", "set a timer for ten minutes", context)
    left = later(context, minutes=7, seconds=30)
    said = ask("timer", "how long is left on my timer", left)
    assert said == "Your timer for ten minutes has two minutes and thirty seconds left."
    ask("timer", "set an alarm for six pm", context)
    assert ask("timer", "when is my alarm", context) == "Your alarm is set for six o'clock in the evening today."


def test_one_of_two_is_cancelled_by_name_and_all_by_all(ask, context):
    ask("timer", "set a pasta timer for eight minutes", context)
    ask("timer", "set an egg timer for five minutes", context)
    ask("timer", "set an alarm for six pm", context)
    assert ask("timer", "cancel the timer", context) == "You have two timers. Say which one, or say all."
    assert ask("timer", "cancel the pasta timer", context) == "Your pasta timer is cancelled."
    ask("timer", "set a tea timer for three minutes", context)
    assert ask("timer", "stop all timers", context) == "Two timers cancelled."
    assert [alarm.kind for alarm in context.memory.alarms] == ["alarm"]
    assert ask("timer", "turn off the alarm", context) == "Your alarm is cancelled."
    assert ask("timer", "cancel the alarm", context) == "You have no alarm set."


def test_a_timer_without_a_length_asks_and_takes_the_answer(ask, context):
    assert ask("timer", "set a timer", context) == "For how long?"
    assert ask("timer", "ten minutes", later(context, seconds=5)) == "Timer set for ten minutes."
    assert ask("timer", "ten minutes", context) is None, "it was answered"


def test_the_question_is_forgotten_and_takes_no_other_request(ask, context):
    ask("timer", "set a timer", context)
    assert ask("timer", "what day is it in ten days", context) is None
    assert ask("timer", "ten minutes", later(context, minutes=2)) is None


def test_conversations_do_not_share_timers(ask, context):
    other = Context(context.now)
    ask("timer", "set a timer for five minutes", context)
    assert due(later(other, hours=1)) == []


def test_there_is_a_limit(ask, context):
    for _ in range(MOST_ALARMS):
        ask("timer", "set a timer for five minutes", context)
    assert ask("timer", "set a timer for five minutes", context) == "You already have twenty of them. Cancel one first."
    assert len(context.memory.alarms) == MOST_ALARMS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"action": "set", "seconds": 1e18}, "I can only wait for up to a year."),
        ({"action": "set", "at": "2026-03-04T15:00"}, "That time has already passed."),
        ({"action": "set", "at": "9999-12-31T23:59"}, "I can only wait for up to a year."),
        ({"action": "set", "at": "0001-01-01T00:00"}, "I did not understand the time."),
        ({"action": "set", "at": "soon"}, "I did not understand the time."),
    ],
)
def test_times_that_cannot_be_set_get_a_clear_answer(arguments, said, context):
    assert answer("timer", arguments, context) == said
    assert not context.memory.alarms


def test_a_timer_runs_real_time_over_a_clock_change(ask):
    context = Context(datetime(2026, 3, 29, 1, 59, tzinfo=ZoneInfo("Europe/Berlin")))
    ask("timer", "set a timer for two minutes", context)
    assert due(context.at(datetime(2026, 3, 29, 3, 1, tzinfo=ZoneInfo("Europe/Berlin"))))


@pytest.mark.parametrize(
    "said",
    [
        "the alarm scared me last night",
        "how does a timer work",
        "who invented the alarm",
        "explain how a timer in a microwave works",
    ],
)
def test_talk_about_timers_sets_none(said, ask, context):
    assert ask("timer", said, context) is None
