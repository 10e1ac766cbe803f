from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from duologue.errors import ConfigError
from duologue.skills import SKILLS
from duologue.skills.embedding import CharacterGrams
from duologue.skills.router import Router, RouterConfig
from duologue.skills.tools import of_function, of_functions, of_skill

OURS = [of_skill(skill) for skill in SKILLS.values()]


def function(name, description, required=(), **properties):
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "name": name, "description": description, "parameters": parameters}


BLINDS = function(
    "move_blinds",
    "Raise or lower the blinds of a room.",
    ["room", "raise"],
    room={"type": "string", "enum": ["office", "living room"], "description": "Which room"},
    **{"raise": {"type": "boolean", "description": "true to raise, false to lower"}},
)
RADIO = function(
    "set_radio_volume",
    "Set the volume of the radio.",
    ["level"],
    level={"type": "integer", "minimum": 0, "maximum": 10},
)
TRAVEL = function(
    "find_train",
    "Find a train to a city.",
    ["destination", "date", "time"],
    destination={"type": "string", "description": "The city to go to"},
    date={"type": "string", "format": "date"},
    time={"type": "string", "format": "time"},
    first_class={"type": "boolean"},
    bicycles={"type": "integer", "description": "Number of bicycles"},
)
CLIENT = of_functions([BLINDS, RADIO, TRAVEL])


def choose(text, context, tools=CLIENT, **config):
    choice = Router(RouterConfig(**config)).choose(text, tools, context)
    return (choice.tool, choice.arguments) if choice else None


def test_tools_never_seen_before_are_called_with_their_arguments(context):
    assert choose("raise the blinds in the living room", context) == (
        "move_blinds",
        {"room": "living room", "raise": True},
    )
    assert choose("could you lower the office blinds please", context) == (
        "move_blinds",
        {"room": "office", "raise": False},
    )
    assert choose("set the radio volume to seven", context) == ("set_radio_volume", {"level": 7})
    said = "find me a train to Hamburg on friday at half past nine in the morning with two bicycles"
    assert choose(said, context) == (
        "find_train",
        {"destination": "Hamburg", "date": "2026-03-06", "time": "09:30", "bicycles": 2},
    )


@pytest.mark.parametrize(
    "said",
    [
        "raise the blinds",  # which room?
        "set the radio volume to seventy",  # beyond the maximum
        "find a train to hamburg",  # when?
        "raise the blinds in the cellar",  # no such room
    ],
)
def test_no_call_without_every_required_argument(said, context):
    assert choose(said, context) is None


@pytest.mark.parametrize(
    "said",
    [
        "why is the radio so old",
        "who invented the train",
        "tell me about window blinds",
        "what is the capital of france",
        "hello",
        "",
    ],
)
def test_talk_calls_nothing(said, context):
    assert choose(said, context, [*OURS, *CLIENT]) is None


def test_nothing_is_called_below_the_threshold(context):
    said = "set the radio volume to seven"
    [best] = [choice for choice in Router().rank(said, CLIENT, context) if choice.tool == "set_radio_volume"]
    assert choose(said, context, threshold=best.confidence - 1e-6) is not None
    assert choose(said, context, threshold=min(best.confidence + 1e-6, 1.0)) is None


def test_our_own_skill_asks_for_what_is_missing(context):
    choice = Router().choose("set a timer", OURS, context)
    assert (choice.tool, choice.missing) == ("timer", ("seconds",))


def test_only_tools_that_are_on_offer_are_chosen(context):
    assert Router().choose("what time is it", [], context) is None
    assert Router().choose("what time is it", CLIENT, context) is None
    assert Router().choose("what time is it", OURS, context).tool == "time"


def test_text_arguments_keep_the_words_and_the_case_of_the_transcript(context):
    note = of_function(
        function("save_note", "Save a note.", ["text"], text={"type": "string", "description": "What the note says"})
    )
    assert choose("Save a note saying Don't forget Anna's 25 tulips!", context, [note]) == (
        "save_note",
        {"text": "Don't forget Anna's 25 tulips"},
    )


def test_the_embedding_can_be_exchanged(context):
    class Counted:
        def __init__(self):
            self.texts = []

        def __call__(self, texts):
            self.texts += texts
            return np.ones((len(texts), 1))

    embed = Counted()
    plain, other = Router(), Router(embed=embed)
    said = "set the radio volume to seven"
    scores = [router.rank(said, CLIENT, context)[0].confidence for router in (plain, other)]
    assert scores[0] != scores[1]
    other.rank(said, CLIENT, context)
    assert len(embed.texts) == 2 + len(CLIENT), "a tool is embedded once"


def test_letters_forgive_a_letter():
    rows = CharacterGrams()(["calendar", "calender", "umbrella", ""])
    assert rows[0] @ rows[1] > 0.5 > rows[0] @ rows[2]
    assert not rows[3].any()
    np.testing.assert_allclose(np.linalg.norm(rows[:3], axis=1), 1, rtol=1e-5)


def test_a_router_keeps_nothing_of_a_conversation(context):
    router = Router()
    first = router.rank("set the radio volume to seven", CLIENT, context)
    router.rank("raise the blinds in the living room", CLIENT, replace(context))
    assert router.rank("set the radio volume to seven", CLIENT, context) == first


def test_a_threshold_outside_its_range_is_refused():
    with pytest.raises(ConfigError, match="threshold"):
        RouterConfig(threshold=0.0)
