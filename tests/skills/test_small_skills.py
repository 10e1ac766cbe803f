from __future__ import annotations

import pytest

from duologue.errors import ConfigError
from duologue.skills import Context, answer
from duologue.skills.define import read_glossary


def test_spelling(ask, context):
    assert ask("spell", "how do you spell rhythm", context) == "Rhythm is spelled: R, H, Y, T, H, M."
    assert ask("spell", "spell the word can't", context) is not None
    assert answer("spell", {"word": "b4"}, context) == "B4 is spelled: B, four."
    assert answer("spell", {"word": "x" * 31}, context) == "That is too long to spell."
    assert answer("spell", {"word": "!?"}, context) == "There is nothing to spell."
    assert ask("spell", "what is a good way to learn to spell", context) is None


def test_coins_and_dice_follow_the_generator(ask, context):
    same = Context(context.now, rng=type(context.rng)(1))
    assert ask("chance", "flip a coin", context) == ask("chance", "flip a coin", same)
    seen = {ask("chance", "flip a coin", context) for _ in range(60)}
    assert seen == {"Heads.", "Tails."}
    rolls = [ask("chance", "roll a die", context) for _ in range(300)]
    assert set(rolls) == {"One.", "Two.", "Three.", "Four.", "Five.", "Six."}


def test_two_dice_are_added(ask, context):
    assert ask("chance", "roll two dice", context) == "Two and five. That makes seven."


def test_numbers_between_and_hostile_counts(ask, context):
    said = {ask("chance", "pick a number between two and three", context) for _ in range(40)}
    assert said == {"Two.", "Three."}
    assert ask("chance", "roll 99999999999 dice", context) == "I can throw twenty at most."
    assert answer("chance", {"what": "die", "sides": 10**30}, context) == "I have no die with that many sides."
    assert (
        answer("chance", {"what": "number", "low": 0, "high": 10**30}, context) == "Those numbers are too large for me."
    )


def test_definitions_come_from_the_glossary_and_nowhere_else(ask, context):
    assert ask("define", "what does jitter mean", context) == "Jitter: Uneven delay."
    assert ask("define", "define jiter", context) == "Jitter: Uneven delay.", "one letter off"
    assert ask("define", "define latency", context) is None
    assert answer("define", {"term": "latency"}, context) == "That is not in my glossary."


def test_a_glossary_file(tmp_path):
    path = tmp_path / "glossary.json"
    path.write_text('{"Jitter": "Uneven delay."}')
    assert read_glossary(path) == {"jitter": "Uneven delay."}
    for text in ("[]", '{"a": 1}', "{"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"glossary\.json"):
            read_glossary(path)


def test_an_unknown_skill_and_wrong_arguments_are_refused_by_name(context):
    with pytest.raises(ConfigError, match="'tea'"):
        answer("tea", {}, context)
    with pytest.raises(ConfigError, match="amount"):
        answer("convert_units", {"amount": "five", "unit": "mile", "to": "inch"}, context)
    with pytest.raises(ConfigError, match="expression"):
        answer("calculate", {}, context)
    with pytest.raises(ConfigError, match="seconds"):
        answer("timer", {"action": "set", "seconds": -1}, context)
