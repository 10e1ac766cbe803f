from __future__ import annotations

import numpy as np
import pytest

from duologue import numbers
from duologue.data.spoken_text import SpokenText, key_of, sentences, speakable, with_fillers


@pytest.fixture(scope="module")
def rules() -> SpokenText:
    return SpokenText()


WRITTEN = [
    ("What is 25% of 80?", "What is twenty-five percent of eighty?"),
    (
        "On July 4, 1776 at 9:05 am, 1,250 people paid $9.99 each.",
        "On July fourth, seventeen seventy-six at nine oh five a m, "
        "one thousand two hundred fifty people paid nine dollars and ninety-nine cents each.",
    ),
    ("Henry VIII ruled from 1509-1547.", "Henry the eighth ruled from fifteen oh nine to fifteen forty-seven."),
    ("World War II ended in 1945.", "World War two ended in nineteen forty-five."),
    ("It is 20°C, or 68 °F.", "It is twenty degrees Celsius, or sixty-eight degrees Fahrenheit."),
    ("The 1980s and 90s.", "The nineteen eighties and nineties."),
    ("the 21st, 3rd and 112th", "the twenty-first, third and one hundred twelfth"),
    ("Pi is 3.14159.", "Pi is three point one four one five nine."),
    ("1/2 cup and 3/4 cup", "One half cup and three quarters cup"),
    ("What is 7 - 5?", "What is seven minus five?"),
    ("What's 12 x 7?", "What's twelve times seven?"),
    ("5-6 times", "Five to six times"),
    ("5 km is 3.1 mi.", "Five kilometers is three point one miles."),
    ("1 kg", "One kilogram"),
    ("I am 6 ft tall", "I am six feet tall"),
    ("Dr. Smith vs. Mr. Jones", "Doctor Smith versus Mister Jones"),
    ("$3.2 billion", "Three point two billion dollars"),
    ("£1.50", "One pound and fifty pence"),
    ("-5 degrees", "Minus five degrees"),
    ("It's 3:00 p.m. in the U.S. now.", "It's three p m in the U S now."),
    ("2024-03-05", "March fifth, twenty twenty-four"),
    ("5 March 2007", "The fifth of March two thousand seven"),
    ("Call 555-123-4567.", "Call five five five, one two three, four five six seven."),
    ("Visit www.example.com today.", "Visit example dot com today."),
    ("dogs & cats", "dogs and cats"),
    ("2^10", "Two to the power of ten"),
    ("No. That is wrong. See No. 5.", "No. That is wrong. See number five."),
    ("It’s café – ok…", "It's cafe - ok..."),
]


@pytest.mark.parametrize(("written", "said"), WRITTEN)
def test_numbers_and_symbols_become_words(rules, written, said):
    assert rules.spell_out(written) == said


@pytest.mark.parametrize("written", [written for written, _ in WRITTEN])
def test_spelling_out_twice_changes_nothing(rules, written):
    once = rules.spell_out(written)
    assert rules.spell_out(once) == once
    assert not any(char.isdigit() for char in once)


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "zero"), (13, "thirteen"), (100, "one hundred"), (1_000_001, "one million one"), (-42, "minus forty-two")],
)
def test_cardinals(number, words):
    assert numbers.cardinal(number) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "first"), (12, "twelfth"), (20, "twentieth"), (40, "fortieth"), (101, "one hundred first")],
)
def test_ordinals(number, words):
    assert numbers.ordinal(number) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(1905, "nineteen oh five"), (2000, "two thousand"), (2010, "twenty ten"), (1900, "nineteen hundred")],
)
def test_years(number, words):
    assert numbers.year(number) == words


def test_roman_numerals_are_read_only_where_they_are_well_formed():
    assert [numbers.roman(text) for text in ("XIV", "IX", "IIII", "MIX", "")] == [14, 9, 0, 0, 0]


def test_the_same_question_has_the_same_key():
    assert key_of("What's 5 + 7?") == key_of("what’s five plus SEVEN")
    assert key_of("What's 5 + 7?") != key_of("What's 5 + 8?")


def test_an_answer_loses_what_cannot_be_said():
    text = 'Here **it** is:\n- One (1) "thing" is [good](http://a.example).\n- Two is better.\nThree is best. And so'
    assert speakable(text, most_sentences=3) == "Here it is: One thing is good. Two is better. Three is best."


def test_sentences_are_cut_at_their_ends_only():
    assert sentences("It is 3.5 long. Really? Yes!") == ["It is 3.5 long.", "Really?", "Yes!"]


def test_a_filler_goes_before_and_keeps_names_in_capitals():
    rng = np.random.default_rng(0)
    options = {"fillers": ["Um,"], "chance": 1.0, "endings": ["please"], "ending_chance": 1.0}
    assert with_fillers("Where is it?", rng, **options) == "Um, where is it, please?"
    assert with_fillers("I think so.", rng, **options) == "Um, I think so."
    assert with_fillers("Where?", rng, fillers=["Um,"], chance=0.0, endings=[], ending_chance=0.0) == "Where?"
