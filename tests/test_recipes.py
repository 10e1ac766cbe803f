"""The recipe of mini, whole, on parts of a few thousand numbers: stage by stage to a folder that answers."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from train import tiny

from duologue.checkpoints import open_model
from duologue.data.manifest import read_rows
from duologue.data.recordings import Recording, Sound
from duologue.data.synthesis import synthesise
from duologue.errors import TrainError
from duologue.pipeline import Pipeline
from duologue.train import TrainConfig, run, train
from duologue.train.rows import day_of
from duologue.train.stages import resolve, with_settings
from duologue.train.work import DataStage, ModelStage, RecordingsStage, TextsStage

RECIPES = Path(__file__).parents[1] / "recipes"
SMALL = [
    "steps=2",
    "optimizer.warmup=1",
    "eval_every=0",
    "save_every=1",
    "device=cpu",
    "dtype=fp32",
    "rank=2",
    "hidden=8",
    "rows=4",
    "listen.seconds=3.0",
    "listen.held_out=2",
    "listen.held_out_noises=1",
    "turns.words=2",
    "turns.shortest=0.5",
    "turns.held_out=4",
    "answers.held_out=2",
    "agree.held_out=2",
    'talk.keep=["tiny"]',
    "speech.held_out=2",
    "speech.prosody_after=1",
    'speech.decoder={"dim": 16, "layers": 1, "heads": 2, "ffn_dim": 16, "upsample": 4, "grid_dim": 16, "kernel": 3}',
    'vocoder.vocoder={"dim": 8, "unit_hidden": 8, "step_hidden": 8, "rank": 4}',
    "vocoder.held_out=1",
    "vocoder.most=6",
    "vocoder.frames=400",
]


def small(out: Path, *, llm: Path, whisper: Path) -> dict[str, object]:
    """The stages of mini at the smallest size, by name, with the data there already."""
    settings = [*SMALL, f"llm={llm}", f"listen.listener={whisper}"]
    stages = with_settings(resolve(f"{RECIPES / 'mini.py'}:mini", out=str(out)), settings)
    for name in ("taught", "asked", "questions", "words", "people"):
        tiny.save_data(out / "data" / name, rows=12)
    return {stage.name: stage for stage in stages}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Every stage run in order, as `duologue train mini` does it."""
    path = tmp_path_factory.mktemp("mini")
    whisper = tiny.save_whisper(path / "parts" / "whisper")
    llm = tiny.save_llm(path / "parts" / "llm", "llama", tiny.LLAMA)
    stages = small(path / "run", llm=llm, whisper=whisper)
    results = {}
    for name in ("answers", "talk", "listen", "turns", "agree", "speech", "texts", "vocoder", "model"):
        stage = stages[name]
        results[name] = train(stage) if isinstance(stage, TrainConfig) else stage.run()
    return path / "run", results


def test_every_stage_runs_and_is_judged_by_its_own_measure(made):
    _, results = made
    measures = {name: set(result.evaluation) for name, result in results.items() if result is not None}
    assert {"wer", "wer_all", "invented"} == measures["listen"]
    assert {"loss", "precision", "recall", "area"} == measures["turns"]
    assert measures["answers"] == {"text"} and measures["agree"] == {"text", "states"}
    assert {"unit_error_rate", "length", "pitch", "energy"} == measures["speech"]
    assert measures["vocoder"]


def test_the_model_folder_is_whole_and_answers(made):
    folder = made[0] / "model"
    opened = open_model(folder)
    parts = {"listener", "turn_head", "adapter", "llm_lora", "speech_decoder", "vocoder"}
    assert {f"{part}.safetensors" for part in parts} | {"listener_tokenizer.json", "hello.wav"} == set(opened.files)
    card = (folder / "MODEL_CARD.md").read_text()
    assert all(f"| {role} | 2 |" in card for role in ("listen", "turns", "answers", "speech", "vocoder"))
    said = []
    for _ in range(2):  # the second time the language model comes from what the first has prepared
        pipe = Pipeline.from_pretrained(folder, settings={"longest_answer": 8})
        answer = pipe(folder / "hello.wav")
        assert answer.sample_rate == 24_000 and answer.metrics.transcript and len(answer.audio) > 0
        said.append((answer.transcript, answer.text))
    assert said[0] == said[1]


def test_a_stage_that_is_no_training_is_run_by_its_name(made):
    before = open_model(made[0] / "model")
    llm = made[0].parent / "parts" / "llm"
    results = run(f"{RECIPES / 'mini.py'}:model", [f"llm={llm}", 'model.changes=["omega=20"]'], out=str(made[0]))
    after = open_model(made[0] / "model")
    assert results == [] and (before.model["omega"], after.model["omega"]) == (10, 20)
    assert after.files == before.files


