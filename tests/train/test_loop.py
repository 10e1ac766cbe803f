import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from train.toy import SCRIPT, ToyTask, exported, steps, toy_config

from duologue import config as configs
from duologue.errors import ConfigError, TrainError
from duologue.train import TrainConfig, loop, train
from duologue.train.distributed import to_device
from duologue.train.feed import feed
from duologue.train.state import checkpoints


def assert_equal_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path):
    # dies in the middle of step 11, after an evaluation at 10 and a checkpoint at 8
    command = [sys.executable, str(SCRIPT), str(tmp_path / "cut"), "fresh", "ema=0.9", "kill_at=21"]
    killed = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert [line["step"] for line in steps(tmp_path / "cut")] == list(range(1, 11))
    _take_the_trap_out(tmp_path / "cut")
    cut = train(toy_config(tmp_path / "cut", ema=0.9), resume=True)
    whole = train(toy_config(tmp_path / "whole", ema=0.9))
    assert steps(tmp_path / "whole") == steps(tmp_path / "cut")
    assert_equal_bits(exported(tmp_path / "whole"), exported(tmp_path / "cut"))
    assert whole.evaluation == cut.evaluation


def _take_the_trap_out(out: Path) -> None:
    """It is one of the task's settings: change it in the checkpoints, as if the machine had died instead."""
    for path in checkpoints(out / "checkpoints"):
        content = torch.load(path, weights_only=True)
        content["config"]["task"]["kill_at"] = -1
        torch.save(content, path)


def test_batches_that_other_processes_make_ahead_of_time_are_the_same(tmp_path):
    train(toy_config(tmp_path / "ahead", loaders=2))
    train(toy_config(tmp_path / "here"))
    assert_equal_bits(exported(tmp_path / "here"), exported(tmp_path / "ahead"))


def test_each_rank_has_its_own_batches_made():
    wanted = list(itertools.islice(ToyTask().batches(1, 2), 8))
    for rank in range(2):
        made = itertools.islice(feed(ToyTask(), seed=1, position=2, loaders=2, rank=rank, count=2), 8)
        for number, (one, other) in enumerate(zip(wanted, made, strict=True)):
            if number % 2 == rank:
                assert torch.equal(one["x"], other["x"])
            else:
                assert other is None


def test_the_trained_weights_changed_and_the_frozen_ones_did_not(tmp_path):
    result = train(toy_config(tmp_path))
    torch.manual_seed(0)
    trained, begun = exported(tmp_path), load_first(tmp_path)
    assert not torch.equal(trained["head.weight"], begun["head.weight"])
    assert torch.equal(trained["frozen.weight"], begun["frozen.weight"])
    assert result.evaluation["training"] == 0.0
    assert result.peak_memory > 2**20 and result.steps == 12


def load_first(tmp_path: Path) -> dict[str, torch.Tensor]:
    """The weights that the same seed begins with, seen through a run whose rate is nearly nothing."""
    base = toy_config(tmp_path / "first", steps=1)
    still = dataclasses.replace(base, optimizer=dataclasses.replace(base.optimizer, lr=1e-30, weight_decay=0.0))
    train(still)
    return exported(tmp_path / "first")


def test_accumulated_batches_count_as_one_big_batch(tmp_path):
    """Micro-batches of 1 to 4 rows: the mean over all their rows, in the loss and in the gradient."""
    config = toy_config(tmp_path, steps=1, accumulation=3, dropout=0.0, seed=5)
    train(config)
    stream = config.task.batches(config.seed, 0)
    parts = [next(stream) for _ in range(3)]
    assert len({len(part["x"]) for part in parts}) > 1  # else the test shows nothing
    big = {key: torch.cat([part[key] for part in parts]) for key in ("x", "y")}

    @dataclasses.dataclass(frozen=True)
    class Big(ToyTask):
        def batches(self, seed, position):
            while True:
                yield big

    train(dataclasses.replace(config, task=Big(dropout=0.0), accumulation=1, out=str(tmp_path / "big")))
    one, other = steps(tmp_path)[0], steps(tmp_path / "big")[0]
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
    assert one["norm"] == pytest.approx(other["norm"], rel=1e-5)
    for name, value in exported(tmp_path).items():
        torch.testing.assert_close(value, exported(tmp_path / "big")[name])


def test_evaluation_leaves_no_trace_in_the_training(tmp_path):
    train(toy_config(tmp_path / "rare", eval_every=0))
    train(toy_config(tmp_path / "often", eval_every=1, eval_first=True))
    assert steps(tmp_path / "rare") == steps(tmp_path / "often")


