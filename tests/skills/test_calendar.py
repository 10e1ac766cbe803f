from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from duologue.errors import ConfigError
from duologue.skills import Context, answer


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("what time is it", "It is three twenty in the afternoon."),
        ("what's the time in new york right now?", "In New York it is nine twenty in the morning."),
        ("what time is it in tokyo", "In Tokyo it is eleven twenty at night."),
        ("what time is it in auckland", "In Auckland it is three twenty in the morning, tomorrow."),
        ("what time is it in atlantis", "I do not know what time it is in Atlantis."),
    ],
)
def test_the_time_here_and_elsewhere(said, answer, ask, context):
    assert ask("time", said, context) == answer


@pytest.mark.parametrize(
    "said", ["what is time", "time", "do you have time to talk", "is time travel possible", "what is the time machine"]
)
def test_time_itself_is_no_question_for_the_clock(said, ask, context):
    assert ask("time", said, context) is None


def test_a_clock_change_between_the_zones(ask):
    between = Context(datetime(2026, 3, 15, 12, 0, tzinfo=ZoneInfo("Europe/Berlin")))  # the United States have changed
    assert ask("time", "what time is it in new york", between) == "In New York it is seven o'clock in the morning."


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("what's the date today", "Today is Wednesday, March fourth, twenty twenty-six."),
        ("what day is it", "It is Wednesday."),
        ("which month are we in", "It is March."),
        ("what year is it", "It is twenty twenty-six."),
        ("what week is it", "It is week ten of the year."),
    ],
)
def test_today(said, answer, ask, context):
    assert ask("date", said, context) == answer


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("what day is it in ten days", "That will be Saturday, March fourteenth."),
        ("what day was it a hundred days ago", "That was Monday, November twenty-fourth, twenty twenty-five."),
        (
            "what day of the week is february twenty ninth twenty twenty eight",
            "That will be Tuesday, February twenty-ninth, twenty twenty-eight.",
        ),
        ("how many days until christmas", "It is two hundred ninety-six days until Friday, December twenty-fifth."),
        ("how many days until tomorrow", "It is one day until Thursday, March fifth."),
        ("how many days until march fourth", "That is today."),
        ("how many days since new year's day", "It is sixty-two days since Thursday, January first."),
        ("how many weeks till the first of june", "It is twelve weeks and five days until Monday, June first."),
        (
            "how many months until christmas",
            "It is nine months and twenty-one days until Friday, December twenty-fifth.",
        ),
        (
            "how many days are there between december thirtieth and january second",
            "From Wednesday, December thirtieth, twenty twenty-six to Saturday, January second, twenty twenty-seven "
            "it is three days.",
        ),
        (
            "what day is it in ninety nine trillion years",
            "I only know dates from the year one to the year nine thousand nine hundred ninety-nine.",
        ),
    ],
)
def test_days_counted_and_named(said, answer, ask, context):
    assert ask("day_arithmetic", said, context) == answer


def test_a_leap_day_is_counted(ask):
    context = Context(datetime(2028, 2, 28, 12, 0, tzinfo=ZoneInfo("UTC")))
    assert ask("day_arithmetic", "how many days until march first", context).startswith("It is two days until")
    context = Context(datetime(2027, 2, 28, 12, 0, tzinfo=ZoneInfo("UTC")))
    assert ask("day_arithmetic", "how many days until march first", context).startswith("It is one day until")


def test_a_nonsense_date_from_a_caller_gets_an_answer(context):
    assert "only know dates" in answer("day_arithmetic", {"ask": "count", "date": "31.2."}, context)


def test_a_context_needs_a_zone():
    with pytest.raises(ConfigError, match="zone"):
        Context(datetime(2026, 3, 4))
