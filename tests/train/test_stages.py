import dataclasses
import json
from pathlib import Path

import pytest

from duologue.errors import ConfigError, TrainError
from duologue.train import run
from duologue.train.stages import resolve, with_settings

RECIPE = """
from __future__ import annotations
from dataclasses import dataclass, replace
from duologue.train import TrainConfig
from train.toy import ToyTask, toy_config

@dataclass(frozen=True)
class Named(ToyTask):
    llm: str = "small"

def first():
    return replace(toy_config("unused", steps=2), name="first", out="")

def both(out: str = "runs/both"):
    return [replace(first(), out=f"{out}/first"),
            replace(first(), name="second", task=Named(), out=f"{out}/second")]

def lost():
    return 3
"""


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "tiny.py").write_text(RECIPE)
    (tmp_path / "recipes" / "other.py").write_text("from recipes.tiny import first\ndef other():\n    return first()\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_stages_run_in_order_with_settings_and_leave_config_and_report(recipes):
    results = run("tiny:both", ["steps=3", "second.optimizer.lr=0.5", "llm=large"], out="here")
    assert [(result.name, result.steps, result.folder) for result in results] == [
        ("first", 3, "here/first"),
        ("second", 3, "here/second"),
    ]
    first, second = (json.loads(Path(f"here/{name}/config.json").read_text()) for name in ("first", "second"))
    assert (first["optimizer"]["lr"], second["optimizer"]["lr"]) == (0.02, 0.5)
    assert second["task"]["llm"] == "large" and "llm" not in first["task"]
    assert Path("here/second/report.html").exists()


def test_a_finished_stage_is_not_run_again(recipes):
    before = run("recipes/tiny.py:first", out="here")
    log = Path("here/first/log.jsonl")
    log.write_text("")
    assert run("recipes/tiny.py:first", resume=True, out="here") == before
    assert log.read_text() == ""
    assert run("recipes/tiny.py:first", ["steps=3"], resume=True, out="here")[0].steps == 3


def test_a_recipe_may_build_on_another_one(recipes):
    assert [stage.name for stage in resolve("other")] == ["first"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "there is no file recipes/nowhere.py. Recipes in ./recipes: other, tiny."),
        ("tiny", "has no function 'tiny'; it has both, first, lost"),
        ("tiny:lost", "must return a TrainConfig or a list of them, got 3"),
    ],
)
def test_a_wrong_recipe_is_named(recipes, name, message):
    with pytest.raises(TrainError) as caught:
        run(name)
    assert message in str(caught.value)


@pytest.mark.parametrize("setting", ["stepz=3", "first.stepz=3", "task.nothing=1", "steps=many", "steps"])
def test_a_wrong_setting_is_refused(recipes, setting):
    with pytest.raises(ConfigError, match=r"steps|stepz|nothing"):
        with_settings(resolve("tiny:both"), [setting])


def test_settings_reach_the_task_with_and_without_its_name(recipes):
    stages = with_settings(resolve("tiny:both"), ["task.batch=8", "second.task.llm=big", "dropout=0.5"])
    assert [(stage.task.batch, stage.task.dropout) for stage in stages] == [(8, 0.5), (8, 0.5)]
    assert stages[1].task.llm == "big"
    assert dataclasses.is_dataclass(stages[0].task)
