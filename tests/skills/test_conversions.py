from __future__ import annotations

import json

import pytest

from duologue.errors import ConfigError
from duologue.skills import SKILLS, answer
from duologue.skills.currency import money, read_rates
from duologue.skills.unit_table import units


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("how many kilometers is five miles", "Five miles are about eight point zero five kilometers."),
        ("how many feet are in a mile", "One mile is five thousand two hundred eighty feet."),
        (
            "convert minus forty celsius to fahrenheit",
            "Minus forty degrees Celsius are minus forty degrees Fahrenheit.",
        ),
        (
            "what is zero kelvin in celsius",
            "Zero kelvin are minus two hundred seventy-three point two degrees Celsius.",
        ),
        (
            "six feet two inches in centimeters",
            "Seventy-four inches are one hundred eighty-seven point nine six centimeters.",
        ),
        ("half a liter in ounces", "Zero point five liters are about sixteen point nine one fluid ounces."),
        (
            "a hundred kilometers an hour in miles per hour",
            "One hundred kilometers per hour are about sixty-two point one four miles per hour.",
        ),
        ("how many seconds are in a week", "One week is six hundred four thousand eight hundred seconds."),
        ("how many liters is five kilometers", "I cannot convert kilometers to liters."),
        ("convert minus five hundred celsius to kelvin", "There is no such temperature: that is below absolute zero."),
    ],
)
def test_units(said, answer, ask, context):
    assert ask("convert_units", said, context) == answer


def test_every_unit_comes_back_to_itself(context):
    for unit in units():
        assert SKILLS["convert_units"].match(f"what is 3 {units()[unit].many.lower()} in {unit}", context) is not None
        said = answer("convert_units", {"amount": 300, "unit": unit, "to": unit}, context)
        assert said.lower().count(units()[unit].many.lower()) == 2
        assert "about" not in said


def test_an_amount_beyond_counting_is_refused(context):
    assert "too large" in answer("convert_units", {"amount": 1e300, "unit": "mile", "to": "inch"}, context)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("how much is fifty dollars in euros", "Fifty dollars are about forty-five euros and forty-five cents."),
        ("one euro in yen", "One euro is about one hundred sixty yen."),
        ("convert ten pounds to dollars", "Ten pounds are about twelve dollars and ninety-four cents."),
        ("what's one yen in euros", "One yen is about one cent."),
        ("ten rupees in euros", "I have no exchange rate for rupees."),
        (f"{'9' * 40} dollars in euros", "That is more money than I can count."),
    ],
)
def test_currencies(said, answer, ask, context):
    assert ask("convert_currency", said, context) == answer


def test_without_a_table_nothing_is_guessed(context):
    bare = type(context)(context.now)
    assert (
        answer("convert_currency", {"amount": 1, "currency": "USD", "to": "EUR"}, bare) == "I have no exchange rates."
    )


def test_money_in_words():
    assert money(1, "USD") == "one cent"
    assert money(100, "USD") == "one dollar"
    assert money(0, "USD") == "zero dollars"
    assert money(250, "XAU") == "two X A U"


def test_rates_from_json_and_csv(tmp_path):
    path = tmp_path / "rates.json"
    path.write_text(json.dumps({"base": "EUR", "rates": {"usd": 1.1}}))
    assert read_rates(path) == {"EUR": 1.0, "USD": 1.1}
    path = tmp_path / "rates.csv"
    path.write_text("currency,rate\nEUR,1\nUSD,1.1\n")
    assert read_rates(path) == {"EUR": 1.0, "USD": 1.1}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"base": "EUR", "rates": {"USD": -1}}', '{"base": "EUR", "rates": {"dollar": 1}}',
             '{"base": "EUR", "rates": {"USD": "many"}}', '{"base": "EUR", "rates": {"USD": NaN}}']
)  # fmt: skip
def test_a_damaged_table_is_refused_by_name(text, tmp_path):
    path = tmp_path / "rates.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"rates\.json"):
        read_rates(path)
    with pytest.raises(ConfigError, match=r"gone\.csv"):
        read_rates(tmp_path / "gone.csv")
