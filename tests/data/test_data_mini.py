from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from duologue.config import from_dict, to_dict
from duologue.data.manifest import read_rows
from duologue.data.steps.base import SynthesisConfig
from duologue.data.synthesis import synthesise

RECIPE = Path(__file__).parents[2] / "recipes" / "data_mini.py"


@pytest.fixture(scope="module")
def recipes():
    spec = importlib.util.spec_from_file_location("data_mini", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_small_recipe_makes_text_from_the_projects_own_questions(recipes, tmp_path):
    recipe = dataclasses.replace(recipes.small(), steps=("instructions", "rewrite", "dedupe", "answers"), workers=1)
    assert from_dict(SynthesisConfig, to_dict(recipe)) == recipe
    summary = synthesise(recipe, tmp_path, progress=False)
    lost = sum(sum(reasons.values()) for reasons in summary.dropped.values())
    assert summary.turns > 500 and lost < 0.05 * summary.turns  # what is written by hand is fit to be spoken
    rows = list(read_rows(tmp_path))
    assert not any(char.isdigit() for row in rows for char in row.question_spoken + row.answer)
    assert {row.split for row in rows} == {"train", "dev", "test"}


def test_voices_of_the_tests_are_never_heard_in_training(recipes):
    splits = [voice.splits for voice in recipes.voices()]
    assert set(splits) == {("train",), ("dev", "test")}
    with pytest.raises(ValueError, match="parrot"):
        recipes.voices(held_out=("parrot",))
