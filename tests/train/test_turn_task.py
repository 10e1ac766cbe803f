"""The head that tells whole questions from cut ones."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from train import tiny
from train.toy import steps

from duologue.data.manifest import read_rows
from duologue.train import OptimizerConfig, TrainConfig, train
from duologue.train.parts import load_part
from duologue.train.turn_task import TurnTask, area, forms


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    path = tmp_path_factory.mktemp("turns")
    tiny.save_whisper(path / "whisper")
    tiny.save_data(path / "data", rows=60)
    return TurnTask(data=str(path / "data"), listener=str(path / "whisper"), words=2, shortest=0.5, rows=8, hidden=64)


def test_both_forms_end_in_silence_and_the_cut_one_lies_within_the_whole():
    rng, rate = np.random.default_rng(0), 16_000
    word = np.sin(np.arange(rate // 2) / 5).astype(np.float32)
    audio = np.concatenate([np.zeros(4000), word, np.zeros(1600), word, np.zeros(8000)]).astype(np.float32)
    for _ in range(10):
        (one, whole), (zero, cut) = forms(audio, silence=0.2, rng=rng)
        assert (one, zero) == (1.0, 0.0) and len(cut) < len(whole) < len(audio)
        for form in (whole, cut):
            assert np.abs(form[-3200:]).max() < 1e-3 and np.abs(form[-3200 - 8000 : -3200]).max() > 0.5
            np.testing.assert_array_equal(form[: len(form) - 3360], audio[: len(form) - 3360])
    assert not list(forms(np.zeros(rate, np.float32), silence=0.2, rng=rng))


def test_the_head_learns_to_tell_them_apart(task, tmp_path):
    config = TrainConfig(
        name="turns",
        task=task,
        steps=150,
        optimizer=OptimizerConfig(lr=2e-2, warmup=1),
        log_every=1,
        save_every=1000,
        out=str(tmp_path),
        device="cpu",
    )
    found = train(config)
    losses = [line["loss"] for line in steps(tmp_path)]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])  # a tone that is cut short is heard otherwise
    assert set(found.evaluation) == {"loss", "precision", "recall", "area"}
    head = load_part(task.make().build(), "turn_head", found.export)
    batch = next(itertools.islice(task.make().batches(0, 0), 1))()
    assert set(batch.complete_B.tolist()) == {0.0, 1.0}
    with torch.no_grad():
        assert head(batch.states_BD, batch.log_probs_B).shape == batch.complete_B.shape


def test_the_stream_is_the_same_at_any_position(task):
    first = [batch() for batch in itertools.islice(task.make().batches(3, 0), 4)]
    later = next(task.make().batches(3, 3))()
    assert torch.equal(first[3].states_BD, later.states_BD) and torch.equal(first[3].complete_B, later.complete_B)
    other = dataclasses.replace(task, rows=4).make()
    assert len(next(other.batches(3, 0))().complete_B) <= 8


def test_the_area_under_the_curve():
    assert area(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])) == 1.0
    assert area(torch.tensor([1.0]), torch.tensor([1.0, 2.0])) == 0.25
    assert area(torch.tensor([]), torch.tensor([1.0])) == 0.5


def test_a_share_of_the_clips_is_the_same_each_time_and_part_of_all(task, tmp_path):
    every = dataclasses.replace(task, cache=str(tmp_path)).make()
    some = [dataclasses.replace(task, cache=str(tmp_path), share=0.4).make() for _ in range(2)]
    ids = [turn.id for turn in read_rows(Path(task.data)) if turn.id in every.ends[0]]
    kept = [[name for name in ids if name in one.ends[0]] for one in some]
    assert kept[0] == kept[1] and 0.2 * len(ids) < len(kept[0]) < 0.6 * len(ids)
