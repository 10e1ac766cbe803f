"""The recipe of the small codec, whole, at the smallest size: from texts to a folder that codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from train import tiny
from train.coding import TINY, save_speech

from duologue import config as configs
from duologue.checkpoints.codecs import load_codec
from duologue.data.manifest import read_rows
from duologue.data.speakers import Voice
from duologue.errors import DataError
from duologue.eval.voices import is_reserved
from duologue.train import TrainConfig, train
from duologue.train.mimi_work import SpeechStage
from duologue.train.stages import resolve, with_settings

RECIPE = f"{Path(__file__).parents[1] / 'recipes' / 'mimi_mini.py'}:mimi_mini"
SMALL = [
    "steps=3",
    "optimizer.warmup=1",
    "eval_every=0",
    "save_every=2",
    "device=cpu",
    "rows=2",
    "voice.judged=2",
    "frames=4",
    "held_out=2",
    'discriminators={"windows": [128, 64], "channels": 2}',
    f"codec={json.dumps(configs.to_dict(TINY))}",
]


def stages(out: Path) -> dict[str, object]:
    made = resolve(RECIPE, out=str(out))
    training = [stage for stage in made if isinstance(stage, TrainConfig)]
    small = with_settings(training, [*SMALL, f"teacher={out / 'teacher'}"])
    return {stage.name: stage for stage in [*made, *small]}


def test_the_recipe_makes_a_codec(tmp_path):
    found = stages(tmp_path)
    assert list(found) == ["speech", "people", "sketch", "codes", "spectra", "voice", "codec"]
    tiny.save_whisper(tmp_path / "teacher")
    for name in ("speech", "people"):
        save_speech(tmp_path / "data" / name)
        (tmp_path / "data" / name / "done.json").write_text("{}")
    results = [train(found[name]) for name in ("sketch", "codes", "spectra", "voice")]
    measured = [result.evaluation.keys() for result in results]
    assert measured[0] == {"sketch", "semantic"} and measured[1] == {"sketch", "semantic", "first", "others"}
    assert measured[2] == measured[3] == {"mel", "semantic", "first", "others"}
    found["codec"].run()
    mimi = load_codec(tmp_path / "codec")
    assert mimi.config == TINY
    assert all(bool(book.initialized) for book in mimi.quantizer.acoustic.codebooks[:2])
    card = (tmp_path / "codec" / "MODEL_CARD.md").read_text()
    assert "| voice | 3 |" in card and "- people: recordings" in card


def test_no_voice_of_the_tests_is_trained_on():
    speech = resolve(RECIPE)[0]
    assert isinstance(speech, SpeechStage)
    assert not [voice.name for voice in speech.voices if is_reserved(voice)]
    assert {voice.splits for voice in speech.voices} == {("train",), ("dev", "test")}
    assert not any("heldout" in name or "closed" in name for name in speech.texts)


def test_the_full_size_is_what_it_says():
    spectra = next(stage for stage in resolve(RECIPE) if stage.name == "spectra")
    from duologue.codecs.mimi import Mimi

    with torch.device("meta"):
        size = sum(p.numel() for p in Mimi(spectra.task.codec).parameters())
    assert 8e6 < size < 9e6


@pytest.fixture
def reading(tmp_path, monkeypatch):
    class Hum:
        sample_rate = 16_000

        def __init__(self, voice):
            self.name = voice.name

        def speak(self, text, seed):
            if "silent" in text:
                raise DataError("nothing to say")
            return np.full(1_600, 0.1, np.float32)

    monkeypatch.setattr("duologue.train.mimi_work.make_speaker", Hum)
    lines = [{"question": "One?", "answer": "It is {weekday}."}, {"text": "Two."}, {"text": "A silent one."}]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    voices = (
        Voice(kind="flite", name="ours", splits=("train",)),
        Voice(kind="flite", name="theirs", splits=("dev", "test")),
    )
    return SpeechStage(
        name="speech",
        out=str(tmp_path / "out"),
        texts=(str(tmp_path / "texts.jsonl"),),
        voices=voices,
        rows=12,
        held_out=4,
    )


def test_texts_are_read_aloud_at_the_codecs_rate_by_voices_of_their_split(reading):
    reading.run()
    rows = list(read_rows(Path(reading.out)))
    assert {(row.split, row.answer_speaker) for row in rows} == {("train", "ours"), ("dev", "theirs")}
    assert {row.answer for row in rows} == {"One?", "Two."} and len(rows) < 12
    assert rows[0].answer_seconds == pytest.approx(0.1)


def test_reading_aloud_goes_on_where_it_was_stopped(reading, monkeypatch):
    monkeypatch.setattr("duologue.train.mimi_work.SHARD", 5)
    reading.run()
    shards = sorted((Path(reading.out) / "shards").iterdir())
    whole = [path.read_bytes() for path in shards]
    shards[1].unlink()
    (Path(reading.out) / "done.json").unlink()
    reading.run()
    assert [path.read_bytes() for path in shards] == whole
