from __future__ import annotations

import pytest

from duologue.skills.arguments import extract
from duologue.skills.tools import of_function
from duologue.skills.words import request


def read(context, said, required=True, **properties):
    parameters = {"type": "object", "properties": properties, "required": list(properties) if required else []}
    tool = of_function({"type": "function", "name": "do_it", "description": "", "parameters": parameters})
    return extract(tool, request(said), said, context)


@pytest.mark.parametrize(
    ("said", "schema", "value"),
    [
        ("at twenty one degrees", {"type": "number"}, 21),
        ("minus five degrees", {"type": "number"}, -5),
        ("two point five", {"type": "number"}, 2.5),
        ("two people", {"type": "integer", "minimum": 1}, 2),
        ("on march twelfth", {"type": "string", "format": "date"}, "2026-03-12"),
        ("at three", {"type": "string", "format": "time"}, "15:00"),
        ("tomorrow at nine am", {"type": "string", "format": "date-time"}, "2026-03-05T09:00:00"),
        ("in the living room", {"type": "string", "enum": ["bath", "living_room"]}, "living_room"),
        ("go by bike", {"type": "string", "enum": ["walking", "cycling"]}, "cycling"),
        ("the tall one", {"type": ["string", "null"], "enum": ["short", "tall"]}, "tall"),
        ("the tall one", {"anyOf": [{"type": "string", "enum": ["tall"]}, {"type": "null"}]}, "tall"),
        (
            "red and blue",
            {"type": "array", "items": {"type": "string", "enum": ["red", "green", "blue"]}},
            ["red", "blue"],
        ),
        ("turn it off", {"type": "boolean", "description": "true for on, false for off"}, False),
        ("number three", {"type": "integer", "enum": [1, 2, 3]}, 3),
    ],
)
def test_each_kind_is_read(said, schema, value, context):
    assert read(context, said, it=schema).arguments == {"it": value}


@pytest.mark.parametrize(
    ("said", "schema"),
    [
        ("two point five", {"type": "integer"}),
        ("fifty", {"type": "integer", "maximum": 10}),
        ("purple", {"type": "string", "enum": ["red", "green"]}),
        ("hello there", {"type": "string", "format": "date"}),
        ("maybe", {"type": "boolean"}),
        ("seven", {"type": "object", "properties": {}}),
        ("on the thirty first of february", {"type": "string", "format": "date"}),
    ],
)
def test_what_does_not_fit_is_missing_not_made_up(said, schema, context):
    found = read(context, said, it=schema)
    assert (found.arguments, found.missing) == ({}, ("it",))


def test_a_length_is_given_in_the_unit_of_the_argument(context):
    minutes = {"type": "integer", "description": "Duration in minutes"}
    assert read(context, "for an hour and a half", it=minutes).arguments == {"it": 90}
    assert read(context, "for two hours", duration_seconds={"type": "number"}).arguments == {"duration_seconds": 7200}


def test_two_numbers_go_to_the_arguments_that_they_stand_beside(context):
    found = read(
        context,
        "three nights for two guests",
        guests={"type": "integer", "description": "Number of guests"},
        nights={"type": "integer", "description": "Number of nights"},
    )
    assert found.arguments == {"guests": 2, "nights": 3}


def test_a_message_and_its_reader(context):
    text = {"type": "string"}
    found = read(context, "tell my sister that Dinner is at eight", recipient=text, message=text)
    assert found.arguments == {"recipient": "my sister", "message": "Dinner is at eight"}


def test_an_argument_that_is_not_required_is_not_guessed(context):
    assert read(context, "hello there", required=False, city={"type": "string"}).arguments == {}
