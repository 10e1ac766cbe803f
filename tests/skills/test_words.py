from __future__ import annotations

import pytest

from duologue.skills.words import MOST_CHARACTERS, as_said, digits, number, request


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("one hundred and twenty three thousand", "123000"),
        ("two and a half million", "2500000"),
        ("one point five billion", "1500000000"),
        ("an hour and a half", "1.5 hour"),
        ("half a mile", "0.5 mile"),
        ("three quarters of a cup", "0.75 cup"),
        ("half a dozen eggs", "6 eggs"),
        ("a quarter to eight", "a quarter to 8"),
        ("thirty second timer", "30 second timer"),
        ("the twenty second of may", "the 22nd of may"),
        ("What's 1,250 minus 375?", "What's 1250 minus 375"),
        ("It's 7:30 p.m.", "It's 7:30 pm"),
        ("seven-thirty", "7 30"),
        ("9**9", "9 * * 9"),
        ("2½", "2 1 / 2"),
    ],
)
def test_numbers_are_read_as_they_are_said(said, read):
    assert digits(said) == read


@pytest.mark.parametrize(
    "said",
    [
        "um hey could you please tell me what time it is",
        "What time it is, please?",
        "okay so what time it is right now",
    ],
)
def test_politeness_does_not_change_a_request(said):
    assert request(said) == "what time it is"


def test_only_politeness_is_still_something():
    assert request("please") == "please"
    assert request("") == ""


def test_what_was_said_keeps_its_capitals_and_its_number_words():
    said = "Please tell Anna that I'll be there in twenty five minutes."
    read = request(said).split()
    start = read.index("i")
    assert as_said(said, read, start, len(read)) == "I'll be there in twenty five minutes"
    assert as_said(said, read, read.index("anna"), read.index("anna") + 1) == "Anna"


def test_a_long_text_is_cut_and_odd_characters_are_dropped():
    assert len(digits("one two " * 2_000)) <= MOST_CHARACTERS
    assert digits("a\x00b\ud800c\u0007") == "a b c"


def test_a_number_is_as_json_has_it_and_never_infinite():
    assert repr(number("5.0")) == "5"
    assert number("2.5") == 2.5
    assert number("9" * 500) == 1e300
