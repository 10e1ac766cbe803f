"""What a stranger may say: always none or a clear spoken answer, never an exception."""

from __future__ import annotations

import random
import re

import pytest

from duologue.skills import SKILLS, answer
from duologue.skills.evaluation import requests, setting
from duologue.skills.router import Router

HOSTILE = [
    "",
    " ",
    "\x00\ud800\u202e",
    "a" * 10_000,
    "what is " + "1 plus " * 2_000 + "1",
    "what is " + "- " * 50 + "3",
    "what is " + "( " * 40 + "3",
    "9**9**9**9",
    "what is nine to the power of nine to the power of nine",
    "set a timer for 99999999999999999999 years",
    "set a timer for 99999999999999999999 seconds",
    "set a timer for minus five minutes",
    "set a timer for zero seconds",
    "wake me up at 99 99",
    "what day is it in 99999999999999 days",
    "how many days until the first of january nine thousand nine hundred ninety nine",
    "what time is it in " + "x " * 40,
    "spell " + "z" * 500,
    "roll 99999999999999999999 dice with 99999999999999999999 sides",
    "flip 0 coins",
    "pick a number between 99999999999999999999999 and 1",
    "how much is 99999999999999999999999999999999999999999 dollars in euros",
    "how many inches is 1" + "0" * 400 + " miles",
    "٣ plus ٤",
    "½ plus ¼",
    "{{7*7}} ${jndi:ldap://x} <script>alert(1)</script> '; drop table--",
]


@pytest.fixture(scope="module")
def everything():
    return Router(), *setting()


def ask(everything, text):
    router, tools, context = everything
    return [
        answer(choice.tool, choice.arguments, context)
        for choice in router.rank(text, tools, context)
        if choice.tool in SKILLS
    ]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:40])
def test_hostile_requests_are_answered_in_words_or_left_alone(text, everything):
    for said in ask(everything, text):
        assert said
        assert said.endswith((".", "?"))
        assert len(said) < 600
        assert not re.search(r"\d", said)


def test_words_in_any_order_do_no_harm(everything):
    generator = random.Random(7)
    words = sorted(
        {word for request in requests() for word in request.text.split()} | {"9**9", "(", "-", "%", "million"}
    )
    for _ in range(150):
        text = " ".join(generator.choice(words) for _ in range(generator.randint(1, 40)))
        for said in ask(everything, text):
            assert said
            assert not re.search(r"\d", said), text
