from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from duologue.skills import dates, times
from duologue.skills.words import request

TODAY = date(2026, 3, 4)  # a Wednesday


@pytest.mark.parametrize(
    ("said", "day"),
    [
        ("tomorrow", "2026-03-05"),
        ("the day after tomorrow", "2026-03-06"),
        ("the day before yesterday", "2026-03-02"),
        ("in ten days", "2026-03-14"),
        ("two weeks ago", "2026-02-18"),
        ("three weeks from today", "2026-03-25"),
        ("a week from friday", "2026-03-13"),
        ("in two months", "2026-05-04"),
        ("friday", "2026-03-06"),
        ("wednesday", "2026-03-11"),
        ("next friday", "2026-03-13"),
        ("last monday", "2026-03-02"),
        ("next month", "2026-04-04"),
        ("march fourth", "2026-03-04"),
        ("march third", "2027-03-03"),
        ("the third of march twenty thirty", "2030-03-03"),
        ("july fourth seventeen seventy six", "1776-07-04"),
        ("may first nineteen oh five", "1905-05-01"),
        ("the twenty ninth of february", "2028-02-29"),
        ("the fifth", "2026-03-05"),
        ("the third", "2026-04-03"),
        ("2027-12-31", "2027-12-31"),
        ("christmas", "2026-12-25"),
        ("christmas eve next year", "2027-12-24"),
        ("new year's day", "2027-01-01"),
        ("easter", "2026-04-05"),
        ("good friday twenty twenty seven", "2027-03-26"),
        ("thanksgiving", "2026-11-26"),
        ("mother's day", "2026-05-10"),
    ],
)
def test_dates_as_they_are_said(said, day):
    assert dates.whole(request(said), TODAY) == date.fromisoformat(day)


@pytest.mark.parametrize(
    "said", ["the thirty first of february", "february twenty ninth twenty twenty seven", "the sky", ""]
)
def test_what_is_no_date_is_none(said):
    assert dates.whole(request(said), TODAY) is None


def test_the_past_is_meant_where_it_is_asked_for():
    assert dates.whole("december 25th", TODAY, past=True) == date(2025, 12, 25)
    assert dates.whole("christmas", TODAY, past=True) == date(2025, 12, 25)


def test_over_the_end_of_a_year_and_of_a_month():
    assert dates.find("tomorrow", date(2026, 12, 31)).date == date(2027, 1, 1)
    assert dates.shift(date(2024, 2, 29), 1, "year") == date(2025, 2, 28)
    assert dates.shift(date(2026, 1, 31), 1, "month") == date(2026, 2, 28)


@pytest.mark.parametrize("said", ["in 99999999999 days", "in 9000 years", "3000 years ago", "in 3999999 weeks"])
def test_a_date_outside_the_calendar_is_refused(said):
    with pytest.raises(dates.TooFarError):
        dates.find(said, TODAY)


@pytest.mark.parametrize(
    ("said", "time", "sure"),
    [
        ("at seven", "07:00", False),
        ("at seven pm", "19:00", True),
        ("half past six", "06:30", False),
        ("quarter to nine in the evening", "20:45", True),
        ("quarter past two in the afternoon", "14:15", True),
        ("twenty to one", "12:40", False),
        ("six oh five pm", "18:05", True),
        ("seven thirty", "07:30", False),
        ("13:45", "13:45", True),
        ("twelve thirty am", "00:30", True),
        ("twelve pm", "12:00", True),
        ("noon", "12:00", True),
        ("midnight", "00:00", True),
        ("tonight at eight", "20:00", True),
        ("eleven at night", "23:00", True),
        ("tomorrow morning at six", "06:00", True),
    ],
)
def test_times_as_they_are_said(said, time, sure):
    found = times.find(request(said))
    assert (found.iso, found.sure) == (time, sure)


@pytest.mark.parametrize("said", ["at 25 61", "at 99", "5 people", "3.5", "in five minutes"])
def test_what_is_no_time_is_none(said):
    assert times.find(request(said)) is None


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("five minutes", 300),
        ("an hour and a half", 5400),
        ("an hour twenty", 4800),
        ("two minutes and thirty seconds", 150),
        ("half an hour", 1800),
        ("ninety seconds", 90),
        ("two hours five minutes and ten seconds", 7510),
        ("a quarter of an hour", 900),
        ("1.5 seconds", 1.5),
    ],
)
def test_lengths_of_time(said, seconds):
    assert times.find_duration(request(said)).seconds == seconds


def test_a_time_that_a_clock_change_leaves_out_is_the_one_after():
    zone = ZoneInfo("Europe/Berlin")  # from 02:00 to 03:00 on this day
    assert times.at(date(2026, 3, 29), 2, 30, zone).hour == 3


def test_a_length_is_real_time_over_a_clock_change():
    before = datetime(2026, 3, 29, 1, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    after = times.after(before, timedelta(hours=1))
    assert after.hour == 3
    assert after.astimezone(timezone.utc) - before.astimezone(timezone.utc) == timedelta(hours=1)
