"""The recipe of the small duplex model, whole, at the smallest size: from conversations to a folder that converses."""

from __future__ import annotations

import dataclasses
import itertools
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_speakers import hums, recipe
from tiny_duplex import CODEC, codec
from train import tiny
from train.coding import save_speech
from train.conversing import DEPTH

from duologue import Pipeline
from duologue.checkpoints import open_model
from duologue.checkpoints.codecs import save_codec
from duologue.config import to_dict
from duologue.data.dialogue import DialogueSource, make_dialogues
from duologue.data.dialogue.manifest import read_conversations
from duologue.data.manifest import decode_flac, read_rows
from duologue.errors import DataError, TrainError
from duologue.eval.voices import is_reserved
from duologue.train import TrainConfig, train
from duologue.train.duplex_task import DuplexTask
from duologue.train.duplex_work import TurnsStage
from duologue.train.stages import resolve, with_settings

RECIPE = f"{Path(__file__).parents[1] / 'recipes' / 'duplex_mini.py'}:duplex_mini"
SMALL = ["steps=2", "optimizer.warmup=1", "eval_every=0", "save_every=2", "device=cpu", "rows=4", "held_out=2"]


@pytest.fixture
def stages(tmp_path):
    made = resolve(RECIPE, out=str(tmp_path))
    new = {"llm": str(tmp_path / "llm"), "layers": [0, 1], "pieces": 0, "depth": asdict(DEPTH), "context": 100}
    text = tmp_path / "texts.jsonl"
    text.write_text(json.dumps({"text": "The sun is red."}) + "\n" + json.dumps({"text": "The sea is not."}))
    training = with_settings(
        [stage for stage in made if isinstance(stage, TrainConfig)],
        [
            *SMALL,
            f"read.new={json.dumps(new)}",
            f"read.codec={tmp_path / 'codec'}",
            *(f'{name}.texts=["{text}", "{tmp_path}/data/talks"]' for name in ("read", "one")),
            *(f"{name}.seconds=2.0" for name in ("read", "hear", "one", "two", "answer", "live")),
            f"sound.start={tmp_path / 'codec'}",
            f"sound.codec={json.dumps(to_dict(CODEC))}",
            'sound.discriminators={"windows": [128, 64], "channels": 2}',
            "sound.judged=2",
            "sound.frames=4",
            f"said.codec={json.dumps(to_dict(CODEC))}",
            'said.discriminators={"windows": [128, 64], "channels": 2}',
            "said.judged=2",
            "said.frames=4",
        ],
    )
    return {stage.name: stage for stage in [*made, *training]}


def save_talks(folder: Path, *, answered: bool = True) -> None:
    """As the stages `talks` and `asked` would, with speakers that hum."""
    path = folder.parent / "pairs.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"question": f"What is number {n}?", "answer": f"It is the {word}."} for n, word in enumerate(tiny.WORDS)]
    path.write_text("\n".join(map(json.dumps, rows)))
    source = DialogueSource(path=str(path), name="pairs", kind="pairs", licence="CC0")
    config = recipe([source], conversations=8, dev=0.4, exchanges=(1, 1), seed=4, answered=answered)
    make_dialogues(config, folder, progress=False, speakers=hums())


