from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from train import tiny
from train.toy import steps

from duologue.codecs.text import Message
from duologue.data.manifest import read_rows, shard_name, write_shard
from duologue.errors import DataError
from duologue.models.language_model import read_language_model
from duologue.models.llama_omni.loading import fill_in
from duologue.models.llama_omni.speech_decoder import SpeechDecoder, SpeechDecoderConfig
from duologue.train import OptimizerConfig, TrainConfig, train
from duologue.train.parts import load_part
from duologue.train.rows import FIRST_DAY, day_of
from duologue.train.speech_task import SpeechBatch, SpeechTask, decoded, distance, prosody_errors

SHAPE = SpeechDecoderConfig(dim=16, layers=1, heads=2, ffn_dim=16, upsample=4, grid_dim=16, kernel=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("speech")
    tiny.save_llm(path / "llama", "llama", tiny.LLAMA)
    tiny.save_data(path / "data")
    return path


def task(folder, **changes) -> SpeechTask:
    base = SpeechTask(
        data=str(folder / "data"),
        llm=str(folder / "llama"),
        dtype="fp32",
        decoder=SHAPE,
        rows=4,
        prosody_after=3,
        held_out=3,
    )
    return dataclasses.replace(base, **changes)


def test_units_and_prosody_are_learnt_and_the_part_is_exported(folder, tmp_path):
    config = TrainConfig(
        name="speech",
        task=task(folder),
        steps=40,
        optimizer=OptimizerConfig(lr=1e-2, warmup=2),
        log_every=100,
        save_every=1000,
        out=str(tmp_path),
        device="cpu",
    )
    result = train(config)
    lines = steps(tmp_path)
    assert lines[-1]["ctc"] < 0.8 * lines[0]["ctc"]
    assert [line["length"] > 0 for line in lines[:5]] == [False] * 3 + [True] * 2  # prosody comes in later
    assert set(result.evaluation) == {"unit_error_rate", "length", "pitch", "energy"}
    shape = dataclasses.replace(SHAPE, llm_dim=tiny.LLAMA.dim)
    load_part(SpeechDecoder(shape), "speech_decoder", result.export)


def test_states_are_those_after_each_token_of_the_answer(folder):
    """The convention: the state that has consumed a token, not the one that predicted it; the end counts."""
    made = task(folder).make()
    llm, codec = read_language_model(folder / "llama")
    for row in itertools.islice(read_rows(folder / "data"), 6):
        system = fill_in(made.config.system, day_of(row.id) or FIRST_DAY)
        prompt = codec.chat([Message("system", system), Message("user", row.question)])
        answer = [*codec.encode(row.answer), codec.turn_end]
        with torch.no_grad():
            ids = torch.tensor([prompt + answer])
            hidden = llm(llm.embedding(ids), llm.init_state(1, 500), torch.tensor([True]))
        kept = made.states[0][row.id]
        assert kept["ids"].tolist() == answer
        torch.testing.assert_close(kept["states"].float(), hidden[0, len(prompt) :], rtol=1e-2, atol=1e-2)


def test_the_end_of_the_text_is_shown_again(folder):
    made = task(folder, flush=3).make()
    batch = next(made.batches(0, 0))()
    for ids, states, count in zip(batch.ids_BT, batch.states_BTD, batch.steps_B.tolist(), strict=True):
        assert len(set(ids[count - 4 : count].tolist())) == 1
        assert torch.equal(states[count - 1], states[count - 4]) and not torch.equal(
            states[count - 5], states[count - 4]
        )


def test_the_stream_goes_on_at_any_position(folder):
    first = [batch() for batch in itertools.islice(task(folder).make().batches(0, 0), 5)]
    again = [batch() for batch in itertools.islice(task(folder).make().batches(0, 3), 2)]
    for one, other in zip(first[3:], again, strict=True):
        assert torch.equal(one.states_BTD, other.states_BTD) and torch.equal(one.units_BU, other.units_BU)
        assert one.with_prosody == other.with_prosody


def test_rows_of_two_folders_with_the_same_id_are_kept_apart(folder):
    """Synthesis numbers its rows from 0 in every folder."""
    rows = [dataclasses.replace(row, id=f"row-{n}", answer="sea") for n, row in enumerate(read_rows(folder / "data"))]
    write_shard(folder / "other" / shard_name(0), [dataclasses.replace(row, split="train") for row in rows])
    write_shard(
        folder / "first" / shard_name(0), [dataclasses.replace(row, split="train", answer="red") for row in rows]
    )
    made = task(folder, data=str(folder / "first"), more=(str(folder / "other"),), flush=0).make()
    _, codec = read_language_model(folder / "llama")
    seen = {
        codec.decode(ids[:count].tolist())
        for batch in itertools.islice(made.batches(0, 0), 12)
        for ids, count in zip(batch().ids_BT, batch().steps_B.tolist(), strict=True)
    }
    assert seen == {"sea", "red"}
    for index, (folder_rows, word) in enumerate((("first", "red"), ("other", "sea"))):
        assert made.states[index]["row-0"]["ids"].tolist() == [*codec.encode(word), codec.turn_end], folder_rows


def test_answers_that_the_grid_cannot_spell_are_left_out(folder):
    short = dataclasses.replace(SHAPE, upsample=1)
    with pytest.raises(DataError, match=r"no answer's units fit its tokens; raise decoder\.upsample"):
        next(task(folder, decoder=short, flush=0).make().batches(0, 0))


def test_prosody_is_judged_where_each_unit_begins_and_pitch_only_where_voiced():
    shape = SpeechDecoderConfig(llm_dim=4, dim=4, layers=1, heads=2, upsample=1, num_units=2)
    path = torch.tensor([[0, 0, 2, 1, 1]])  # unit 0 begins at step 0, unit 1 at step 3; 2 is the blank
    log_probs = torch.full((1, 5, 3), -20.0).scatter(2, path[..., None], 0.0)
    prosody = torch.arange(15.0).view(1, 5, 3)
    truth = torch.stack([prosody[0, 0], prosody[0, 3]])[None].clone()
    truth[0, 0, 0] += 0.6  # length: off by one spread in one of two units
    truth[0, 0, 1] = 0.0  # unvoiced: its pitch does not count
    truth[0, 1, 1] += 0.2
    batch = SpeechBatch(
        torch.zeros(1, 5, 4),
        torch.zeros(1, 5).long(),
        torch.tensor([5]),
        torch.tensor([[0, 1]]),
        torch.tensor([2]),
        truth,
        True,
    )
    torch.testing.assert_close(
        prosody_errors(log_probs, prosody, batch, shape), torch.tensor([0.5, 1.0, 0.0]), atol=1e-4, rtol=0
    )


def test_dropout_only_in_training(folder):
    made = task(folder).make()
    module, batch = made.build(), next(made.batches(0, 0))()
    module.eval()
    assert torch.equal(decoded(module, batch)[0], decoded(module, batch)[0])
    assert torch.equal(made.loss(module, batch)[0], made.loss(module, batch)[0])
    module.train()
    assert not torch.equal(made.loss(module, batch)[0], made.loss(module, batch)[0])


@pytest.mark.parametrize(("one", "other", "edits"), [([1, 2, 3], [1, 3], 1), ([], [4], 1), ([1, 2], [2, 1], 2)])
def test_distance_counts_edits(one, other, edits):
    assert distance(one, other) == edits
