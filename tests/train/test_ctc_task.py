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

from duologue.data.manifest import Turn, decode_flac, encode_flac, read_rows, shard_name, write_shard
from duologue.errors import CheckpointError
from duologue.models.llama_omni.ctc_listener import CtcAdapter, CtcConfig
from duologue.train import OptimizerConfig, TrainConfig, train
from duologue.train.answer_task import AnswerTask
from duologue.train.ctc_answer_task import CtcAnswerTask
from duologue.train.ctc_task import CtcModel, CtcTask, collate, ctc_loss, masked, transcripts
from duologue.train.parts import load_ctc_listener, load_language_model, load_listener

SHAPE = CtcConfig(encoder_dim=6, stack=2, dim=8, kernel=3, ffn_dim=16, dropout=0.0, llm_dim=5, vocab_size=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ctc")
    tiny.save_whisper(path / "whisper")
    tiny.save_llm(path / "llama", "llama", tiny.LLAMA)
    tiny.save_data(path / "data")
    return path


def config(folder, out, **changes) -> TrainConfig:
    task = CtcTask(
        data=str(folder / "data"),
        listener=str(folder / "whisper"),
        llm=str(folder / "llama"),
        stack=1,
        dim=48,
        kernel=3,
        dropout=0.0,
        candidates=4,
        negatives=60,
        rows=8,
        noise=0.0,
        noise_clips=2,
        held_out=4,
        held_out_noises=2,
    )
    base = TrainConfig(
        name="ctc",
        task=dataclasses.replace(task, **{k: changes.pop(k) for k in list(changes) if hasattr(task, k)}),
        steps=3,
        optimizer=OptimizerConfig(lr=1e-2, warmup=5),
        log_every=100,
        save_every=1000,
        out=str(out),
        device="cpu",
    )
    return dataclasses.replace(base, **changes)


def random_model() -> CtcModel:
    torch.manual_seed(0)
    adapter, embedding = CtcAdapter(SHAPE), torch.nn.Embedding(40, 5)
    adapter.calibrate(torch.randn(50, 6), embedding.weight)
    torch.nn.init.normal_(adapter.bias_V)
    return CtcModel(adapter, embedding).eval()


def random_rows() -> list[tuple[torch.Tensor, list[int]]]:
    torch.manual_seed(1)
    return [(torch.randn(14, 6), [3, 3, 17]), (torch.randn(9, 6), [5, 39]), (torch.randn(21, 6), [])]


def dense(model: CtcModel, rows) -> torch.Tensor:
    """CTC over all tokens, row by row."""
    total, count = torch.zeros(()), 0
    for encoded, ids in rows:
        states, length = model.adapter(encoded[None], torch.tensor([len(encoded)]))
        tokens, blank = model.adapter.scores(states, model.embedding), model.adapter.blank_scores(states)
        log_probs = torch.cat([tokens, blank[..., None]], dim=-1).log_softmax(-1).transpose(0, 1)
        total += F.ctc_loss(log_probs, torch.tensor([ids]), length, torch.tensor([len(ids)]), blank=40, reduction="sum")
        count += len(ids) + 1
    return total / count


def test_with_every_token_drawn_the_sampled_loss_is_ctc():
    model, rows = random_model(), random_rows()
    for negatives in (36, 10_000):  # 40 less the four in use
        batch = collate(rows, negatives=negatives, vocab_size=40, rng=np.random.default_rng(0))
        assert sorted(batch.ids_C.tolist()) == list(range(40)) and batch.num_own == 4
        torch.testing.assert_close(ctc_loss(model, batch), dense(model, rows), atol=1e-4, rtol=1e-4)


def test_the_drawn_tokens_stand_for_all_that_were_not():
    """Where all tokens score alike, a few of them give the loss of all, whichever are drawn."""
    model, rows = random_model(), random_rows()
    for parameter in (model.adapter.output.weight, model.adapter.output.bias, model.adapter.bias_V):
        torch.nn.init.zeros_(parameter)
    for seed, negatives in enumerate((1, 5, 20)):
        batch = collate(rows, negatives=negatives, vocab_size=40, rng=np.random.default_rng(seed))
        assert len(batch.ids_C) == 4 + negatives and len(set(batch.ids_C.tolist())) == 4 + negatives
        torch.testing.assert_close(ctc_loss(model, batch), dense(model, rows), atol=1e-4, rtol=1e-4)


def test_a_row_too_short_for_its_words_counts_nothing():
    model = random_model()
    batch = collate([(torch.randn(2, 6), [1, 2, 3])], negatives=5, vocab_size=40, rng=np.random.default_rng(0))
    assert ctc_loss(model, batch).item() == 0


def test_masks_blank_stretches_inside_the_clip():
    batch = collate(random_rows(), negatives=1, vocab_size=40, rng=np.random.default_rng(0))
    mean_D = torch.full((6,), 9.0)
    found = set()
    for seed in range(20):
        torch.manual_seed(seed)
        changed = (masked(batch, mean_D, places=1, most=4).encoded_BTD != batch.encoded_BTD).any(-1)
        found |= set(changed.sum(1).tolist())
        assert not (changed & (torch.arange(21) >= batch.steps_B[:, None])).any()
    assert found == {0, 1, 2, 3, 4}


def test_tokens_are_learnt_and_written_in_sequences_never_heard_before():
    """Every token is a sound of its own, some steps long; repeats are heard as such by the gap between them."""
    torch.manual_seed(0)
    rng, sounds = np.random.default_rng(0), torch.randn(10, 6) * 2
    table = torch.nn.Embedding(40, 16)
    model = CtcModel(CtcAdapter(dataclasses.replace(SHAPE, dim=32, ffn_dim=64, llm_dim=16)), table)
    model.adapter.calibrate(sounds, table.weight)

    def said(ids) -> torch.Tensor:
        parts = [
            torch.cat([sounds[i].expand(int(rng.integers(3, 6)), -1), torch.zeros(int(rng.integers(2, 4)), 6)])
            for i in ids
        ]
        return torch.cat(parts) + 0.1 * torch.randn(sum(map(len, parts)), 6)

    def drawn() -> list[int]:
        return rng.integers(0, 10, rng.integers(1, 6)).tolist()

    optimizer = torch.optim.AdamW(model.adapter.parameters(), lr=1e-2)
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 150)
        rows = [(said(ids), ids) for ids in (drawn() for _ in range(8))]
        optimizer.zero_grad()
        ctc_loss(model, collate(rows, negatives=10, vocab_size=40, rng=rng)).backward()
        optimizer.step()
    unheard = [drawn() for _ in range(20)]
    letters = type("Letters", (), {"decode": staticmethod(lambda ids: " ".join(map(str, ids)))})
    found = transcripts(model.eval(), [said(ids) for ids in unheard], letters())
    assert sum(text == letters.decode(ids) for text, ids in zip(found, unheard, strict=True)) >= 14


