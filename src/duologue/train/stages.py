"""Recipes by name, settings from the command line, and stages run one after another."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from duologue import config as configs
from duologue.errors import ConfigError, TrainError
from duologue.train.loop import MAY_CHANGE, Result, TrainConfig, train


class Work(Protocol):
    """A stage that is no training, such as data to be made: a frozen dataclass, whose fields are its settings."""

    @property
    def name(self) -> str: ...

    def run(self) -> None:
        """Does what is not done yet."""
        ...


Stage = TrainConfig | Work


def run(recipe: str, settings: Sequence[str] = (), *, resume: bool = False, out: str = "") -> list[Result]:
    """Trains what a recipe says, stage after stage.

    Args:
        recipe: "recipes/mini.py:listen", or "mini:listen" (looked up in ./recipes); without ":function", the function
            that is called like the file.
        settings: "a.b=c", see `with_settings`.
        resume: go on with each stage where it was left; stages that are done are not run again.
        out: a folder that holds the stages' folders. A recipe function with a parameter `out` is given it; of another
            one the stages are placed at out/<name>.
    Returns:
        The results of the stages that train; others, such as data to be made, have none.
    Raises:
        TrainError: no such recipe, or one that cannot be loaded.
        ConfigError: a setting that fits no stage.
    """
    results = []
    for stage in with_settings(resolve(recipe, out=out), settings):
        if isinstance(stage, TrainConfig):
            done = _finished(stage) if resume else None
            results.append(done or train(stage, resume=resume))
        else:
            stage.run()
    return results


def _finished(config: TrainConfig) -> Result | None:
    """The result of a stage that has been run to its end with this config, wherever that was, else None."""
    if not (config.folder / "result.json").exists() or not (config.folder / "config.json").exists():
        return None
    begun = json.loads((config.folder / "config.json").read_text(encoding="utf-8"))
    if any(begun.get(key) != value for key, value in configs.to_dict(config).items() if key not in MAY_CHANGE):
        return None
    result = configs.load(Result, config.folder / "result.json")
    return result if result.steps == config.steps else None


def resolve(recipe: str, *, out: str = "") -> list[Stage]:
    """The stages of a recipe. See `run`."""
    function = find(recipe)
    takes_out = "out" in inspect.signature(function).parameters
    made = function(out=out) if out and takes_out else function()
    stages = list(made) if isinstance(made, (list, tuple)) else [made]
    if not stages or not all(isinstance(stage, TrainConfig) or _is_work(stage) for stage in stages):
        raise TrainError(f"{recipe}: a recipe must return a TrainConfig or a list of them, got {made!r}")
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise TrainError(f"{recipe}: every stage needs a name of its own, got {', '.join(names)}")
    if out and not takes_out:
        stages = [replace(stage, out=str(Path(out) / stage.name)) for stage in stages]
    return stages


def _is_work(stage: Any) -> bool:
    return is_dataclass(stage) and hasattr(stage, "name") and callable(getattr(stage, "run", None))


def find(recipe: str) -> Callable[..., Any]:
    """The function that a recipe's name stands for.

    Raises:
        TrainError: no such file or function, or the file cannot be loaded.
    """
    place, _, name = recipe.rpartition(":") if ":" in recipe else (recipe, "", "")
    path = Path(place) if place.endswith(".py") else Path("recipes") / f"{place}.py"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in Path("recipes").glob("*.py"))) or "none"
        raise TrainError(f"{recipe}: there is no file {path}. Recipes in ./recipes: {there}.")
    module = _load(path)
    function = getattr(module, name or path.stem, None)
    if not callable(function):
        own = inspect.getmembers(module, lambda item: inspect.isfunction(item) and item.__module__ == module.__name__)
        there = ", ".join(key for key, _ in own if not key.startswith("_")) or "no function"
        raise TrainError(f"{recipe}: {path} has no function {name or path.stem!r}; it has {there}.")
    return function


def _load(path: Path) -> ModuleType:
    name = f"duologue_recipe_{abs(hash(str(path.resolve())))}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TrainError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up by name
    with _siblings(path.resolve().parent.parent):
        try:
            spec.loader.exec_module(module)
        except (SyntaxError, ImportError) as error:
            raise TrainError(f"{path}: cannot be loaded ({error})") from error
    return module


@contextmanager
def _siblings(folder: Path) -> Iterator[None]:
    """Lets a recipe import another one as `recipes.other` while it is loaded."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def with_settings(stages: Sequence[Stage], settings: Sequence[str]) -> list[Stage]:
    """Applies `key=value` settings: to the run (`optimizer.lr=0.001`), or to its task (`task.llm=x`, or just `llm=x`).

    A setting goes to every stage that has the key; with the stage's name in front (`listen.steps=100`) to that one.

    Raises:
        ConfigError: no stage has the key, or the value does not fit.
    """
    stages = list(stages)
    for setting in settings:
        named = [index for index, stage in enumerate(stages) if setting.startswith(f"{stage.name}.")]
        fitting = named or [index for index, stage in enumerate(stages) if _fits(stage, setting)]
        if not fitting:
            keys = sorted({key for stage in stages for key in _keys(stage)})
            raise ConfigError(
                f"--set {setting}: no stage takes this. Stages: {', '.join(stage.name for stage in stages)}; "
                f"keys: {', '.join(keys)}"
            )
        for index in fitting:
            stages[index] = _apply(stages[index], setting.removeprefix(f"{stages[index].name}."))
    return stages


def _keys(stage: Any) -> set[str]:
    own = {field.name for field in fields(stage)}
    task = getattr(stage, "task", None)
    return own | ({field.name for field in fields(task)} if is_dataclass(task) else set())


def _fits(stage: Stage, setting: str) -> bool:
    key = setting.partition("=")[0].strip()
    return key.split(".")[0] in _keys(stage)


def _apply(stage: Stage, setting: str) -> Stage:
    if not isinstance(stage, TrainConfig):
        return configs.override(stage, [setting])
    first = setting.partition("=")[0].strip().split(".")[0]
    if first == "task":
        return replace(stage, task=configs.override(stage.task, [setting.partition(".")[2]]))
    if first not in {field.name for field in fields(TrainConfig)} and first in _keys(stage):
        return replace(stage, task=configs.override(stage.task, [setting]))
    bare = configs.override(replace(stage, task=None), [setting])  # the task's own class is not known to TrainConfig
    return replace(bare, task=stage.task)
