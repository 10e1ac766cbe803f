from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from train import tiny
from train.toy import steps

from duologue.data.manifest import Turn, encode_flac, shard_name, write_shard
from duologue.errors import CheckpointError, TrainError
from duologue.train import OptimizerConfig, TrainConfig, listen_task, train
from duologue.train.listen_task import ListenTask
from duologue.train.parts import load_listener


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("listen")
    tiny.save_whisper(path / "whisper")
    tiny.save_data(path / "data")
    return path


def config(folder, out, **changes) -> TrainConfig:
    task = ListenTask(
        data=str(folder / "data"),
        listener=str(folder / "whisper"),
        seconds=3.0,
        held_out=2,
        held_out_noises=2,
        joined=0.0,
        company=0.0,
    )
    base = TrainConfig(
        name="listen",
        task=dataclasses.replace(task, **{k: changes.pop(k) for k in list(changes) if hasattr(task, k)}),
        steps=4,
        optimizer=OptimizerConfig(lr=1e-2, warmup=1),
        log_every=100,
        save_every=1000,
        out=str(out),
        device="cpu",
    )
    return dataclasses.replace(base, **changes)


def batches(task, position, count, seed=0):
    return [batch() for batch in itertools.islice(task.make().batches(seed, position), count)]


def test_the_listener_learns_its_words_and_is_exported_whole(folder, tmp_path):
    result = train(config(folder, tmp_path, steps=40, noise=0.2))
    lines = steps(tmp_path)
    assert np.mean([line["loss"] for line in lines[-5:]]) < 0.85 * lines[0]["loss"]
    assert set(result.evaluation) == {"wer", "wer_all", "invented"}  # no real people among them
    before, _ = load_listener(str(folder / "whisper"))
    after, tokenizer = load_listener(str(result.export))
    assert after.config == before.config and tokenizer.is_file()
    name = "decoder.embedding.weight"
    assert torch.equal(before.whisper.state_dict()[name], after.whisper.state_dict()[name])
    name = "encoder.conv1.weight"
    assert not torch.equal(before.whisper.state_dict()[name], after.whisper.state_dict()[name])


def test_the_stream_of_batches_is_open_at_any_position(folder, tmp_path):
    stream = batches(config(folder, tmp_path).task, 0, 5)
    for one, other in zip(stream[2:], batches(config(folder, tmp_path).task, 2, 3), strict=True):
        assert torch.equal(one.audio_BN, other.audio_BN) and torch.equal(one.labels_BT, other.labels_BT)


def test_noise_takes_the_place_of_speech_and_has_no_words(folder, tmp_path):
    end = load_listener(str(folder / "whisper"))[0].config.end
    for batch in batches(config(folder, tmp_path, noise=1.0).task, 0, 2):
        words = batch.labels_BT[batch.labels_BT >= 0]
        assert (words == end).all()


def test_rows_come_from_every_folder_also_those_without_words(folder, tmp_path):
    rng = np.random.default_rng(1)
    rows = [
        Turn(
            id=f"sound-{n}",
            question_audio=encode_flac(rng.uniform(-0.1, 0.1, 16_000), 16_000),
            question_seconds=1.0,
        )
        for n in range(6)
    ]
    write_shard(tmp_path / "sounds" / shard_name(0), rows)
    task = config(folder, tmp_path, more=(str(tmp_path / "sounds"),), noise=0.0).task
    seconds = {round(int(batch.samples_B.max()) / 16_000, 1) for batch in batches(task, 0, 20)}
    assert seconds == {0.6, 1.0}
    again = batches(task, 7, 3)
    for one, other in zip(batches(task, 0, 10)[7:], again, strict=True):
        assert torch.equal(one.audio_BN, other.audio_BN)


def test_real_people_have_their_share_and_sound_new_each_time(folder, tmp_path):
    audio = encode_flac(np.random.default_rng(1).uniform(-0.1, 0.1, 16_000), 16_000)
    people = [
        Turn(id=f"p{n}", source="queen", question="Go away!", question_audio=audio, question_seconds=1.0)
        for n in range(2)
    ]
    write_shard(tmp_path / "people" / shard_name(0), people)
    whole = {"people": str(tmp_path / "people"), "share": 0.75, "noise": 0.0, "rows": 2}
    as_they_are = batches(config(folder, tmp_path, fresh=0.0, **whole).task, 0, 40)
    theirs = [number for number, batch in enumerate(as_they_are) if int(batch.samples_B.max()) == 16_000]
    assert 22 <= len(theirs) <= 36
    fresh = batches(config(folder, tmp_path, fresh=1.0, **whole).task, 0, 40)
    sounds = [fresh[number].audio_BN[row, :8_000] for number in theirs for row in range(2)]
    assert len({tuple(sound[:2_000:40].tolist()) for sound in sounds}) > 0.8 * len(sounds)  # some draws change little
    assert all(torch.equal(one.labels_BT, other.labels_BT) for one, other in zip(as_they_are, fresh, strict=True))
    others = [number for number in range(40) if number not in theirs]
    assert all(torch.equal(as_they_are[number].audio_BN, fresh[number].audio_BN) for number in others)


def test_real_people_are_reported_apart_from_synthetic_voices(folder, tmp_path, monkeypatch):
    audio = encode_flac(np.random.default_rng(1).uniform(-0.1, 0.1, 16_000), 16_000)
    people = [
        Turn(id=f"p{n}", split="dev", source="queen", question="Go away!", question_audio=audio, question_seconds=1.0)
        for n in range(3)
    ]
    write_shard(tmp_path / "people" / shard_name(0), people)
    task = config(folder, tmp_path, more=(str(tmp_path / "people"),), held_out=6).task.make()
    real = [truth for _, truth, real in task._held_out if real]
    made = [truth for _, truth, real in task._held_out if truth and not real]
    assert real == ["Go away!"] * 3 and made
    said = {"Go away!": "Go there!"}
    answers = [said.get(truth, truth) for _, truth, _ in task._held_out]
    monkeypatch.setattr(listen_task, "transcripts", lambda *_, **__: answers)
    found = task.evaluate(task.build())
    assert found["wer"] == 0 and found["wer_real"] == 0.5 and 0 < found["wer_all"] < 0.5 and found["invented"] == 0


def test_the_exported_weights_are_a_mixture_where_asked(folder, tmp_path):
    first = load_listener(str(folder / "whisper"))[0].state_dict()
    full = load_listener(str(train(config(folder, tmp_path / "full")).export))[0].state_dict()
    half = load_listener(str(train(config(folder, tmp_path / "half", mix=0.5)).export))[0].state_dict()
    name = "whisper.encoder.conv1.weight"
    torch.testing.assert_close(half[name], (first[name] + full[name]) / 2)


def test_a_listener_that_is_not_there_is_named(folder, tmp_path):
    with pytest.raises(TrainError, match=r"runs/none: nothing is there\. Run the stage that makes it first"):
        load_listener("runs/none")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="the key 'num_mel_bins' is missing"):
        load_listener(str(tmp_path))


def test_some_batches_are_joined(folder, tmp_path):
    plain, long = (batches(config(folder, tmp_path, joined=share, noise=0.0).task, 0, 1)[0] for share in (0.0, 1.0))
    assert len(long.audio_BN) < len(plain.audio_BN) and long.audio_BN.shape[1] > plain.audio_BN.shape[1]
