from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from duologue.skills import SKILLS
from duologue.skills.evaluation import ANY, Request, evaluate, requests, setting
from duologue.skills.fitting import fit
from duologue.skills.router import FEATURES, Router, RouterConfig
from duologue.skills.schemas import problem


@pytest.fixture(scope="module")
def ready():
    return setting()


def test_the_set_is_what_the_docs_say(ready):
    tools, _ = ready
    kinds = Counter("ours" if one.tool in SKILLS else "none" if one.tool is None else "theirs" for one in requests())
    assert kinds == {"ours": 110, "theirs": 40, "none": 50}
    assert len(requests("dev")) == len(requests("test")) == 100
    functions = {tool.name for tool in tools if not tool.skill}
    halves = [{one.tool for one in requests(split)} & functions for split in ("dev", "test")]
    assert not halves[0] & halves[1], "no tool of the test half was seen in the tuning"
    assert halves[0] | halves[1] == functions
    assert len({one.text for one in requests()}) == 200


def test_every_expected_call_fits_its_schema(ready):
    schemas = {tool.name: tool.parameters for tool in ready[0]}
    for one in requests():
        if one.tool:
            assert problem(dict(one.arguments), schemas[one.tool]) == "", one.text


def test_the_router_keeps_what_it_reached(ready):
    tools, context = ready
    report = evaluate(Router(), requests(), tools=tools, context=context)
    assert report.tool >= 0.96
    assert report.exact >= 0.93
    assert report.false_calls <= 0.04


def test_the_report_counts_right_wrong_and_false(ready):
    tools, context = ready
    written = [
        Request("what time is it", "time", {}, "x"),
        Request("what time is it in tokyo", "time", {"place": "paris"}, "x"),
        Request("what time is it in rome", "time", {"place": ANY}, "x"),
        Request("flip a coin", "spell", {"word": "coin"}, "x"),
        Request("why is the sky blue", None, {}, "x"),
        Request("roll a die", None, {}, "x"),
    ]
    report = evaluate(Router(), written, tools=tools, context=context)
    assert (report.tool, report.exact, report.false_calls) == (4 / 6, 3 / 6, 1 / 2)
    assert [request.text for request, _ in report.wrong] == ["what time is it in tokyo", "flip a coin", "roll a die"]
    point = report.curve[0]
    assert (point.precision, point.coverage, point.false_calls) == (3 / 5, 3 / 4, 1 / 2)
    strict = evaluate(Router(RouterConfig(threshold=1.0)), written, tools=tools, context=context)
    assert (strict.tool, strict.false_calls) == (2 / 6, 0.0)


def test_fitting_finds_weights_that_tell_the_tools_apart(ready):
    tools, context = ready
    blind = Router(replace(RouterConfig(), bias=0.0, **dict.fromkeys(FEATURES, 0.0)))
    fitted = Router(fit(blind, requests("dev"), tools=tools, context=context, steps=500))
    before, after = (evaluate(one, requests("dev"), tools=tools, context=context) for one in (blind, fitted))
    assert after.functions > before.functions
    assert after.functions >= 0.8
