"""Training of the codec: what each part learns from, resume, and several processes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from tiny_mimi import CONFIG, speech
from train.coding import SCRIPT, exported, mimi_config, mimi_task
from train.mortal import killed, script
from train.toy import steps

from duologue.checkpoints.codecs import load_codec
from duologue.codecs.rvq import SplitQuantizer
from duologue.errors import ConfigError
from duologue.train import train
from duologue.train.mel_loss import FLOOR
from duologue.train.sketch import Sketch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("coding")


@pytest.fixture(scope="module")
def whole(folder):
    train(mimi_config(folder, folder / "whole"))
    return folder / "whole"


def test_a_killed_run_goes_on_to_the_same_codec_and_discriminators(folder, whole, tmp_path):
    killed(SCRIPT, folder, tmp_path)
    train(mimi_config(folder, tmp_path), resume=True)
    assert steps(tmp_path) == steps(whole)
    last = [torch.load(out / "checkpoints" / "step-000000008.pt", weights_only=True) for out in (whole, tmp_path)]
    assert any("discriminators" in name for name in last[0]["optimizer"])
    for part in ("model", "ema"):
        assert last[0][part].keys() == last[1][part].keys()
        assert all(torch.equal(value, last[1][part][name]) for name, value in last[0][part].items())
    for name, memory in last[0]["optimizer"].items():
        assert all(torch.equal(value, last[1]["optimizer"][name][key]) for key, value in memory.items())


def test_what_a_run_exports_is_the_codec_that_it_trained(folder, whole):
    mimi = load_codec(whole / "export")
    assert mimi.config == mimi_task(folder).codec and not mimi.training
    state, live_B = mimi.init_state(1), torch.ones(1, dtype=torch.bool)
    codes_BKT = mimi.encode(speech(3), state.encoder, live_B)
    assert mimi.decode(codes_BKT, state.decoder, live_B).shape == (1, 3 * 1920)
    saved = torch.load(whole / "checkpoints" / "step-000000008.pt", weights_only=True)["ema"]
    assert torch.equal(mimi.quantizer.semantic.codebooks[0].total, saved["mimi.quantizer.semantic.codebooks.0.total"])


@pytest.fixture
def parts(folder):
    """A module about to be trained, and a batch."""
    torch.manual_seed(0)
    task = mimi_task(folder).make()
    return task, task.build().train(), next(task.batches(0, 0))()


def gradients(module, prefix):
    found = {name: p.grad for name, p in module.named_parameters() if name.startswith(prefix)}
    assert found
    return found


def test_codec_and_discriminators_learn_from_their_own_losses_alone(parts):
    task, module, batch = parts
    copy_BN = module.code(batch.audio_BN).sound_BN.detach().requires_grad_()
    losses, own = task._judge(module, batch.audio_BN, copy_BN)
    assert module.balance(losses, copy_BN).any()
    assert all(gradient is None for gradient in gradients(module, "").values())
    own.backward()
    assert all(gradient is None for gradient in gradients(module, "mimi.").values())
    assert all(gradient is not None for gradient in gradients(module, "discriminators.").values())


def test_one_backward_pass_reaches_every_part(parts):
    task, module, batch = parts
    value, numbers = task.loss(module, batch)
    value.backward()
    value = value.detach()
    assert numbers.keys() == {
        *("mel", "adversarial", "matching", "discriminators", "commitment", "semantic", "revived", "first")
    }
    shares = module.balance.shares
    wanted = sum(shares[name] * float(numbers[name]) for name in shares)
    assert float(value) == pytest.approx(wanted, rel=1e-4), "what is logged as the loss can be read"
    still = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert all(name.startswith("discriminators.") and name.endswith("bias") for name in still), still


def test_adversarial_training_alone_and_spectra_alone(folder):
    for changes, names in (
        ({"mel": 0.0}, {"adversarial", "matching"}),
        ({"adversarial": 0.0, "matching": 0.0}, {"mel"}),
    ):
        task = mimi_task(folder, **changes).make()
        module = task.build().train()
        _, numbers = task.loss(module, next(task.batches(0, 0))())
        assert names <= numbers.keys() and (module.discriminators is None) == ("adversarial" not in names)
    with pytest.raises(ConfigError, match="shares for both"):
        mimi_task(folder, adversarial=0.0)


def test_a_stage_goes_on_from_the_codec_of_the_one_before(folder, whole):
    module = mimi_task(folder, start=str(whole / "export"), mel=0.0).make().build()
    mine = {name: value for name, value in module.mimi.state_dict().items()}
    theirs = load_codec(whole / "export").state_dict()
    assert all(torch.equal(mine[name], value) for name, value in theirs.items())
    assert torch.equal(module.semantic_head.weight, exported(whole)["weight"]) and module.training
    with pytest.raises(ConfigError, match="holds another codec"):
        mimi_task(folder, start=str(whole / "export"), codec=CONFIG).make().build()


def test_where_the_decoder_alone_learns_codes_keep_their_meaning(folder, whole, tmp_path):
    changes = {"start": str(whole / "export"), "decoder_only": True, "ema": 0.0, "steps": 3}
    train(mimi_config(folder, tmp_path, **changes))
    before, after = exported(whole), exported(tmp_path)
    assert before.keys() == after.keys()
    kept = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert kept and kept < before.keys()
    assert all((name in kept) == (not name.startswith(("decoder", "upsample"))) for name in before)
    codes = [load_codec(out / "export") for out in (whole, tmp_path)]
    made = [c.encode(speech(3), c.init_state(1).encoder, torch.ones(1, dtype=torch.bool)) for c in codes]
    assert torch.equal(*made)
    with pytest.raises(ConfigError, match="codes are to stay"):
        mimi_task(folder, decoder_only=True)


def test_nobody_need_teach(folder, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("duologue.train.mimi_task.load_teacher", None)  # it is not asked for
    result = train(mimi_config(folder, tmp_path, start=str(whole / "export"), decoder_only=True, semantic=0.0, steps=2))
    assert {"mel", "first"} <= result.evaluation.keys() and "semantic" not in result.evaluation
    assert not (tmp_path / "export" / "semantic_head.safetensors").exists() and load_codec(tmp_path / "export")


SKETCHED = {"mel": 0.0, "adversarial": 0.0, "matching": 0.0, "sketch": 1.0}


def test_codes_are_learnt_from_a_sketch_before_there_is_sound(folder, tmp_path):
    """First with nothing quantised, then through codebooks that begin by k-means; the decoder's sound waits."""
    names = ("sketch", "codes")
    train(mimi_config(folder, tmp_path / names[0], quantized=False, steps=40, eval_every=40, **SKETCHED))
    lines = steps(tmp_path / names[0])
    first, last = (sum(line["sketch"] for line in some) for some in (lines[:5], lines[-5:]))
    assert last < 0.9 * first and not any(line["revived"] for line in lines)
    start = str(tmp_path / names[0] / "export")
    assert not any(load_codec(start).quantizer.begun(3))
    task = mimi_task(folder, start=start, **SKETCHED).make()
    module = task.build()
    task.begin(module)
    assert all(module.mimi.quantizer.begun(3)) and module.training
    fresh = mimi_task(folder, **SKETCHED).make().build()
    same = dict(fresh.sketch.named_parameters())
    assert not any(torch.equal(p, same[name]) for name, p in module.sketch.named_parameters() if p.dim() > 1)
    run = mimi_config(folder, tmp_path / names[1], start=start, steps=3, save_every=1, **SKETCHED)
    train(run)
    with pytest.MonkeyPatch.context() as patch:  # a run that goes on has its codebooks
        patch.setattr(SplitQuantizer, "begin", lambda *_, **__: pytest.fail("codebooks begin again"))
        train(dataclasses.replace(run, steps=4), resume=True)
    before, after = exported(tmp_path / names[0]), exported(tmp_path / names[1])
    moved = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert {"encoder", "quantizer", "decoder_transformer"} <= moved and "decoder" not in moved, moved