def test_the_recipe_makes_a_model_that_converses(stages, tmp_path):
    data = ["asked", "talks", "own_speech", "own_turns"]
    training = ["read", "hear", "one", "two", "answer", "sound", "said", "live"]
    wanted = [*data, *training, "model"]
    assert list(stages) == wanted
    tiny.save_llm(tmp_path / "llm", "llama", tiny.LLAMA)
    save_codec(codec(), tmp_path / "codec")
    save_talks(tmp_path / "data" / "talks")
    save_talks(tmp_path / "data" / "asked", answered=False)
    save_speech(tmp_path / "data" / "own")
    with pytest.raises(TrainError, match="Run the stages"):
        stages["model"].run()
    stages["own_turns"].run()
    results = {name: train(stages[name]) for name in training}
    assert results["read"].evaluation.keys() == {"reading"} and results["hear"].evaluation.keys() == {"heard"}
    assert results["live"].evaluation.keys() >= {"text", "words", "perplexity", "code_1", "right_3", "false_starts"}
    stages["model"].run()
    changed, mine = (open_model(tmp_path / name).tensors("mimi.safetensors") for name in ("live/export", "two/export"))
    parts = {name.split(".")[0] for name, value in changed.items() if not value.equal(mine[name])}
    assert parts == {"decoder", "decoder_transformer", "upsample"}, "codes keep their meaning"
    card = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    assert "| two | 2 |" in card and "- pairs (CC0)" in card
    plain, packed = (open_model(tmp_path / name).tensors("moshi.safetensors") for name in ("live/export", "model"))
    assert {name.removesuffix(".int8") for name in packed if not name.endswith(".scale")} == set(plain)
    assert {"text_head.weight.int8", "audio_embedding.table.weight.int8"} <= set(packed)
    moshi = Pipeline.from_pretrained(tmp_path / "model").model
    table, wanted = moshi.model.audio_embedding.table.weight, plain["audio_embedding.table.weight"]
    on = dataclasses.replace(stages["live"].task, start=str(tmp_path / "model")).make().build()
    torch.testing.assert_close(on.text_head.weight, plain["text_head.weight"], atol=0.01, rtol=0.01)
    torch.testing.assert_close(table.float(), wanted, atol=0.01 * float(wanted.abs().max()), rtol=0.01)
    with torch.inference_mode():
        state, live = moshi.init_state(1), torch.tensor([True])
        moshi.listen(state, torch.zeros(1, moshi.spec.input_samples), live)
        assert moshi.speak(state, live).samples_B.tolist() == [1920]


def test_turns_of_the_assistant_are_cut_on_whole_frames_out_of_silence(tmp_path):
    save_talks(tmp_path / "data" / "talks")
    stage = TurnsStage(name="turns", data=f"{tmp_path}/data/talks", out=f"{tmp_path}/turns", before=6, after=3)
    stage.run()
    talks = {row.id: row for row in read_conversations(tmp_path / "data" / "talks")}
    rows = list(read_rows(tmp_path / "turns"))
    assert sum(len(row.answer.split()) for row in rows) == sum(
        len(talk.words_of("assistant")) for talk in talks.values()
    )
    for row in rows:
        talk = talks[row.id.rsplit("-", 1)[0]]
        channel_FN = talk.sound()[0][: int(talk.seconds * 12.5) * 1920].reshape(-1, 1920)
        piece_FN = decode_flac(row.answer_audio, 24_000).reshape(-1, 1920)
        offsets = range(len(channel_FN) - len(piece_FN) + 1)
        places = [f for f in offsets if np.allclose(channel_FN[f : f + len(piece_FN)], piece_FN, atol=1e-3)]
        assert places and row.split == talk.split
        assert not piece_FN[0].any() and np.abs(piece_FN).max() > 0.01
    with pytest.raises(DataError, match="says nothing"):
        save_talks(tmp_path / "data" / "asked", answered=False)
        dataclasses.replace(stage, data=f"{tmp_path}/data/asked", out=f"{tmp_path}/none").run()


def test_the_conversations_are_those_of_the_data_recipe_without_voices_of_the_tests(monkeypatch):
    made = []
    monkeypatch.setattr("duologue.data.dialogue.make_dialogues", lambda config, out: made.append((config, out)))
    stages = resolve(RECIPE, out="elsewhere")
    assert [voice.name for voice in stages[2].voices] == ["assistant"]
    for stage in stages[:2]:
        stage.run()
    asked, talks = (config for config, _ in made)
    assert [out for _, out in made] == [Path("elsewhere/data/asked"), Path("elsewhere/data/talks")]
    assert asked.sources == talks.sources and asked.closed and talks.closed and talks.answered and not asked.answered
    for config in (asked, talks):
        assert not [voice.name for voice in config.voices if is_reserved(voice)]
        assert {voice.name for voice in config.voices if "train" not in voice.splits} == {"hibari-child-us"}


def test_each_stage_goes_on_from_the_one_before():
    training = [s for s in resolve(RECIPE) if isinstance(s, TrainConfig) and isinstance(s.task, DuplexTask)]
    for before, after in itertools.pairwise(training):
        assert after.task.start == f"{before.folder}/export"
    assert [stage.task.apart for stage in training[1:]] == [1.0, 1.0, 0.25, 0.15, 0.1]
    live = training[-1].task
    assert live.depth_share == 1 and not (live.words_share or live.unspoken)
    assert len({stage.task.text_lead for stage in training[2:]}) == 1
    assert not any("heldout" in text or "closed" in text for stage in training for text in stage.task.texts)