def test_a_run_stopped_by_a_signal_is_saved_and_goes_on(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Interrupted(ToyTask):
        def batches(self, seed, position):
            for count, batch in enumerate(super().batches(seed, position)):
                if position == 0 and count == 12:
                    os.kill(os.getpid(), signal.SIGINT)
                yield batch

    config = toy_config(tmp_path / "cut", save_every=100)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(dataclasses.replace(config, task=Interrupted()))
    assert signal.getsignal(signal.SIGINT) is before
    assert 6 <= len(steps(tmp_path / "cut")) < 12
    train(dataclasses.replace(config, task=Interrupted()), resume=True)
    train(toy_config(tmp_path / "whole"))
    assert steps(tmp_path / "whole") == steps(tmp_path / "cut")
    assert_equal_bits(exported(tmp_path / "whole"), exported(tmp_path / "cut"))


def test_a_loss_that_is_not_a_number_stops_the_run_and_says_where(tmp_path):
    with pytest.raises(TrainError, match=r"loss of step 10 is nan \(micro-batches 18 to 19 of seed 3\).*step 8"):
        train(toy_config(tmp_path, spoil_at=19))
    assert not (tmp_path / "export").exists()


def test_only_the_last_checkpoints_are_kept_and_no_part_of_one(tmp_path):
    train(toy_config(tmp_path, save_every=3, keep=2))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-000000009.pt",
        "step-000000012.pt",
    ]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    train(toy_config(tmp_path, steps=4))

    def full(content, path):
        Path(path).write_bytes(b"half")
        raise RuntimeError("no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainError, match=r"step-000000008.pt: cannot write \(no space left\)"):
        train(toy_config(tmp_path, steps=8), resume=True)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000004.pt"]


def test_the_best_weights_by_the_named_metric_are_exported(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Known(ToyTask):
        """Evaluates to something that is smallest at step 6 of 12."""

        def evaluate(self, module):
            return {"odd": abs(float(module.seen) - 12)}

    config = dataclasses.replace(toy_config(tmp_path, eval_every=2, best_metric="odd"), task=Known())
    result = train(config)
    assert (result.exported_step, result.evaluation) == (6, {"odd": 0.0})
    assert exported(tmp_path)["seen"] == 12
    with pytest.raises(TrainError, match="best_metric is 'wer', but the task evaluates odd"):
        train(dataclasses.replace(config, best_metric="wer", out=str(tmp_path / "other")))


def test_the_mean_of_the_weights_is_what_is_exported(tmp_path):
    train(toy_config(tmp_path / "ema", ema=0.9))
    train(toy_config(tmp_path / "plain"))
    assert steps(tmp_path / "ema") == steps(tmp_path / "plain")  # training itself is not touched
    checkpoint = torch.load(tmp_path / "ema" / "checkpoints" / "step-000000012.pt", weights_only=True)
    assert torch.equal(exported(tmp_path / "ema")["head.weight"], checkpoint["ema"]["head.weight"])
    assert torch.equal(exported(tmp_path / "plain")["head.weight"], checkpoint["model"]["head.weight"])
    assert not torch.equal(checkpoint["ema"]["head.weight"], checkpoint["model"]["head.weight"])


def test_bf16_trains_close_to_fp32_and_keeps_its_weights_in_float32(tmp_path):
    train(toy_config(tmp_path / "fp32"))
    train(toy_config(tmp_path / "bf16", precision="bf16"))
    pairs = [(a["loss"], b["loss"]) for a, b in zip(steps(tmp_path / "fp32"), steps(tmp_path / "bf16"), strict=True)]
    assert all(a == pytest.approx(b, abs=0.05) for a, b in pairs) and any(a != b for a, b in pairs)
    assert exported(tmp_path / "bf16")["head.weight"].dtype == torch.float32


@pytest.mark.parametrize("there, same", [(True, "bf16"), (False, "fp32")])
def test_precision_follows_the_machine_where_it_is_to(tmp_path, monkeypatch, there, same):
    monkeypatch.setattr(loop, "multiplies_bf16", lambda device: there)
    train(toy_config(tmp_path / "auto", precision="auto"))
    train(toy_config(tmp_path / "named", precision=same))
    assert steps(tmp_path / "auto") == steps(tmp_path / "named")


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    train(toy_config(tmp_path, steps=4))
    with pytest.raises(TrainError, match="holds a run already"):
        train(toy_config(tmp_path, steps=4))


def test_a_run_does_not_go_on_with_other_settings_but_may_be_made_longer(tmp_path):
    train(toy_config(tmp_path, steps=4))
    with pytest.raises(TrainError, match=r"seed was 3, is 4; task.batch was 4, is 5"):
        train(toy_config(tmp_path, steps=4, seed=4, batch=5), resume=True)
    assert train(toy_config(tmp_path, steps=6), resume=True).steps == 6


def test_the_config_of_a_run_is_saved_beside_it_and_builds_it_again(tmp_path):
    config = toy_config(tmp_path, steps=2)
    train(config)
    saved = json.loads((tmp_path / "config.json").read_text())
    task = configs.from_dict(ToyTask, saved.pop("task"))
    assert dataclasses.replace(configs.from_dict(TrainConfig, {**saved, "task": None}), task=task) == config


@pytest.mark.parametrize(
    "wrong", [{"precision": "fp16"}, {"steps": 0}, {"accumulation": 0}, {"best_is": "low"}, {"ema": 1.0}]
)
def test_a_config_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigError):
        toy_config("x", **wrong)


def test_batches_move_with_their_structure():
    @dataclasses.dataclass(frozen=True)
    class Rows:
        ids: torch.Tensor
        names: list[str]

    moved = to_device({"a": [torch.zeros(1)], "b": Rows(torch.zeros(2), ["x"])}, torch.device("meta"))
    assert moved["a"][0].is_meta and moved["b"].ids.is_meta and moved["b"].names == ["x"]
