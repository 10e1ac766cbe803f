"""Configs: JSON there and back, unknown keys refused by name, settings from the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from duologue import config
from duologue.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    sizes: tuple[int, ...] = (1, 2)

    def __post_init__(self):
        if self.rate < 0:
            raise ConfigError(f"rate must not be negative, got {self.rate}")


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    steps: int = 10
    fast: bool = False
    limit: int | None = None
    kind: Literal["a", "b"] = "a"
    inner: Inner = field(default_factory=Inner)
    pair: tuple[int, str] = (1, "x")
    table: dict[str, float] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    stages: tuple[Inner, ...] = ()
    either: Inner | str = "none"


FULL = Outer(
    name="n",
    limit=3,
    kind="b",
    inner=Inner(rate=2.0, sizes=(4,)),
    table={"a": 1.5},
    names=["x"],
    stages=(Inner(), Inner(rate=1.0)),
    either=Inner(rate=3.0),
)


def test_there_and_back(tmp_path):
    config.save(FULL, tmp_path / "config.json")
    assert config.load(Outer, tmp_path / "config.json") == FULL
    assert config.from_dict(Outer, config.to_dict(Outer(name="n"))) == Outer(name="n")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "n", "step": 1}, r"Outer: unknown key 'step'; did you mean 'steps'\?"),
        ({"name": "n", "zzz": 1}, "unknown key 'zzz'; known keys: name, steps"),
        ({}, "the key 'name' is missing"),
        ([], "need an object"),
        ({"name": 1}, r"Outer\.name: need str, got 1"),
        ({"name": "n", "steps": 1.5}, r"Outer\.steps: need int, got 1\.5"),
        ({"name": "n", "steps": True}, r"Outer\.steps: need int, got True"),
        ({"name": "n", "steps": False}, r"Outer\.steps: need int, got False"),
        ({"name": "n", "fast": 1}, r"Outer\.fast: need bool, got 1"),
        ({"name": "n", "steps": None}, r"Outer\.steps: need int, got None"),
        ({"name": "n", "kind": "c"}, r"Outer\.kind: need one of 'a', 'b', got 'c'"),
        ({"name": "n", "inner": {"rat": 1}}, r"Outer\.inner: unknown key 'rat'; did you mean 'rate'"),
        ({"name": "n", "inner": {"sizes": [1, "x"]}}, r"Outer\.inner\.sizes\[1\]: need int, got 'x'"),
        ({"name": "n", "pair": [1]}, r"Outer\.pair: need 2 values"),
        ({"name": "n", "table": {"a": "x"}}, r"Outer\.table\.a: need float"),
        ({"name": "n", "names": [1]}, r"Outer\.names\[0\]: need str"),
        ({"name": "n", "inner": {"rate": -1}}, r"rate must not be negative"),
        ({"name": "n", "either": {"rat": 1}}, r"Outer\.either: unknown key 'rat'"),
    ],
)
def test_what_is_wrong_is_named(data, message):
    with pytest.raises(ConfigError, match=message):
        config.from_dict(Outer, data)


def test_a_whole_number_will_do_for_a_float():
    rate = config.from_dict(Inner, {"rate": 2}).rate
    assert rate == 2.0 and isinstance(rate, float)


def test_settings_override():
    changed = config.override(
        Outer(name="n"),
        ["steps=20", "inner.rate=0.25", "inner.sizes=[7, 8]", "limit=5", "fast=true", "kind=b", "name=some name"],
    )
    assert changed == Outer(
        name="some name", steps=20, inner=Inner(rate=0.25, sizes=(7, 8)), limit=5, fast=True, kind="b"
    )
    assert config.override(FULL, ["limit=null"]).limit is None


def test_a_name_that_looks_like_a_number_stays_a_name():
    assert config.override(Outer(name="n"), ["name=123"]).name == "123"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("steps", "need key=value"),
        ("step=3", "unknown key 'step'; did you mean 'steps'"),
        ("inner.rat=3", "unknown key 'rat'"),
        ("steps.more=3", "'steps' is not a group"),
        ("nothing.more=3", "'nothing' is not a group"),
        ("steps=many", r"Outer\.steps: need int, got 'many'"),
    ],
)
def test_a_wrong_setting_is_named(setting, message):
    with pytest.raises(ConfigError, match=message):
        config.override(Outer(name="n"), [setting])


def test_files_that_are_no_config_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.json: cannot read the configuration \(No such file"):
        config.load(Outer, tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match=r"bad\.json: not valid JSON"):
        config.load(Outer, tmp_path / "bad.json")
