from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from train import tiny
from train.toy import steps

from duologue.codecs.text import Message
from duologue.data.manifest import read_rows
from duologue.models.language_model import read_language_model
from duologue.models.llama_omni.loading import fill_in
from duologue.models.llama_omni.prepared import merge
from duologue.train import OptimizerConfig, TrainConfig, train
from duologue.train.answer_task import IGNORED, AnswerTask, cross_entropy
from duologue.train.rows import day_of

PLAIN = "You are mini."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("answers")
    tiny.save_whisper(path / "whisper")
    tiny.save_llm(path / "llama", "llama", tiny.LLAMA)
    tiny.save_llm(path / "qwen", "qwen2", tiny.QWEN)
    tiny.save_data(path / "data")
    return path


def task(folder, **changes) -> AnswerTask:
    base = AnswerTask(
        data=str(folder / "data"),
        listener=str(folder / "whisper"),
        llm=str(folder / "llama"),
        dtype="fp32",
        rank=2,
        alpha=4.0,
        hidden=16,
        rows=4,
        held_out=3,
    )
    return dataclasses.replace(base, **changes)


def config(out, made: AnswerTask, **changes) -> TrainConfig:
    base = TrainConfig(
        name="answers",
        task=made,
        steps=2,
        optimizer=OptimizerConfig(lr=3e-2, warmup=1, rates=(("adapter", 1.5),)),
        log_every=100,
        save_every=1000,
        out=str(out),
        device="cpu",
    )
    return dataclasses.replace(base, **changes)


def batches(made, count, position=0):
    return [batch() for batch in itertools.islice(made.batches(0, position), count)]


@pytest.mark.parametrize("llm", ["llama", "qwen"])
def test_answers_are_learnt_with_models_of_both_shapes(folder, tmp_path, llm):
    """A Llama with tied embeddings; a Qwen2 with biases, a head of its own and another width."""
    made = task(folder, llm=str(folder / llm))
    result = train(config(tmp_path, made, steps=25, eval_first=True))
    losses = [line["loss"] for line in steps(tmp_path)]
    assert sum(losses[-5:]) / 5 < 0.95 * losses[0]
    assert set(result.evaluation) == {"text", "states"}
    changes = load_file(result.export / "llm_lora.safetensors")
    trained, _ = read_language_model(folder / llm)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    merge(trained, changes, where="export")  # as a loaded model does it
    changed = {name for name, value in trained.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {
        name for name in before if name.startswith("blocks") and "norm" not in name and "bias" not in name
    }


def test_a_merged_model_scores_as_the_trained_one(folder, tmp_path):
    made = task(folder, heard=0.0, system=PLAIN)
    result = train(config(tmp_path, made, steps=3))
    llm, codec = read_language_model(folder / "llama")
    merge(llm, load_file(result.export / "llm_lora.safetensors"), where="export")
    total, count = 0.0, 0
    dev = [row for row in read_rows(folder / "data", split="dev")][:3]
    for row in dev:  # as LlamaOmni puts a conversation together, one row at a time
        ids = codec.chat([Message("system", PLAIN), Message("user", row.question)])
        answer = [*codec.encode(row.answer), codec.turn_end]
        state = llm.init_state(1, 500)
        with torch.no_grad():
            hidden = llm(llm.embedding(torch.tensor([ids + answer])), state, torch.tensor([True]))
            logits = llm.logits(hidden)[0, len(ids) - 1 : -1]
        total += float(F.cross_entropy(logits, torch.tensor(answer), reduction="sum"))
        count += len(answer)
    assert result.evaluation["text"] == pytest.approx(total / count, rel=1e-4)


def test_labels_are_the_answer_and_its_end_and_nothing_else(folder):
    made = task(folder, heard=0.0).make()
    rows = {row.question: row for row in read_rows(folder / "data", split="train")}
    for batch in batches(made, 3):
        for ids, labels in zip(batch.ids_BT, batch.labels_BT, strict=True):
            kept = labels[labels != IGNORED].tolist()
            question = made.codec.decode(ids.tolist()).split("user\n")[1].split("\n")[0]
            assert kept[-1] == made.codec.turn_end
            assert made.codec.decode(kept) in {row.answer for row in rows.values() if row.question == question}


def test_heard_questions_take_the_place_of_read_ones(folder):
    module = task(folder).make().build()
    for share in (0.0, 0.5, 1.0):
        made = task(folder, heard=share).make()
        found = batches(made, 6)
        heard = [batch for batch in found if batch.heard is not None]
        places = sum(int(batch.heard_BT.sum()) for batch in found)
        assert places == sum(int(batch.heard.counts_B.sum()) for batch in heard)
        assert (len(heard) > 0) == (share > 0)
        for batch in heard[:1]:  # only where something is heard does the adapter count
            cross_entropy(module, batch).backward()
            assert module.adapter.down.weight.grad.abs().sum() > 0


def test_a_row_that_speaks_of_a_day_is_told_that_day(folder):
    made = task(folder).make()
    turns = [row for row in read_rows(folder / "data", split="train")][:8]
    assert any(day_of(turn.id) for turn in turns) and not all(day_of(turn.id) for turn in turns)
    batch = made._batch(turns, [False] * 8, system_day=np.random.default_rng(0))
    for turn, number in zip(turns, batch.system_B.tolist(), strict=True):
        text = made.codec.decode(batch.systems_ST[number, : int(batch.counts_S[number])].tolist())
        assert (fill_in("{date}, {year}", day_of(turn.id)) in text) if day_of(turn.id) else "Today is" in text


def test_instructions_read_apart_change_nothing(folder):
    """Two days in a batch, of different length: each row's loss is that of the row alone."""
    made = task(folder, heard=0.0).make()
    module = made.build()
    turns = [row for row in read_rows(folder / "data", split="train")][:6]
    rng = np.random.default_rng
    together = made._batch(turns, [False] * 6, system_day=rng(0))
    tokens = (together.labels_BT != IGNORED).sum(1)
    alone = [cross_entropy(module, made._batch([turn], [False], system_day=rng(0))) for turn in turns]
    expected = (torch.stack(alone) * tokens).sum() / tokens.sum()
    torch.testing.assert_close(cross_entropy(module, together), expected, rtol=1e-4, atol=1e-5)


def test_the_stream_goes_on_at_any_position_and_the_cache_is_made_once(folder):
    made = task(folder).make()
    first = batches(made, 5)
    files = {path: path.stat().st_mtime_ns for path in (folder / "data" / "features").rglob("*.safetensors")}
    again = batches(task(folder).make(), 2, position=3)
    for one, other in zip(first[3:], again, strict=True):
        assert torch.equal(one.ids_BT, other.ids_BT) and torch.equal(one.heard_BT, other.heard_BT)
        assert torch.equal(one.systems_ST, other.systems_ST)
    assert files and files == {path: path.stat().st_mtime_ns for path in files}