def test_the_loss_falls_and_the_listener_is_exported_whole(folder, tmp_path):
    result = train(config(folder, tmp_path, steps=25))
    lines = steps(tmp_path)
    assert np.mean([line["loss"] for line in lines[-5:]]) < 0.5 * lines[0]["loss"]
    assert set(result.evaluation) == {"wer", "wer_all", "invented"}
    listener = load_ctc_listener(str(result.export))
    whole = load_listener(str(folder / "whisper"))[0].whisper.encoder.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in listener.encoder.state_dict().items())
    with pytest.raises(CheckpointError, match=r"there is no ctc_listener\.json"):
        load_ctc_listener(str(folder / "whisper"))


def talkative(folder, out) -> str:
    """A listener that nobody has taught, and that writes at every step."""
    task = config(folder, out, stack=4).task.make()
    torch.manual_seed(0)
    module = task.build()
    torch.nn.init.constant_(module.adapter.blank.bias, -50.0)
    torch.nn.init.constant_(module.adapter.bias_V[:256], 20.0)
    out.mkdir()
    task.export(module, out)
    return str(out)


def test_audio_is_heard_as_training_hears_its_cache(folder, tmp_path):
    listener = load_ctc_listener(talkative(folder, tmp_path / "ctc"))
    task = config(folder, tmp_path, stack=4).task.make()
    llm, codec = load_language_model(str(folder / "llama"), "bf16")
    embedding = llm.embedding.float()
    for row in itertools.islice(read_rows(folder / "data", split="train"), 4):
        audio_BN = torch.from_numpy(decode_flac(row.question_audio, 16_000))[None]
        with torch.no_grad():
            heard = listener.hear(audio_BN, torch.tensor([audio_BN.shape[1]]), embedding)
        model = CtcModel(listener.ctc, embedding)
        (written,) = transcripts(model, [task.encoded[0][row.id]["encoded"]], codec)
        assert written and written == codec.decode(heard.ids_BT[0].tolist()).strip()


