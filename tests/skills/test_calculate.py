from __future__ import annotations

from fractions import Fraction

import pytest

from duologue.skills.calculate import TooLargeError, evaluate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 + 3 * 4", 14),
        ("( 2 + 3 ) * 4", 20),
        ("2 ^ 3 ^ 2", 512),
        ("- 2 ^ 2", -4),
        ("0.1 + 0.2", Fraction(3, 10)),
        ("1 / 3 * 3", 1),
        ("15 % * 80", 12),
        ("200 + 10 %", 220),
        ("200 - 10 % + 5", 185),
        ("sqrt 144 + 1", 13),
        ("sqrt ( 16 + 9 )", 5),
        ("2 ^ - 2", Fraction(1, 4)),
        ("1 ^ 99999999", 1),
        ("0 ^ 0", 1),
        ("10 - - 3", 13),
        ("99999999999999 * 99999999999999", 9999999999999800000000000001),
    ],
)
def test_arithmetic_is_exact(expression, value):
    assert evaluate(expression) == (value, True)


def test_a_root_is_near_and_says_so():
    value, exact = evaluate("sqrt 2")
    assert not exact
    assert abs(value * value - 2) < Fraction(1, 10**30)
    assert evaluate("8 ^ ( 1 / 3 )")[1] is False


@pytest.mark.parametrize(
    "expression", ["9 ^ 9 ^ 9", "10 ^ 99999", "9" * 31, "99999 ^ 999", "0.5 ^ 99999", "9 ^ 9999.5"]
)
def test_what_is_too_large_is_refused(expression):
    with pytest.raises(TooLargeError):
        evaluate(expression)


@pytest.mark.parametrize("expression", ["1 / 0", "0 ^ - 1", "1 / ( 2 - 2 )"])
def test_division_by_zero(expression):
    with pytest.raises(ZeroDivisionError):
        evaluate(expression)


@pytest.mark.parametrize(
    "expression",
    ["", "2 +", "( 2", "2 )", "2 2", "import os", "__import__('os')", "2 ** 3", "1 + " * 60 + "1", "1;2", "1e9"],
)
def test_what_is_no_expression_is_refused(expression):
    with pytest.raises(ValueError, match=r".+"):
        evaluate(expression)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("what is twelve times seven", "That is eighty-four."),
        ("what is too plus too", "That is four."),
        ("what's fifteen percent of eighty", "That is twelve."),
        ("two hundred plus ten percent", "That is two hundred twenty."),
        ("what is two thirds of ninety", "That is sixty."),
        ("six divided by a half", "That is twelve."),
        ("four to the power of a half", "That is two."),
        ("what is one divided by three", "That is about zero point three three three."),
        ("subtract five from twenty", "That is fifteen."),
        ("what is ten minus minus four", "That is fourteen."),
        ("square root of minus four", "That has no answer among the real numbers."),
        ("what is seven divided by zero", "Nothing can be divided by zero."),
        ("9**9**9", "That number is too large for me."),
        ("what is a trillion times a trillion", "That is about one times ten to the power of twenty-four."),
    ],
)
def test_spoken_sums(said, answer, ask, context):
    assert ask("calculate", said, context) == answer


@pytest.mark.parametrize(
    "said", ["what is seven", "what is time", "minus five", "one two three", "is two a prime number", "plus"]
)
def test_what_is_no_sum_is_left_alone(said, ask, context):
    assert ask("calculate", said, context) is None