def test_a_setting_with_a_stages_name_goes_to_it_alone():
    """The stage `model` has a field `listen`, which is not what is meant."""
    stages = with_settings(resolve(f"{RECIPES / 'mini.py'}:mini"), ["listen.rows=3", "model.listen=elsewhere"])
    by_name = {stage.name: stage for stage in stages}
    assert by_name["listen"].task.rows == 3 and by_name["answers"].task.rows == 16
    assert by_name["model"].listen == "elsewhere"


@pytest.mark.parametrize("name", ["listen", "turns", "answers", "agree", "speech"])
def test_a_stage_that_was_stopped_goes_on_to_the_same_weights(made, tmp_path, name):
    """As if it had died in its last step: dropout, noise, masks and what is heard or read are drawn again alike."""
    whole = made[0] / name
    shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    newest = sorted((tmp_path / "checkpoints").iterdir())[-1]
    newest.unlink()
    before = {path.name: load_file(path) for path in (whole / "export").glob("*.safetensors")}
    stage = small(made[0], llm=made[0].parent / "parts" / "llm", whisper=made[0].parent / "parts" / "whisper")[name]
    result = train(dataclasses.replace(stage, out=str(tmp_path)), resume=True)
    assert before and result.steps == 2
    for file, tensors in before.items():
        after = load_file(result.export / file)
        assert tensors.keys() == after.keys() and all(torch.equal(tensors[key], after[key]) for key in tensors), file


def test_a_part_that_is_missing_is_named(made, tmp_path):
    stage = ModelStage(
        name="model",
        listen=str(made[0] / "listen"),
        answers=str(tmp_path / "answers"),
        speech=str(made[0] / "speech"),
        vocoder=str(made[0] / "vocoder"),
        out=str(tmp_path / "model"),
    )
    with pytest.raises(
        TrainError, match=r"answers/export: nothing is there\. Run the stage 'answers' to its end first"
    ):
        stage.run()
    assert not (tmp_path / "model").exists()


def test_a_qwen_and_a_larger_encoder_go_through_the_same_recipe(tmp_path):
    larger = dataclasses.replace(tiny.WHISPER, dim=48, encoder_layers=2, num_mels=20)
    whisper = tiny.save_whisper(tmp_path / "whisper", larger)
    llm = tiny.save_llm(tmp_path / "qwen", "qwen2", tiny.QWEN)
    stages = small(tmp_path / "run", llm=llm, whisper=whisper)
    for name in ("answers", "talk", "listen", "agree"):
        stage = stages[name]
        train(stage) if isinstance(stage, TrainConfig) else stage.run()
    shape = json.loads((tmp_path / "run" / "agree" / "export" / "adapter.json").read_text())
    assert (shape["state_dim"], shape["llm_dim"]) == (48, tiny.QWEN.dim)


def test_the_data_comes_first_and_the_model_last():
    stages = resolve(f"{RECIPES / 'mini.py'}:mini")
    data = ["taught", "asked", "questions", "words", "people"]
    names = ["answers", "talk", "listen", "turns", "agree", "speech", "texts", "vocoder", "model"]
    assert [stage.name for stage in stages] == data + names
    for stage in stages:  # every part is named that can be exchanged
        assert not isinstance(stage, TrainConfig) or stage.out.startswith("runs/mini/")
    changed = with_settings(stages, ["llm=models/larger"])
    found = {stage.name: getattr(getattr(stage, "task", stage), "llm", None) for stage in changed[-len(names) :]}
    assert {name for name, llm in found.items() if llm == "models/larger"} == {
        "answers",
        "talk",
        "agree",
        "speech",
        "model",
    }


def test_data_is_made_by_a_stage_and_not_again(tmp_path):
    settings = ("sources=[]", "sampled=2", "workers=1")
    stage = DataStage(
        name="words", recipe=f"{RECIPES / 'data_mini.py'}:words", out=str(tmp_path / "words"), settings=settings
    )
    stage.run()
    shard = next((tmp_path / "words" / "shards").glob("*.parquet"))
    made_at = shard.stat().st_mtime_ns
    stage.run()
    assert len(list(read_rows(tmp_path / "words"))) == 2 and shard.stat().st_mtime_ns == made_at