def batches(task, position, count):
    return [batch() for batch in itertools.islice(task.make().batches(0, position), count)]


def test_the_stream_of_batches_is_open_at_any_position_and_the_cache_is_made_once(folder, tmp_path):
    task = config(folder, tmp_path, noise=0.3, more=(str(folder / "data"),)).task
    first = batches(task, 0, 5)
    files = {path: path.stat().st_mtime_ns for path in (folder / "data" / "features").rglob("*.safetensors")}
    for one, other in zip(first[3:], batches(task, 3, 2), strict=True):
        assert torch.equal(one.encoded_BTD, other.encoded_BTD) and torch.equal(one.ids_C, other.ids_C)
        assert torch.equal(one.targets_BU, other.targets_BU)
    assert files and files == {path: path.stat().st_mtime_ns for path in files}


def test_noise_takes_the_place_of_speech_and_clips_without_words_are_judged(folder, tmp_path):
    for batch in batches(config(folder, tmp_path, noise=1.0).task, 0, 2):
        assert (batch.counts_B == 0).all() and batch.num_own == 0
    sound = np.random.default_rng(1).uniform(-0.1, 0.1, 16_000).astype(np.float32)
    rows = [
        Turn(id=f"s{n}", split=split, question_audio=encode_flac(sound, 16_000), question_seconds=1.0)
        for n, split in enumerate(("train", "dev"))
    ]
    write_shard(tmp_path / "sounds" / "shards" / shard_name(0), rows)
    task = config(folder, tmp_path, more=(str(tmp_path / "sounds"),), cache=str(tmp_path / "kept")).task.make()
    module = task.build().eval()
    with torch.no_grad():
        module.adapter.bias_V[task.codec.encode("a")[0]] += 50  # writes at every step
        found = task.evaluate(module)
    assert found["invented"] == 1 and found["wer"] > 0.5
    assert len(list((tmp_path / "kept").glob("*/encoded-*"))) == 2  # a place a folder


def test_answers_are_learnt_from_what_it_hears_with_the_changes_of_another_run(folder, tmp_path):
    shared = {"data": str(folder / "data"), "llm": str(folder / "llama"), "dtype": "fp32", "rank": 2, "hidden": 16}
    shared |= {"rows": 4, "held_out": 3}
    answers = AnswerTask(listener=str(folder / "whisper"), **shared)
    run = TrainConfig(name="answers", task=answers, steps=2, out=str(tmp_path / "answers"), device="cpu")
    train(run)
    changes = tmp_path / "answers" / "export"
    listener = talkative(folder, tmp_path / "ctc")
    task = CtcAnswerTask(listener=listener, changes=str(changes), heard=1.0, **shared)
    optimizer = OptimizerConfig(lr=5e-2, warmup=1)
    run = dataclasses.replace(run, name="heard", task=task, steps=12, optimizer=optimizer, out=str(tmp_path / "heard"))
    fresh = task.make()
    untaught = fresh.build().eval()
    with torch.no_grad():
        first = fresh.evaluate(untaught)
    result = train(run)
    assert 0 < result.evaluation["states"] < first["states"] - 2e-3
    assert result.evaluation["text"] == pytest.approx(first["text"], abs=1e-5)  # the language model is as it was
    before, after = load_file(changes / "llm_lora.safetensors"), load_file(result.export / "llm_lora.safetensors")
    assert before.keys() == after.keys()
    for key in before:
        torch.testing.assert_close(before[key], after[key])
    read = dataclasses.replace(run, task=dataclasses.replace(task, heard=0.0), out=str(tmp_path / "read"))
    train(dataclasses.replace(read, steps=1))  # nothing heard: nothing to learn, and no failure
    free = dataclasses.replace(task, changes="").make().build()
    assert {name.split(".")[0] for name, p in free.named_parameters() if p.requires_grad} == {"adapter", "llm"}
