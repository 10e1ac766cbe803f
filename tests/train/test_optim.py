import pytest
import torch
from torch import nn

from duologue.errors import ConfigError, TrainError
from duologue.train.optim import Ema, OptimizerConfig, factor, make_optimizer, scale_and_clip, set_rate


def test_the_rate_rises_then_falls_to_its_end():
    config = OptimizerConfig(warmup=4, schedule="cosine", final=0.1)
    rates = [factor(config, step, 21) for step in range(21)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[12] == pytest.approx(0.55)  # half way
    assert rates[-1] == pytest.approx(0.1) and rates[4:] == sorted(rates[4:], reverse=True)
    linear = OptimizerConfig(warmup=0, schedule="linear")
    assert [factor(linear, step, 5) for step in range(5)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert factor(OptimizerConfig(warmup=1, schedule="constant"), 99, 100) == 1


def test_names_choose_their_rate_and_only_matrices_decay():
    module = nn.ModuleDict({"adapter": nn.Linear(2, 2), "llm": nn.Linear(2, 2), "frozen": nn.Linear(2, 2)})
    module["frozen"].requires_grad_(False)
    optimizer = make_optimizer(module, OptimizerConfig(lr=0.1, weight_decay=0.5, rates=(("llm", 0.2),)))
    set_rate(optimizer, 0.1)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert found == {
        id(module["adapter"].weight): (0.1, 0.5),
        id(module["adapter"].bias): (0.1, 0.0),
        id(module["llm"].weight): (pytest.approx(0.02), 0.5),
        id(module["llm"].bias): (pytest.approx(0.02), 0.0),
    }


def test_nothing_to_train_and_names_that_fit_nothing_are_refused():
    with pytest.raises(TrainError, match="nothing to train"):
        make_optimizer(nn.Linear(2, 2).requires_grad_(False), OptimizerConfig())
    with pytest.raises(ConfigError, match="begins with llm; they begin with bias, weight"):
        make_optimizer(nn.Linear(2, 2), OptimizerConfig(rates=(("llm", 0.2),)))
    with pytest.raises(ConfigError, match="schedule"):
        OptimizerConfig(schedule="cosin")


def test_a_gradient_is_scaled_then_clipped_as_a_whole():
    module = nn.Linear(1, 1)
    module.weight.grad, module.bias.grad = torch.tensor([[6.0]]), torch.tensor([8.0])
    assert scale_and_clip(module, scale=0.5, clip=1.0) == pytest.approx(5.0)
    assert module.weight.grad.item() == pytest.approx(0.6, abs=1e-5)
    assert module.bias.grad.item() == pytest.approx(0.8, abs=1e-5)
    assert scale_and_clip(module, scale=3.0, clip=0.0) == pytest.approx(3.0, abs=1e-4)


def test_the_mean_of_weights_is_lent_and_taken_back():
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    ema = Ema(module, 0.5)
    nn.init.constant_(module.weight, 3.0)
    ema.update(100)
    with ema.applied():
        assert module.weight.item() == 2.0
    assert module.weight.item() == 3.0
