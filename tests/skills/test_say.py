from __future__ import annotations

from datetime import date, datetime, timedelta
from fractions import Fraction

import pytest

from duologue.skills import say


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "zero"),
        (-7, "minus seven"),
        (1234, "one thousand two hundred thirty-four"),
        (10**15, "about one times ten to the power of fifteen"),
    ],
)
def test_whole_numbers(number, said):
    assert say.cardinal(number) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (Fraction(5, 2), "two point five"),
        (Fraction(-5, 2), "minus two point five"),
        (Fraction(10, 3), "about three point three three"),
        (Fraction(1, 3), "about zero point three three"),
        (Fraction(1, 800), "about zero point zero zero one two"),
        (Fraction(12, 10_000), "zero point zero zero one two"),
        (Fraction(2999, 1000), "about three"),
        (0.1, "zero point one"),
        (Fraction(0), "zero"),
        (Fraction(10**30), "about one times ten to the power of thirty"),
        (Fraction(1, 10**12), "about one times ten to the power of minus twelve"),
    ],
)
def test_a_rounded_number_says_about_and_an_exact_one_does_not(number, said):
    assert say.decimal(number) == said


def test_years_dates_and_clocks():
    assert [say.year(year) for year in (1984, 2007, 1905, 1900)] == [
        "nineteen eighty-four",
        "two thousand seven",
        "nineteen oh five",
        "nineteen hundred",
    ]
    assert say.day(date(2026, 3, 4), today=date(2026, 1, 1)) == "Wednesday, March fourth"
    assert say.day(date(2028, 2, 29), today=date(2026, 1, 1)) == "Tuesday, February twenty-ninth, twenty twenty-eight"
    times = [(0, 0), (0, 5), (9, 0), (12, 0), (12, 30), (15, 5), (18, 0), (23, 59)]
    assert [say.clock(datetime(2026, 3, 4, *time)) for time in times] == [
        "midnight",
        "twelve oh five in the morning",
        "nine o'clock in the morning",
        "noon",
        "twelve thirty in the afternoon",
        "three oh five in the afternoon",
        "six o'clock in the evening",
        "eleven fifty-nine at night",
    ]


def test_durations_and_lists():
    assert say.duration(timedelta(seconds=90061)) == "one day, one hour, one minute and one second"
    assert say.duration(timedelta(0)) == "zero seconds"
    assert say.listing([]) == ""


def test_written_text_loses_markup_and_digits():
    text = "## Hours\n* Open **9:05** to 17:00, see [the site](http://a.b), 1,250 seats & 3.5% off since 1998."
    said = say.written(text)
    assert said == (
        "Hours Open nine oh five to seventeen o'clock, see the site, one thousand two hundred fifty seats and "
        "three point five percent off since nineteen ninety-eight."
    )


def test_written_text_is_cut_between_sentences():
    assert say.written("One here. Two here. Three here.", most=20) == "One here. Two here."
    assert len(say.written("word " * 1000, most=100)) <= 101