def test_recordings_become_rows_and_sounds_rows_without_words(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 48_000).astype(np.float32)
    about = {"sample_rate": 24_000, "source": "s", "licence": "x"}
    people = [
        Recording(audio=noise, text=f"line {n}", name=str(n), speaker="p", kind="reading", **about) for n in range(300)
    ]
    people.append(dataclasses.replace(people[0], text=" ", name="no words"))
    sounds = [Sound(audio=noise, name=f"sound {n}", kind="music", **about) for n in range(5)]
    others = [dataclasses.replace(people[n], name=f"other {n}", speaker=str(n // 10)) for n in range(30)]
    splits = {"train": people, "dev": others}
    monkeypatch.setattr("duologue.data.recordings.iterate_recordings", lambda split, only=None: iter(splits[split]))
    monkeypatch.setattr("duologue.data.recordings.iterate_sounds", lambda split: iter(sounds))
    stage = RecordingsStage(name="people", out=str(tmp_path), sounds=3, dev_sounds=2)
    stage.run()
    rows = list(read_rows(tmp_path))
    train, dev = ([row for row in rows if row.split == split] for split in ("train", "dev"))
    expected = [*(f"s/{n}" for n in range(300)), "s/sound 1~1"]
    assert [row.id for row in train] == expected
    assert {row.id for row in dev} == {f"s/other {n}" for n in range(30)} | {"s/sound 0~0", "s/sound 2~2"}
    assert {row.question_speaker for row in dev[:10]} == {"0", "1", "2"}  # the first few hear all of the speakers
    assert rows[0].question_seconds == pytest.approx(2.0) and [row.question for row in rows].count("") == 3
    people.clear()
    stage.run()  # done already
    assert len(list(read_rows(tmp_path))) == len(rows)


def test_sounds_come_evenly_from_their_sources_and_short_ones_in_a_row(tmp_path, monkeypatch):
    about = {"sample_rate": 16_000, "licence": "x", "kind": "effect"}
    sounds = [Sound(audio=np.full(480_000, 0.1, np.float32), name=f"{n}", source="long", **about) for n in range(20)]
    sounds.append(Sound(audio=np.full(800, 0.1, np.float32), name="click", source="short", **about))
    monkeypatch.setattr("duologue.data.recordings.iterate_recordings", lambda split, only=None: iter([]))
    monkeypatch.setattr("duologue.data.recordings.iterate_sounds", lambda split: iter(sounds))
    RecordingsStage(name="people", out=str(tmp_path), sounds=40).run()
    rows = list(read_rows(tmp_path))
    assert Counter(row.source for row in rows) == {"long": 20, "short": 20}
    assert len({row.id.split("~")[0] for row in rows}) == 21  # every sound has its turn
    assert all(0.5 <= row.question_seconds <= 6 for row in rows)


def test_texts_are_those_of_the_answers_each_once(tmp_path):
    tiny.save_data(tmp_path / "data")
    stage = TextsStage(name="texts", data=(str(tmp_path / "data"),), out=str(tmp_path / "texts.txt"))
    stage.run()
    lines = (tmp_path / "texts.txt").read_text().splitlines()
    assert sorted(lines) == sorted({row.answer for row in read_rows(tmp_path / "data", split="train")})


@pytest.fixture(scope="module")
def data_mini():
    from duologue.train.stages import find

    return lambda name: find(f"{RECIPES / 'data_mini.py'}:{name}")()


def test_answers_about_today_are_written_for_several_days(data_mini, tmp_path):
    source = tmp_path / "qa.jsonl"
    asked = [
        ("What day is it today?", "It's {weekday}, {date}, {year}."),
        ("Is it cold at the pole?", "Yes, it is very cold."),
    ]
    source.write_text("\n".join(json.dumps({"question": q, "answer": a}) for q, a in asked))
    recipe = data_mini("small")
    sources = (dataclasses.replace(recipe.sources[0], path=str(source)),)
    steps = tuple(step for step in recipe.steps if step not in ("speech", "units"))
    synthesise(dataclasses.replace(recipe, sources=sources, steps=steps), tmp_path / "out", progress=False)
    rows = list(read_rows(tmp_path / "out"))
    dated = [row for row in rows if day_of(row.id)]
    assert len(rows) == len(dated) + 1 and len(dated) > 8
    assert len({row.answer for row in dated}) == len(dated) and not any("{" in row.answer for row in rows)
    for row in dated:
        assert day_of(row.id).strftime("It's %A, %B ") in row.answer


def test_lists_of_words_are_spoken_for_the_speech_decoder(data_mini, tmp_path):
    recipe = dataclasses.replace(data_mini("words"), sources=(), sampled=3, workers=1)
    synthesise(recipe, tmp_path, progress=False)
    rows = list(read_rows(tmp_path))
    assert len(rows) == 3 and all(row.units and len(row.unit_prosody) == 3 * len(row.units) for row in rows)
    assert len({row.answer for row in rows}) == 3 and all(len(row.answer.split()) >= 5 for row in rows)
