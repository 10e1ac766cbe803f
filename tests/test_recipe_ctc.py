"""The recipe of mini with the paper's form of listening, whole, on parts of a few thousand numbers."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_recipes import SMALL
from train import tiny

from duologue.checkpoints import open_model
from duologue.errors import ConfigError
from duologue.pipeline import Pipeline
from duologue.train import TrainConfig, train
from duologue.train.stages import resolve, with_settings

RECIPE = f"{Path(__file__).parents[1] / 'recipes' / 'mini_ctc.py'}:mini_ctc"
ORDER = ["answers", "talk", "listen", "turns", "agree", "speech", "texts", "vocoder", "ctc", "ctc_answers", "ctc_model"]
SETTINGS = [
    *SMALL,
    "ctc.dim=16",
    "ctc.kernel=3",
    "ctc.candidates=4",
    "ctc.negatives=40",
    "ctc.noise_clips=2",
    "ctc.held_out=2",
    "ctc.held_out_noises=1",
    "ctc_answers.held_out=2",
]


def stages(path: Path) -> dict[str, object]:
    parts = [f"llm={path / 'parts' / 'llm'}", f"listen.listener={path / 'parts' / 'whisper'}"]
    found = with_settings(resolve(RECIPE, out=str(path / "run")), [*SETTINGS, *parts])
    return {stage.name: stage for stage in found}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("mini_ctc")
    tiny.save_whisper(path / "parts" / "whisper")
    tiny.save_llm(path / "parts" / "llm", "llama", tiny.LLAMA)
    for name in ("taught", "asked", "questions", "words", "people"):
        tiny.save_data(path / "run" / "data" / name, rows=12)
    found = stages(path)
    results = {}
    for name in ORDER:
        stage = found[name]
        results[name] = train(stage) if isinstance(stage, TrainConfig) else stage.run()
    return path, results


def test_the_model_folder_is_whole_and_one_line_apart_from_minis(made):
    path, results = made
    assert set(results["ctc"].evaluation) == {"wer", "wer_all", "invented"}
    assert set(results["ctc_answers"].evaluation) == {"text", "states"}
    folder = path / "run" / "model_ctc"
    opened = open_model(folder)
    parts = {"listener", "adapter", "llm_lora", "speech_decoder", "vocoder"}
    assert {f"{part}.safetensors" for part in parts} | {"hello.wav"} == set(opened.files)
    assert opened.model["listener_kind"] == "ctc" and opened.model["ctc"]["ctc"]["dim"] == 16
    for file in ("llm_lora.safetensors", "speech_decoder.safetensors"):  # mini's own
        name = file.removesuffix(".safetensors")
        stage = "agree" if name == "llm_lora" else "speech"
        assert load_file(folder / file).keys() and (path / "run" / stage / "export" / file).is_file()
    said = []
    for mode in ("states", "text"):
        pipe = Pipeline.from_pretrained(folder, settings={"longest_answer": 8, "listen": mode})
        said.append(pipe(folder / "hello.wav").transcript)
    assert said[0] == said[1]
    with pytest.raises(ConfigError, match="listener_kind: need 'recogniser' or 'ctc', got 'ears'"):
        Pipeline.from_pretrained(folder, settings={"listener_kind": "ears"})


@pytest.mark.parametrize("name", ["ctc", "ctc_answers"])
def test_a_stage_that_was_stopped_goes_on_to_the_same_weights(made, tmp_path, name):
    whole = made[0] / "run" / name
    shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    sorted((tmp_path / "checkpoints").iterdir())[-1].unlink()
    before = {path.name: load_file(path) for path in (whole / "export").glob("*.safetensors")}
    result = train(dataclasses.replace(stages(made[0])[name], out=str(tmp_path)), resume=True)
    assert before and result.steps == 2
    for file, tensors in before.items():
        after = load_file(result.export / file)
        assert all(torch.equal(tensors[key], after[key]) for key in tensors), file


def test_minis_own_stages_come_first():
    names = [stage.name for stage in resolve(RECIPE)]
    assert names == ["taught", "asked", "questions", "words", "people", *ORDER]