def test_a_step_is_asked_for_the_windows_whose_middles_lie_in_it():
    sketch = Sketch(8, step=960, rate=24_000)
    click_BN = torch.zeros(1, 8 * 960)
    click_BN[:, 4 * 960 + 480] = 0.5
    faint_BTM = torch.full((1, 8 * 8, 64), math.log(FLOOR) + 0.1, requires_grad=True)
    sketch._distance(faint_BTM, click_BN, 512, 120).backward()
    too_faint = (faint_BTM.grad.unflatten(1, (8, 8)) < 0).any(-1).any(-1).flatten()
    assert too_faint.nonzero().flatten().tolist() == [4]
    assert float(sketch._distance(faint_BTM.detach(), torch.zeros(1, 8 * 960), 512, 120)) == pytest.approx(
        0.1, abs=0.03
    )
    with pytest.raises(ConfigError, match="multiple of 480"):
        Sketch(8, step=1000, rate=24_000)


def test_it_learns_to_repeat_what_it_hears(folder, tmp_path):
    """On a few clips, by spectra alone."""
    train(mimi_config(folder, tmp_path, steps=60, eval_every=60, save_every=60, adversarial=0.0, matching=0.0))
    lines = steps(tmp_path)
    for name, factor in (("mel", 0.8), ("semantic", 0.9)):
        first, last = (sum(line[name] for line in some) for some in (lines[:10], lines[-10:]))
        assert last < factor * first, name


@pytest.mark.parametrize("shard", [0, 1], ids=["ddp", "fsdp"])
def test_two_processes_hold_the_same_codec(folder, tmp_path, shard):
    """Codebooks learn from the batches of both, so that none drifts away from the other's."""
    run = script(
        SCRIPT,
        folder,
        tmp_path,
        "accumulation=2",
        f"shard={shard}",
        run=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert len(steps(tmp_path)) == 8
    load_codec(tmp_path / "export")
