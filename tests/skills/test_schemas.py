from __future__ import annotations

import reprlib

import pytest

from duologue.errors import ConfigError
from duologue.skills.schemas import MOST_DEPTH, check, problem
from duologue.skills.tools import MOST_TOOLS, of_function, of_functions


def deep(levels):
    schema = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    "parameters",
    [
        [],
        "object",
        {"type": "string"},
        {"type": "object", "properties": []},
        {"type": "object", "properties": {"a": {"type": "text"}}},
        {"type": "object", "required": "a"},
        {"type": "object", "properties": {"a": {"description": "x" * 40_000}}},
        deep(MOST_DEPTH),
        deep(5_000),
        {"type": "object", "properties": {"a": {"enum": {1}}}},
    ],
    ids=reprlib.repr,
)
def test_what_is_no_bounded_schema_is_refused(parameters):
    with pytest.raises(ConfigError, match="tools: x"):
        of_function({"type": "function", "name": "x", "parameters": parameters})


def test_references_and_patterns_of_strangers_are_not_followed():
    schema = {
        "type": "object",
        "properties": {
            "far": {"$ref": "http://127.0.0.1:9/schema"},
            "slow": {"type": "string", "pattern": "(a+)+$"},
            "pattern": {"type": "integer"},
        },
    }
    check(schema, where="here")
    assert problem({"far": 1, "slow": "a" * 40 + "!"}, schema) == ""
    assert "pattern" in problem({"pattern": "x"}, schema), "a property may have that name"


def test_a_problem_names_its_place():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert problem({"a": 1}, schema) == ""
    assert problem({"a": "x"}, schema).startswith("a: ")
    assert "'a'" in problem({}, schema)


@pytest.mark.parametrize(
    "functions",
    [
        None,
        {},
        [{}],
        ["x"],
        [{"type": "mcp", "name": "x"}],
        [{"type": "function", "name": "no spaces allowed"}],
        [{"type": "function", "name": "x", "description": 7}],
        [{"type": "function", "name": "x"}, {"type": "function", "name": "x"}],
        [{"type": "function", "name": f"x{number}"} for number in range(MOST_TOOLS + 1)],
    ],
    ids=lambda value: str(value)[:40],
)
def test_lists_of_tools_from_strangers_are_refused_by_name(functions):
    with pytest.raises(ConfigError, match="tools"):
        of_functions(functions)


def test_both_forms_of_a_function_are_taken():
    inner = {"name": "get_weather", "description": "Weather", "parameters": {"type": "object", "properties": {}}}
    assert of_function({"type": "function", **inner}) == of_function({"type": "function", "function": inner})
    assert of_function({"type": "function", "name": "ping"}).required == ()
