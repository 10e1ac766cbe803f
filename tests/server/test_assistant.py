"""What the server says and calls by itself."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from duologue.errors import ConfigError
from duologue.server.assistant import Assistant, Library
from duologue.skills.router import Router

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=timezone.utc)
LIGHTS = {
    "type": "function",
    "name": "set_light",
    "description": "Switch a light on or off",
    "parameters": {
        "type": "object",
        "properties": {
            "room": {"type": "string", "enum": ["kitchen", "bedroom"]},
            "state": {"type": "string", "enum": ["on", "off"]},
        },
        "required": ["room", "state"],
    },
}


@pytest.fixture
def clock():
    return [NOON]


@pytest.fixture
def assistant(clock):
    return Assistant(Library(), Router(), now=lambda: clock[0])


def test_skills_answer_and_other_questions_are_left_to_the_model(assistant):
    assert assistant.reply("What time is it?") == "It is noon."
    assert "fifty-six" in assistant.reply("what is seven times eight")
    assert assistant.reply("Why is the sky blue?") is None and assistant.reply("") is None


def test_timers_ring_in_their_own_conversation_alone(assistant, clock):
    other = Assistant(Library(), Router(), now=lambda: clock[0])
    assert "five minute" in assistant.reply("set a timer for five minutes").lower()
    assert assistant.seconds_to_due() is None  # the user may yet go on
    assistant.sure()
    assert assistant.seconds_to_due() == 300.0 and assistant.due() == []
    clock[0] += timedelta(minutes=5)
    assert len(assistant.due()) == 1 and assistant.due() == [] and assistant.seconds_to_due() is None
    assert other.due() == [] and other.seconds_to_due() is None


def test_what_rang_while_the_user_spoke_does_not_ring_again(assistant, clock):
    assistant.reply("set a timer for ten seconds")
    assistant.sure()
    assistant.reply("set a timer for a minute")
    clock[0] += timedelta(seconds=20)
    assert len(assistant.due()) == 1
    assistant.sure()
    assert assistant.due() == [] and assistant.seconds_to_due() == 40.0


def test_a_clients_function_is_called_with_its_arguments_and_a_skill_is_not(assistant):
    name, arguments = assistant.call("turn on the light in the kitchen", [LIGHTS])
    assert name == "set_light" and json.loads(arguments) == {"room": "kitchen", "state": "on"}
    assert assistant.call("what time is it", [LIGHTS]) is None
    assert assistant.call("why is the sky blue", [LIGHTS]) is None


def test_a_call_that_is_demanded_has_arguments_that_were_said_or_is_not_made(assistant):
    lamp, bell = "the lamp is on in the kitchen I think", {"type": "function", "name": "ring_bell", "parameters": {}}
    assert assistant.call(lamp, [LIGHTS]) is None
    name, arguments = assistant.call(lamp, [LIGHTS], forced=True)
    assert name == "set_light" and json.loads(arguments) == {"room": "kitchen", "state": "on"}
    assert assistant.call("why is the sky blue", [LIGHTS], forced=True) is None
    assert assistant.call("why is the sky blue", [LIGHTS, bell], forced=True) == ("ring_bell", "{}")
    assert assistant.call("what time is it", [LIGHTS, bell], forced=True)[0] == "ring_bell"  # and not the clock
    assert assistant.call("", [bell], forced=True) == ("ring_bell", "{}")


def test_without_skills_only_functions_are_chosen(clock):
    plain = Assistant(Library(), Router(), offline=False, now=lambda: clock[0])
    assert plain.reply("what time is it") is None
    assert plain.call("turn off the light in the bedroom", [LIGHTS])


def test_a_folder_of_texts_is_asked_and_named(tmp_path, clock):
    (tmp_path / "opening_hours.txt").write_text("The museum opens at nine and closes at five on weekdays.")
    library = Library.read(knowledge=tmp_path)
    said = Assistant(library, Router(), now=lambda: clock[0]).reply("when does the museum close on weekdays")
    assert said and "five" in said and "opening hours" in said.lower()
    with pytest.raises(ConfigError, match="folder of text files"):
        Library.read(knowledge=tmp_path / "none")
