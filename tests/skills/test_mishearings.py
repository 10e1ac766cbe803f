"""A request that was misheard by a word is still understood, and what was no request does not become one."""

from __future__ import annotations

import pytest

from duologue.skills.evaluation import evaluate, requests, setting
from duologue.skills.mishearings import readings
from duologue.skills.router import Router, RouterConfig


@pytest.fixture(scope="module")
def ready():
    return setting()


@pytest.mark.parametrize(
    "heard,tool,arguments",
    [
        ("Time for an hour and a half, please.", "timer", {"action": "set", "kind": "timer", "seconds": 5400}),
        ("Can't sell the timer.", "timer", {"action": "cancel", "kind": "timer"}),
        ("Convent ten miles to kilometers.", "convert_units", {"amount": 10, "unit": "mile", "to": "kilometer"}),
        ("How many cups are in the gallon?", "convert_units", {"amount": 1, "unit": "gallon", "to": "cup"}),
        ("Convert to a hundred pounds to yen.", "convert_currency", {"amount": 200, "currency": "GBP", "to": "JPY"}),
        ("Define kadak.", "define", {"term": "codec"}),
        ("What's the date for three weeks from today?", "day_arithmetic", None),
    ],
)
def test_a_word_that_sounds_alike_is_read_as_what_was_said(heard, tool, arguments, ready):
    tools, context = ready
    choice = Router().choose(heard, tools, context)
    assert choice and choice.tool == tool and (arguments is None or choice.arguments == arguments)
    sure = RouterConfig().threshold
    assert sure <= choice.confidence < 0.95  # less sure than of what was heard word by word
    assert Router(RouterConfig(threshold=0.99)).choose(heard, tools, context) is None


@pytest.mark.parametrize(
    "heard",
    [
        "What is time?",
        "Can you smell that?",
        "Can you divide by zero?",
        "So, play some music.",
        "What's something you can't do?",
        "I had a good time.",
        "How was your weak?",
        "",
        "timer " * 200,
    ],
)
def test_what_asks_for_nothing_is_not_read_as_a_request(heard, ready):
    tools, context = ready
    ours = [tool for tool in tools if tool.skill]
    assert Router().choose(heard, ours, context) is None


def test_what_was_heard_word_by_word_is_never_changed(ready, monkeypatch):
    tools, context = ready
    with monkeypatch.context() as patch:
        patch.setattr("duologue.skills.router.readings", lambda *_: pytest.fail("not needed"))
        assert Router().choose("what is ten pounds in kilograms", tools, context).arguments["amount"] == 10


def test_readings_differ_in_one_place_and_are_bounded():
    found = readings("please said a time for tin minutes and wake me for the train to town")
    assert 0 < len(found) <= 24
    assert all(0 < likeness <= 1 for _, likeness in found)
    assert [likeness for _, likeness in found] == sorted((likeness for _, likeness in found), reverse=True)
    assert not readings("word " * 30) and not readings("time")
    assert any("jitter" in text for text, _ in readings("define jetter", ["jitter"]))


def test_requests_that_were_misheard_are_routed_as_well_as_they_were(ready):
    tools, context = ready
    report = evaluate(Router(), requests(heard=True), tools=tools, context=context)
    assert report.tool >= 0.92 and report.exact >= 0.87 and report.false_calls <= 0.02
