from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from train import tiny

from duologue.data.manifest import read_rows
from duologue.errors import DataError
from duologue.models.language_model import read_language_model
from duologue.models.text_model import LocalTextModel
from duologue.train import own_answers
from duologue.train.own_answers import OwnAnswersStage

SYSTEM = "You are mini."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("own")
    tiny.save_llm(path / "llama", "llama", tiny.LLAMA)
    tiny.save_data(path / "data", dated=False)
    llm, _ = read_language_model(path / "llama")
    name, layer = next((name, layer) for name, layer in llm.named_modules() if isinstance(layer, torch.nn.Linear))
    generator = torch.Generator().manual_seed(3)
    changes = {
        f"{name}.lora_A": torch.randn(2, layer.in_features, generator=generator),
        f"{name}.lora_B": torch.randn(layer.out_features, 2, generator=generator),
    }
    (path / "answers").mkdir()
    save_file(changes, path / "answers" / "llm_lora.safetensors")
    return path


def stage(folder, **changes) -> OwnAnswersStage:
    given = {
        "name": "own",
        "data": (str(folder / "data"),),
        "answers": str(folder / "answers"),
        "out": str(folder / "own"),
        "llm": str(folder / "llama"),
        "system": SYSTEM,
        "words": 100,
        "tokens": 400,
        "batch": 5,
    }
    return OwnAnswersStage(**{**given, **changes})


def test_a_batch_of_prompts_that_open_alike_is_continued_as_each_alone(folder):
    llm, codec = read_language_model(folder / "llama")
    writer = LocalTextModel(llm, codec)
    prompts = [codec.encode("hello how are you")[:count] for count in (3, 5, 9)] + [codec.encode("hello who is it")]
    together = writer.continue_ids(prompts, max_tokens=6)
    assert together == [writer.continue_ids([prompt], max_tokens=6)[0] for prompt in prompts]
    assert all(together)


class Teacher:
    """Says every letter as a unit."""

    def speak(self, text):
        return SimpleNamespace(units=[ord(letter) for letter in text], prosody_UP=np.zeros((len(text), 3), np.float32))


@pytest.fixture(autouse=True)
def teacher(monkeypatch):
    monkeypatch.setattr(own_answers, "HibariTeacher", Teacher)


def test_kept_sources_stay_and_others_get_the_tuned_models_words(folder, monkeypatch):
    before = {turn.id: turn for turn in read_rows(folder / "data")}
    kept_source = next(iter(before.values())).source
    assert kept_source
    made = stage(folder, keep=(kept_source,), out=str(folder / "kept"))
    made.run()
    assert {turn.id: turn.answer for turn in read_rows(folder / "kept")} == {
        turn.id: turn.answer for turn in before.values()
    }

    monkeypatch.setattr(OwnAnswersStage, "_is_speakable", lambda self, text: True)
    monkeypatch.setattr(
        LocalTextModel, "continue_ids", lambda self, prompts, max_tokens: [prompt[:3] for prompt in prompts]
    )
    made = stage(folder, out=str(folder / "changed"))
    made.run()
    after = {turn.id: turn for turn in read_rows(folder / "changed")}
    assert set(after) == {key for key, turn in before.items() if turn.question.strip()}
    assert all(after[key].answer != before[key].answer for key in after)
    assert all(after[key].question_audio == before[key].question_audio for key in after)
    for turn in after.values():
        assert turn.units == [ord(letter) for letter in turn.answer] and len(turn.unit_prosody) == 3 * len(turn.units)


def test_what_cannot_be_said_and_apologies_are_left_out(folder):
    made = stage(folder, words=6)
    assert made._is_speakable("Bees sleep at night.")
    for text in ("", "I am sorry.", "1. Bees sleep", "Bees sleep at night in the hive today."):
        assert not made._is_speakable(text), text


def test_no_rows_is_said(folder, tmp_path):
    (tmp_path / "shards").mkdir(parents=True)
    with pytest.raises(DataError):
        stage(folder, data=(str(tmp_path),), out=str(tmp_path / "out")).run()
