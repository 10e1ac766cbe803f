"""Training of the duplex model: its rows, where it begins, resume, several processes, and that it learns."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_duplex import CODEC, RAW, codec, sentencepiece_file
from tiny_mimi import moshi_config
from tiny_moshi import ours, reference
from train import tiny
from train.conversing import BOOKS, DEPTH, SCRIPT, duplex_config, duplex_task, talk
from train.mortal import killed, script
from train.toy import steps

from duologue.checkpoints import load_model, open_model
from duologue.codecs.mimi_weights import save_mimi
from duologue.codecs.text import load_tokenizer
from duologue.data.dialogue.manifest import read_conversations, write_conversations
from duologue.data.manifest import shard_name
from duologue.data.word_times import Word
from duologue.errors import ConfigError, DataError, TrainError
from duologue.models.language_model import read_language_model
from duologue.models.moshi.config import ZERO
from duologue.models.moshi.generation import GREEDY
from duologue.models.moshi.model import MoshiModel
from duologue.models.moshi.released import save_moshi
from duologue.train import OptimizerConfig, duplex_data, train
from duologue.train.duplex_data import code
from duologue.train.duplex_losses import tell
from duologue.train.duplex_start import READ, NewModel, begin, trimmed, window_config, word_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("conversing")
    duplex_task(path)
    return path


@pytest.fixture(scope="module")
def whole(folder):
    train(duplex_config(folder, folder / "whole"))
    return folder / "whole"


def test_a_killed_run_goes_on_to_the_same_weights(folder, whole, tmp_path):
    killed(SCRIPT, folder, tmp_path)
    train(duplex_config(folder, tmp_path), resume=True)
    assert steps(tmp_path) == steps(whole)
    last = [torch.load(out / "checkpoints" / "step-000000008.pt", weights_only=True) for out in (whole, tmp_path)]
    for part in ("model", "ema"):
        assert last[0][part].keys() == last[1][part].keys()
        assert all(torch.equal(value, last[1][part][name]) for name, value in last[0][part].items())


@pytest.mark.parametrize("shard", [0, 1], ids=["ddp", "fsdp"])
def test_two_processes_give_the_numbers_of_one(folder, tmp_path, shard):
    """Rows of text and of speech, frames drawn: every process passes by the same layers."""
    common = ("accumulation=2", "steps=3")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    run = script(SCRIPT, folder, tmp_path / "two", *common, f"shard={shard}", run=torchrun)
    assert run.returncode == 0, run.stderr[-2000:]
    train(duplex_config(folder, tmp_path / "one", accumulation=2, steps=3))
    for one, two in zip(steps(tmp_path / "one"), steps(tmp_path / "two"), strict=True):
        assert one == pytest.approx(two, rel=1e-4)


def test_the_export_is_a_model_that_runs(folder, whole):
    moshi, live = load_model(whole / "export"), torch.tensor([True])
    with torch.inference_mode():
        state = moshi.init_state(1)
        for _ in range(4):
            moshi.listen(state, torch.zeros(1, moshi.spec.input_samples), live)
            frame = moshi.speak(state, live)
    assert moshi.spec.duplex and frame.audio_BN.shape == (1, 1920) and frame.audio_BN.any()
    saved = torch.load(whole / "checkpoints" / "step-000000008.pt", weights_only=True)["ema"]
    tensors = open_model(whole / "export").tensors("moshi.safetensors")
    assert torch.equal(tensors["text_head.weight"], saved["text_head.weight"])


def test_the_export_keeps_how_the_start_is_told_what_to_do(folder, whole, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(whole / "export", start)
    written = json.loads((start / "config.json").read_text())
    chosen = {"conditions": {"mood": "good"}, "against": {"mood": "bad"}, "guidance": 3.0, "seed": 4, "dtype": "int8"}
    (start / "config.json").write_text(json.dumps({**written, "model": {**written["model"], **chosen}}))
    task = duplex_task(folder, start=str(start), codec="").make()
    task.export(task.build(), tmp_path / "export")
    assert open_model(tmp_path / "export").model == {**written["model"], **chosen, "dtype": "bfloat16"}


@pytest.fixture
def task(folder):
    made = duplex_task(folder).make()
    made.prepare()
    return made


def test_what_is_coded_stays_of_use_when_the_decoder_learns_on(folder, task, monkeypatch):
    mimi, talks = copy.deepcopy(task.sides.mimi), str(folder / "talks")
    before = duplex_data.code_folder(talks, mimi, mixed=False)
    monkeypatch.setattr(duplex_data, "code", None)  # nothing is coded again
    with torch.no_grad():
        for parameter in mimi.decoder.parameters():
            parameter += 1
    after = duplex_data.code_folder(talks, mimi, mixed=False)
    assert torch.equal(before["talk-0"]["codes"], after["talk-0"]["codes"])


def row_of(task, number=0, **options):
    found = next(each for each in task._talks["train"] if each.id == f"talk-{number}")
    return task._rows.row(found, 0, 40, **options), found


def test_a_row_holds_the_words_and_the_codes_of_either_side(task):
    row, _ = row_of(task, 1)
    c, encode, asked = task.sides.config, task.sides.encode, 9
    sun = encode("sun")
    assert row[0, asked + 6 : asked + 6 + len(sun)].tolist() == sun and int(row[0, asked + 5]) == c.end_padding_id
    assert (row[0, : asked + 5] == c.padding_id).all(), "what the user says is not thought"
    audio = torch.from_numpy(talk(1).sound())
    assert torch.equal(row[1:].T.to(torch.int16), code(codec(), audio)), "own codes first, then those that are heard"
    later, _ = row_of(task, 1, ahead=-0.16)
    assert later[0, asked + 8 : asked + 8 + len(sun)].tolist() == sun and torch.equal(later[1:], row[1:])
    assert (row_of(task, 1, with_text=False)[0][0] == ZERO).all()


def test_a_word_waits_for_the_one_before_it_or_cuts_it_off(task, folder):
    _, found = row_of(task, 1)
    close = replace(found, words={"assistant": [Word("sun", 1.0, 1.1), Word("sea", 1.1, 1.2)], "user": []})
    waiting = duplex_task(folder, queue=True).make()
    texts = [each._rows.row(close, 0, 40)[0].tolist() for each in (task, waiting)]
    sun, sea = task.sides.encode("sun"), task.sides.encode("sea")
    assert texts[0][12:17] == [sun[0], *sea] and texts[1][12:20] == [*sun, *sea]


def test_a_row_longer_than_its_conversation_ends_in_nothing(task):
    found = task._talks["train"][0]
    row = task._rows.row(found, 30, 24)
    assert (row[:, 10:] == ZERO).all() and (row[:, :10] != ZERO).all()


def test_one_stream_hears_nothing_and_two_sides_may_share_it(folder):
    alone = duplex_task(folder, streams="assistant").make()
    alone.prepare()
    both = duplex_task(folder).make()
    both.prepare()
    row, two = row_of(alone)[0], row_of(both)[0]
    assert torch.equal(row[: 1 + BOOKS], two[: 1 + BOOKS]) and (row[1 + BOOKS :] == ZERO).all()
    mixed = duplex_task(folder, streams="mixed").make()
    mixed.prepare()
    row, _ = row_of(mixed)
    hello = mixed.sides.encode("hello")
    assert row[0, 1 : 1 + len(hello)].tolist() == hello, "whoever speaks"
    sound = torch.from_numpy(talk(0).sound()).sum(0, keepdim=True)
    assert torch.equal(row[1 : 1 + BOOKS].T.to(torch.int16), code(codec(), sound.clamp(-1, 1)))
    assert (row[1 + BOOKS :] == ZERO).all()


def test_a_side_alone_stands_in_its_own_place(folder, task):
    whole, _ = row_of(task)
    own = slice(1, 1 + BOOKS)
    row, _ = row_of(task, side="assistant")
    assert torch.equal(row[: 1 + BOOKS], whole[: 1 + BOOKS]) and (row[1 + BOOKS :] == ZERO).all()
    row, _ = row_of(task, side="user")
    assert (row[: 1 + BOOKS] == ZERO).all() and torch.equal(row[1 + BOOKS :], whole[1 + BOOKS :])

    made = duplex_task(folder, rows=6, text_share=0.0, text_mask=0.0, apart=0.5, hear_delay=5).make()
    made.prepare()
    rows = torch.cat([make().codes_BKT for make, _ in zip(made.batches(0, 0), range(40), strict=False)])
    quiet, deaf = (rows[:, own] == ZERO).flatten(1).all(1), (rows[:, 1 + BOOKS :] == ZERO).flatten(1).all(1)
    assert 40 <= int(quiet.sum()) <= 80 and 40 <= int(deaf.sum()) <= 80 and not (quiet & deaf).any()
    with torch.no_grad():
        assert made.evaluate(made.build()).keys() >= {"heard", "words", "code_1"}
    unheard = duplex_task(folder, rows=6, text_share=0.0, apart=0.5).make()
    unheard.prepare()
    rows = torch.cat([make().codes_BKT for make, _ in zip(unheard.batches(0, 0), range(9), strict=False)])
    assert (rows[:, own] != ZERO).flatten(1).any(1).all(), "nothing is learnt of users alone without a head for it"
    with pytest.raises(ConfigError, match="apart"):
        duplex_task(folder, streams="mixed", apart=0.5)


def test_it_learns_to_write_down_what_it_hears(folder, task, tmp_path):
    made = duplex_task(folder, hear_delay=5, rows=6, text_share=0.34, apart=0.5, text_mask=0.0).make()
    made.prepare()
    model, c = made.build(), made.sides.config
    place = (next(each for each in made._talks["train"] if each.id == "talk-0"), 0, 40)
    hello = made.sides.encode("hello")
    heard = made._rows.heard_words(*place)
    assert heard[6 : 6 + len(hello)].tolist() == hello, "it begins in frame 1"
    assert (heard[:5] == ZERO).all() and (heard[6 + len(hello) :] == c.padding_id).all()
    longer = made._rows.heard_words(*place[:2], 44)
    assert torch.equal(longer[:40], heard) and (longer[40:] == ZERO).all()

    batches = [make() for make, _ in zip(made.batches(0, 0), range(20), strict=False)]
    for batch in batches:
        deaf_B = (batch.codes_BKT[:, 1 + BOOKS :] == ZERO).flatten(1).all(1)
        assert torch.equal((batch.heard_BT == ZERO).all(1), deaf_B) and batch.read_B[:2].all()
    heard_BT, written_BT = (torch.cat([getattr(b, name) for b in batches]) for name in ("heard_BT", "written_BT"))
    words = (heard_BT >= 0) & (heard_BT != c.padding_id) & (heard_BT != c.end_padding_id)
    assert (written_BT[~words] == ZERO).all(), "paddings are not read again"
    missing, right = (written_BT[words] == ZERO).float().mean(), (written_BT == heard_BT)[words].float().mean()
    assert 0.1 < missing < 0.3 and 0.6 < right < 0.85
    alone = duplex_task(folder, hear_delay=5, apart=1.0).make()
    alone.prepare()
    with torch.no_grad():
        found = alone.evaluate(model)
    assert made._rows.heard_words(*place, side="user").equal(heard)
    assert (made._rows.heard_words(*place, side="assistant") == ZERO).all(), "the user is not there to be heard"
    assert found["heard"] > 1

    loss, numbers = made.loss(model, batches[0])
    loss.backward()
    assert float(numbers["heard"]) > 1 and model.hear.weight.grad.any()
    with torch.no_grad():
        assert made.evaluate(model)["heard"] > 1
    made.export(model, tmp_path / "export")
    again = duplex_task(folder, start=str(tmp_path / "export"), codec="").make().build()
    assert again.config.hear_delay == 5 and torch.equal(again.hear.weight, model.hear.weight)


def test_users_whom_nobody_answers_are_heard_all_the_same(folder, tmp_path):
    rows = [talk(number, split=split, answered=False) for number, split in enumerate(("train", "dev"))]
    write_conversations(tmp_path / "shards" / shard_name(0), rows)
    made = duplex_task(folder, data=(str(tmp_path),), hear_delay=5, apart=1.0, text_share=0.0).make()
    made.prepare()
    whole, _ = row_of(made)
    assert (duplex_data.silence(made.sides.mimi) == whole[1 : 1 + BOOKS].T).all()
    assert torch.equal(whole[1 + BOOKS :].T.to(torch.int16), code(codec(), torch.from_numpy(talk(0).sound()[1:])))
    batch = next(iter(made.batches(0, 0)))()
    assert (batch.codes_BKT[:, : 1 + BOOKS] == ZERO).all() and (batch.heard_BT != ZERO).any(1).all()
    with torch.no_grad():
        assert made.evaluate(made.build()).keys() == {"heard"}, "nothing is said that could be judged"


def test_held_out_rows_read_what_the_head_writes_only_where_training_does(folder, monkeypatch):
    written = []
    monkeypatch.setattr(MoshiModel, "write", lambda self, x: written.append(x) or torch.full(x.shape[:2], ZERO))
    for unread in (1.0, 0.2):
        made = duplex_task(folder, hear_delay=5, unread=unread, misread=0.0, text_share=0.0).make()
        made.prepare()
        with torch.no_grad():
            made.evaluate(made.build())
        assert bool(written) == (unread < 1)


def test_a_model_that_goes_on_may_be_given_the_head_for_what_it_hears(folder, whole):
    model = duplex_task(folder, start=str(whole / "export"), codec="", hear_delay=5).make().build()
    assert torch.equal(model.hear.weight, torch.eye(len(model.hear.weight)))
    read_VD = model.reread(model.text_embedding.table.weight)
    torch.testing.assert_close(read_VD.square().mean().sqrt(), torch.tensor(READ))
    z = torch.randn(3, model.config.temporal.dim)
    torch.testing.assert_close(model.score_heard(z), model.text_head(z))


def test_heard_codebooks_are_missing_as_often_as_asked_and_never_the_first(folder):
    made = duplex_task(folder, rows=6, text_share=0.0, heard_drop=0.5).make()
    made.prepare()
    rows = torch.cat([make().codes_BKT for make, _ in zip(made.batches(0, 0), range(30), strict=False)])
    there = (rows[:, 1 + BOOKS :, :10] != ZERO).all(2)  # [rows, heard codebooks]
    assert there[:, 0].all() and 60 <= int((~there[:, -1]).sum()) <= 120
    assert (there.int().diff(dim=1) <= 0).all() and (rows[:, 1 : 1 + BOOKS, :10] != ZERO).all()


def test_rows_of_words_are_what_both_sides_say_in_their_order_without_sound(folder):
    made = duplex_task(folder, rows=4, text_share=0.0, words_share=0.5, hear_delay=3, unread=0.0, misread=0.0).make()
    made.prepare()
    config, paddings = made.sides.config, {made.sides.config.padding_id, made.sides.config.end_padding_id, ZERO}

    def said(row: torch.Tensor) -> list[int]:
        return [piece for piece in row.tolist() if piece not in paddings]

    talks = made._talks["train"]
    whole = [(made._rows.row(t, 0, t.frames)[0], made._rows.heard_words(t, 0, t.frames)) for t in talks]
    batch = next(iter(made.batches(0, 0)))()
    assert (batch.codes_BKT[:2, 1:] == ZERO).all() and (batch.heard_BT[:2] == ZERO).all()
    assert (batch.heard_BT[2:] != ZERO).any() and (batch.codes_BKT[2:, 1:] != ZERO).any() and not batch.read_B.any()
    for row in range(2):
        own, written = said(batch.codes_BKT[row, 0]), said(batch.written_BT[row])
        assert any(own[: len(said(text))] == said(text)[: len(own)] for text, _ in whole)
        assert any(written[: len(said(heard))] == said(heard)[: len(written)] for _, heard in whole)
    rng, frames = np.random.default_rng(0), 400
    row_KT, heard_T = made._rows.of_words(talks, made._odds, frames, rng)
    count = len(said(row_KT[0])) + len(said(heard_T))
    dense = max((len(said(text)) + len(said(heard))) / len(text) for text, heard in whole)
    assert count / frames > dense, "most of the silence is gone"
    assert (row_KT[0] == config.padding_id).any()
    with pytest.raises(ConfigError, match="words_share needs a head"):
        duplex_task(folder, text_share=0.0, words_share=0.5, hear_delay=None).make().prepare()
    with pytest.raises(ConfigError, match="words_share is for"):
        duplex_task(folder, streams="mixed", words_share=0.5)


def test_what_is_read_again_is_missing_and_wrong_as_often_as_asked(folder):
    made = duplex_task(folder, rows=6, text_share=0.0, hear_delay=3, unread=0.3, misread=0.2).make()
    made.prepare()
    config, missing, wrong, count = made.sides.config, 0, 0, 0
    for make, _ in zip(made.batches(0, 0), range(60), strict=False):
        batch = make()
        word_BT = (batch.heard_BT >= 0) & (batch.heard_BT != config.padding_id)
        word_BT &= batch.heard_BT != config.end_padding_id
        assert (batch.written_BT[~word_BT] == ZERO).all()
        written, heard = batch.written_BT[word_BT], batch.heard_BT[word_BT]
        count += len(heard)
        missing += int((written == ZERO).sum())
        wrong += int(((written != ZERO) & (written != heard)).sum())
    assert 0.25 < missing / count < 0.35 and 0.1 < wrong / count < 0.22  # a piece put in its own place is right


def test_in_some_rows_what_the_user_says_is_only_read(folder):
    made = duplex_task(folder, rows=6, text_share=0.0, hear_delay=3, unheard=0.5, unread=0.0, misread=0.0).make()
    made.prepare()
    deaf = read = 0
    for make, _ in zip(made.batches(0, 0), range(30), strict=False):
        batch = make()
        silent_B = (batch.codes_BKT[:, 1 + BOOKS :] == ZERO).flatten(1).all(1)
        assert (batch.heard_BT[silent_B] == ZERO).all()
        assert not (~silent_B).any() or (batch.heard_BT[~silent_B] != ZERO).any()
        read += int((batch.written_BT[silent_B] != ZERO).sum())
        assert (batch.codes_BKT[:, 1 : 1 + BOOKS] != ZERO).flatten(1).any(1).all(), "its own sound is there"
        deaf += int(silent_B.sum())
    assert 60 <= deaf <= 120 and read > deaf


def test_own_sound_is_told_wrongly_as_often_as_asked_and_learnt_as_it_is(folder):
    made = duplex_task(folder, rows=6, text_share=0.0, misspoken=0.5).make()
    true = duplex_task(folder, rows=6, text_share=0.0).make()
    wrong, count = torch.zeros(BOOKS), 0
    for task in (made, true):
        task.prepare()
    for make, other, _ in zip(made.batches(0, 0), true.batches(0, 0), range(20), strict=False):
        batch, plain = make(), other()
        assert torch.equal(batch.codes_BKT, plain.codes_BKT) and plain.given_BKT is plain.codes_BKT
        other_BKT = batch.given_BKT != batch.codes_BKT
        assert not other_BKT[:, 0].any() and not other_BKT[:, 1 + BOOKS :].any()
        wrong += other_BKT[:, 1 : 1 + BOOKS].sum((0, 2))
        count += other_BKT[:, 0].numel()
    shares = wrong / count
    assert 0.02 < shares[0] < shares[-1] < 0.5
    model = made.build()
    told = [tell(model, batch.codes_BKT, given_BKT=given) for given in (None, batch.codes_BKT, batch.given_BKT)]
    torch.testing.assert_close(told[0].text_BT, told[1].text_BT)
    assert not torch.equal(told[1].text_BT, told[2].text_BT)
    assert all(torch.equal(each.audio_known_NK, told[0].audio_known_NK) for each in told)


def test_in_some_rows_nothing_of_its_own_sound_is_told(folder):
    made = duplex_task(folder, rows=6, text_share=0.0, unspoken=0.5).make()
    made.prepare()
    rows = []
    for make, _ in zip(made.batches(0, 0), range(20), strict=False):
        batch = make()
        own, given = (codes_BKT[:, 1 : 1 + BOOKS] for codes_BKT in (batch.codes_BKT, batch.given_BKT))
        missing_B = (given == ZERO).all((1, 2))
        assert (missing_B | (given == own).all((1, 2))).all() and (own != ZERO).any(2).all()
        assert torch.equal(batch.given_BKT[:, 0], batch.codes_BKT[:, 0])
        assert torch.equal(batch.given_BKT[:, 1 + BOOKS :], batch.codes_BKT[:, 1 + BOOKS :])
        rows += missing_B.tolist()
    assert 0.35 < sum(rows) / len(rows) < 0.65


def test_words_may_lead_their_sound_and_the_folder_says_so(folder, tmp_path):
    made, plain = (duplex_task(folder, rows=6, text_share=0.0, text_lead=lead).make() for lead in (25, None))
    for task in (made, plain):
        task.prepare()
    silent = plain.sides.config.padding_id, plain.sides.config.end_padding_id
    earlier = 0
    for make, other, _ in zip(made.batches(0, 0), plain.batches(0, 0), range(5), strict=False):
        led_BT, text_BT = make().codes_BKT[:, 0], other().codes_BKT[:, 0]
        for led_T, text_T in zip(led_BT.tolist(), text_BT.tolist(), strict=True):
            before = [sum(piece >= 0 and piece not in silent for piece in row[:20]) for row in (led_T, text_T)]
            assert before[0] >= before[1]
            earlier += before[0] - before[1]
    assert earlier > 0
    model = made.build()
    made.export(model, tmp_path / "model")
    again = duplex_task(folder, start=str(tmp_path / "model"), codec="", new=NewModel()).make().build()
    assert model.config.text_lead == again.config.text_lead == 25


def test_codes_begin_as_what_the_codec_makes_of_them(folder):
    made = begin(
        NewModel(llm=str(folder / "llama"), depth=DEPTH), start="", codec=str(folder / "codec"), acoustic_delay=1
    )
    quantizer, rows = made.mimi.quantizer, made.model.audio_embedding.rows
    table = made.model.audio_embedding.table.weight.detach().unflatten(0, (2 * BOOKS, rows))
    size = quantizer.config.codebook_size
    codes = torch.randint(0, size, (1, BOOKS, 30), generator=torch.Generator().manual_seed(0))
    for first in (0, BOOKS):
        parts = (
            (quantizer.semantic, table[first][codes[0, 0]], codes[:, :1]),
            (quantizer.acoustic, sum(table[first + k][codes[0, k]] for k in range(1, BOOKS)), codes[:, 1:]),
        )
        for part, embedded_TD, part_codes in parts:
            ratio = torch.pdist(embedded_TD) / torch.pdist(part.decode(part_codes)[0]).clamp_min(1e-6)
            torch.testing.assert_close(ratio[ratio > 0], ratio.max().expand_as(ratio[ratio > 0]), rtol=1e-3, atol=0)
    assert not torch.equal(table[0], table[BOOKS]), "each side is turned in its own way"
    used = quantizer.semantic.books(1)[0].usage
    assert float((used / used.sum()) @ table[0, :size].square().mean(1)) == pytest.approx(0.12**2, rel=1e-3)


def test_silence_of_the_own_channel_has_one_code(task):
    mimi, sound = task.sides.mimi, torch.from_numpy(talk(0).sound()[:, : 24 * 1920])
    sound[:, 8 * 1920 :] = 0.0
    silent = duplex_data.silence(mimi)
    plain = code(mimi, sound)
    settled = plain.clone()
    duplex_data._settle(settled, sound[0], silent)
    kept = 8 + duplex_data.SETTLED
    assert torch.equal(settled[:kept], plain[:kept]) and torch.equal(settled[:, BOOKS:], plain[:, BOOKS:])
    assert (settled[kept:, :BOOKS] == silent).all()


def test_rows_without_text_and_rows_of_text_come_as_often_as_asked(folder):
    made = duplex_task(folder, rows=6, text_share=0.34, text_mask=0.5).make()
    made.prepare()
    batches = [make() for make, _ in zip(made.batches(0, 0), range(20), strict=False)]
    assert all(batch.read_B.tolist() == [True, True, False, False, False, False] for batch in batches)
    assert all((batch.codes_BKT[:2, 1:] == ZERO).all() and (batch.codes_BKT[:2, 0] != ZERO).all() for batch in batches)
    masked = sum(int((batch.codes_BKT[2:, 0] == ZERO).all(1).sum()) for batch in batches)
    assert 25 <= masked <= 55
    again = next(iter(made.batches(0, 7)))()
    assert torch.equal(again.codes_BKT, batches[7].codes_BKT) and not torch.equal(again.codes_BKT, batches[8].codes_BKT)


def test_codes_are_made_once_and_go_on_where_they_were_stopped(folder, tmp_path, monkeypatch):
    made = duplex_task(folder, cache=str(tmp_path)).make()
    made.prepare()
    paths = sorted(tmp_path.rglob("*.safetensors"))
    assert len(paths) == 2
    before = [path.read_bytes() for path in paths]
    paths[1].unlink()
    count, real = [], code
    monkeypatch.setattr("duologue.train.duplex_data.code", lambda *given: count.append(1) or real(*given))
    duplex_task(folder, cache=str(tmp_path)).make().prepare()
    assert [path.read_bytes() for path in paths] == before and len(count) == 1 + 3, "silence, and three conversations"


@pytest.mark.parametrize("layers", [(), (1,)])
def test_a_language_model_says_the_same_as_the_temporal_transformer(folder, layers):
    new = NewModel(llm=str(folder / "llama"), layers=layers, depth=DEPTH, context=50)
    made = begin(new, start="", codec=str(folder / "codec"), acoustic_delay=1)
    llm, text = read_language_model(folder / "llama")
    if layers:
        llm.blocks.layers = torch.nn.ModuleList([llm.blocks.layers[layers[0]]])
    ids = torch.tensor([text.encode(" the sun is red")])
    codes = torch.full((1, ids.shape[1], 1 + 2 * BOOKS), ZERO)
    codes[..., 0] = ids
    live = torch.tensor([True])
    with torch.no_grad():
        wanted = llm.logits(llm(llm.embedding(ids), llm.init_state(1, 50), live))
        model = made.model
        scores = model.text_head(model.hidden(codes, model.transformer.init_state(1), live))
    known = text.vocab_size
    assert made.model.config.text_vocab == known + 2
    torch.testing.assert_close(scores[..., :known], wanted[..., :known], rtol=1e-5, atol=1e-6)


def test_pieces_may_begin_louder_and_paddings_do_not(folder):
    made = [
        begin(
            NewModel(llm=str(folder / "llama"), depth=DEPTH, loud=loud),
            start="",
            codec=str(folder / "codec"),
            acoustic_delay=1,
            hear_delay=3,
        ).model
        for loud in (1.0, 4.0)
    ]
    plain_VD, loud_VD = (model.text_embedding.table.weight for model in made)
    pieces = made[0].config.padding_id
    torch.testing.assert_close(loud_VD[:pieces], 4 * plain_VD[:pieces])
    torch.testing.assert_close(loud_VD[pieces:], plain_VD[pieces:])
    for model in made:
        read_VD = model.reread(model.text_embedding.table.weight)
        torch.testing.assert_close(read_VD.square().mean().sqrt(), torch.tensor(READ), msg="read again as loud in both")


def test_a_tokenizer_that_stops_merging_early_keeps_its_pieces(tmp_path):
    path = tiny.save_llm(tmp_path / "llm", "llama", tiny.LLAMA) / "tokenizer.json"
    made = json.loads(path.read_text())
    letters = len(made["model"]["vocab"])
    made["model"]["merges"] = [["s", "u"], ["su", "n"], ["Ġ", "sun"], ["r", "e"]]
    made["model"]["vocab"] |= {"su": letters, "sun": letters + 1, "Ġsun": letters + 2, "re": letters + 3}
    for number, each in enumerate(made["added_tokens"], start=letters + 4):
        each["id"] = number
    path.write_text(json.dumps(made))
    old = load_tokenizer(path)
    new, kept = trimmed(old, letters + 3 + 3)
    assert word_encoder(old)("sun") == [letters + 2] and len(word_encoder(old)("red")) == 3
    ids = word_encoder(new)("sun") + word_encoder(new)("red")
    assert [old.id_to_token(kept[each]) for each in ids] == ["Ġsun", "Ġ", "r", "e", "d"]
    assert kept[-2:] == [-1, -1] and new.id_to_token(len(kept) - 2) == "<|padding|>"
    assert old.id_to_token(kept[new.token_to_id("<|im_end|>")]) == "<|im_end|>" and len(new.get_vocab()) == len(kept)
    with pytest.raises(ConfigError, match="too few"):
        trimmed(old, 10)


def test_low_rank_changes_alone_are_learnt_and_merged_into_the_export(folder, whole, tmp_path):
    config = duplex_config(folder, tmp_path, start=str(whole / "export"), codec="", rank=2, ema=0.0, steps=3)
    result = train(replace(config, optimizer=OptimizerConfig(lr=1e-2, warmup=1)))
    before, after = (open_model(each / "export").tensors("moshi.safetensors") for each in (whole, tmp_path))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert changed and all(name.startswith(("transformer.", "depth.")) and "norm" not in name for name in changed)
    task = duplex_task(folder, start=str(result.export), codec="").make()
    with torch.no_grad():
        judged = task.evaluate(task.build().eval())
    assert judged["text"] == pytest.approx(result.evaluation["text"], rel=1e-4)


def test_a_published_folder_is_tuned_by_low_rank_changes(folder, tmp_path):
    """Frozen weights in bfloat16, SentencePiece, delays of its own; what comes out is a folder of ours."""
    path, raw = tmp_path / "release", ours(RAW, reference(RAW))
    save_moshi(raw, path)
    save_mimi(codec(), path / "tokenizer-e351c8d8-checkpoint125.safetensors")
    sentencepiece_file(path)
    (path / "mimi.json").write_text(json.dumps(moshi_config(CODEC)))
    written = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**written, "mimi_config_name": "mimi.json"}))
    task = duplex_task(folder, start=str(path), codec="", new=NewModel(), rank=2, dtype="bf16")
    config = replace(duplex_config(folder, tmp_path / "out", steps=2, ema=0.0), task=task)
    result = train(replace(config, optimizer=OptimizerConfig(lr=1e-2, warmup=1)))
    moshi = load_model(result.export)
    assert moshi.config == raw.config and moshi.pieces.encode("hears") == task.make().sides.encode("hears")
    assert open_model(result.export).tensors("moshi.safetensors")["text_head.weight"].dtype == torch.bfloat16


def test_a_stage_goes_on_with_another_delay(folder, whole):
    model = duplex_task(folder, start=str(whole / "export"), codec="", acoustic_delay=2).make().build()
    assert isinstance(model, MoshiModel) and model.config.delays == (0, 0, 2, 2, 0, 2, 2)


def test_it_learns_one_conversation_by_heart_and_says_it_when_it_hears_the_user(folder, tmp_path):
    """What was learnt from whole rows comes back tick by tick, through the codec, from the folder that was written."""
    changes = {"text_share": 0.0, "text_mask": 0.0, "ahead": (0.0, 0.0), "depth_share": 1.0, "rows": 1, "seconds": 3.2}
    config = duplex_config(folder, tmp_path, steps=150, eval_every=0, save_every=150, ema=0.0, **changes)
    task = config.task.make()
    task.prepare()
    only = row_of(task, 1)[0]
    config.task.make().prepare()
    module = task.build()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    for _ in range(150):
        found = tell(module, only[None])
        loss = found.text_BT.mean() + found.audio_NK.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1
    task.export(module.eval(), tmp_path / "export")
    moshi = load_model(tmp_path / "export", settings={"dtype": "float32"})
    moshi.generator.sampling = GREEDY
    audio, live, thought = talk(1).sound()[1], torch.tensor([True]), list[int]()
    with torch.inference_mode():
        state = moshi.init_state(1)
        for tick in range(40):
            heard = audio[max(0, tick - 1) * 1920 :][:1920]  # the first tick is before the conversation
            moshi.listen(state, torch.from_numpy(heard.copy())[None], live)
            thought.append(int(moshi.speak(state, live).ids_BT[0, -1]))
    assert moshi.text([token for token in thought if token >= 0]).split() == ["sun", "sea", "red"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data": ()}, ConfigError, "need data"),
        ({"texts": ()}, ConfigError, "needs texts"),
        ({"ahead": (0.2, 0.1)}, ConfigError, "low, high"),
        ({"text_mask": 1.5}, ConfigError, "shares"),
        ({"rank": 4}, ConfigError, "a model that is there"),
        ({"dtype": "fp16"}, ConfigError, "fp32, bf16"),
        ({"codec": ""}, ConfigError, "need `start`"),
        ({"seconds": 1.0}, ConfigError, "whole frames"),
        ({"new": NewModel(llm="nowhere/llm", depth=DEPTH)}, TrainError, "nothing is there"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_cannot_be_trained_is_said(folder, changes, error, message):
    with pytest.raises(error, match=message):
        duplex_task(folder, **changes).make().prepare()


def test_other_shapes_are_refused(folder, tmp_path):
    with pytest.raises(TrainError, match="biases on queries"):
        window_config(tiny.QWEN, layers=2, context=50)
    with pytest.raises(ConfigError, match="needs 3 steps"):
        duplex_task(
            folder, new=replace(duplex_task(folder).new, depth=replace(DEPTH, steps=2, ffn_dims=(24,) * 2))
        ).make().build()
    rows = list(read_conversations(folder / "talks", split="train"))
    assert rows
    with pytest.raises(DataError, match="no text in it"):
        (tmp_path / "empty.jsonl").write_text("{}\n")
        duplex_task(folder, texts=(str(tmp_path / "empty.jsonl"),)).make().prepare()
