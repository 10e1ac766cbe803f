from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from duologue.config import from_dict, to_dict
from duologue.data.manifest import read_rows
from duologue.data.steps import find_step
from duologue.data.steps.base import SynthesisConfig, Tools
from duologue.data.steps.texts import planned_rows
from duologue.data.synthesis import synthesise
from duologue.eval.voices import is_reserved

RECIPE = Path(__file__).parents[2] / "recipes" / "data_mini.py"


@pytest.fixture(scope="module")
def recipes():
    spec = importlib.util.spec_from_file_location("data_mini", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_small_recipe_makes_text_from_the_projects_own_questions(recipes, tmp_path):
    recipe = dataclasses.replace(recipes.small(), workers=1)
    recipe = dataclasses.replace(recipe, steps=("instructions", "rewrite", "dedupe", recipes.DATES, "answers"))
    assert from_dict(SynthesisConfig, to_dict(recipe)) == recipe
    summary = synthesise(recipe, tmp_path, progress=False)
    lost = sum(sum(reasons.values()) for reasons in summary.dropped.values())
    assert summary.turns > 500 and lost < 0.05 * summary.turns  # what is written by hand is fit to be spoken
    rows = list(read_rows(tmp_path))
    assert not any(char.isdigit() for row in rows for char in row.question_spoken + row.answer)
    assert {row.split for row in rows} == {"train", "dev", "test"}


@pytest.fixture(params=["mini", "asked", "small", "questions", "words"])
def recipe(recipes, request, monkeypatch):
    monkeypatch.setattr(recipes, "Resolver", lambda: lambda name: name)
    return getattr(recipes, request.param)()


def test_no_recipe_speaks_with_a_voice_of_the_tests_or_trains_on_one_of_dev(recipe):
    assert not [voice.name for voice in recipe.voices if is_reserved(voice)]
    train, dev = ({voice.name for voice in recipe.voices if split in voice.splits} for split in ("train", "dev"))
    assert train and dev and not train & dev
    assert not {name for name in train if "kal" in name} or not {name for name in dev if "kal" in name}  # one man


def test_answers_are_dated_before_they_are_put_in_spoken_style(recipe, recipes):
    if "answers" in recipe.steps:
        assert recipe.steps.index(recipes.DATES) < recipe.steps.index("answers")


@pytest.mark.parametrize("name", ["parrot", "pico-gb"])
def test_a_held_out_voice_must_exist_and_not_be_the_tests_own(recipes, name):
    with pytest.raises(ValueError, match=name):
        recipes.voices(held_out=(name,))


def test_statements_are_heard_and_said_and_what_was_sampled_before_is_talked_about(recipes, monkeypatch):
    monkeypatch.setattr(recipes, "Resolver", lambda: lambda name: name)
    statement = "He owns a vineyard near Bordeaux."

    def texts(recipe):
        own = tuple(source for source in recipe.sources if source.kind == "table")
        recipe = dataclasses.replace(recipe, sources=own, sampled=0)
        return recipe, {row.question: row for row in planned_rows(recipe)}

    recipe, heard = texts(recipes.questions())
    row = find_step("rewrite").run([heard[statement]], Tools(recipe)).rows[0]
    assert row.question_spoken.lower().endswith(statement.lower())
    recipe, said = texts(recipes.words())
    assert find_step(recipes.SAY).run([said[statement]], Tools(recipe)).rows[0].answer == statement
    _, talk = texts(recipes.mini())
    assert statement not in talk and talk["Who was E.J. Smiley?"].answer.startswith("E.J. Smiley was")
