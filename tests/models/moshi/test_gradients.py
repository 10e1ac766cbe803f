"""What training needs of the language model."""

import pytest
import torch
from tiny_moshi import TINY, VARIANTS, ours, reference

from duologue.models.moshi.model import MoshiModel
from duologue.nn.lora import add_lora, lora_layers, merge_lora


def loss(model: MoshiModel, codes_BKT: torch.Tensor) -> torch.Tensor:
    scores = model(codes_BKT)
    text = torch.nn.functional.cross_entropy(scores.text_BTV[scores.text_mask_BT], codes_BKT[:, 0][scores.text_mask_BT])
    known_BKT = codes_BKT[:, 1 : 1 + model.config.depth_steps][scores.audio_mask_BKT]
    return text + torch.nn.functional.cross_entropy(scores.audio_BKTV[scores.audio_mask_BKT], known_BKT)


@pytest.mark.parametrize("variant", ["moshi", "schedule", "low rank, norms, biases"])
def test_the_loss_reaches_every_weight(variant):
    raw = VARIANTS[variant]
    model, codes_BKT = ours(raw, reference(raw)), torch.randint(20, (2, 7, 30))  # longer than the context
    loss(model, codes_BKT).backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not idle


def test_adapters_learn_and_merge_into_the_same_numbers():
    torch.manual_seed(0)
    model, codes_BKT = ours(TINY, reference(TINY)), torch.randint(20, (1, 7, 10))
    names = add_lora(model, rank=2, alpha=4, targets=("qkv", "out", "up", "down", "inputs"))
    assert len(names) == 2 * 4 + 2 * 3 * 4 + 1
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    first = loss(model, codes_BKT).item()
    for _ in range(12):
        optimizer.zero_grad()
        loss(model, codes_BKT).backward()
        optimizer.step()
    last = loss(model, codes_BKT).item()
    assert last < first - 0.3
    merge_lora(model)
    assert not list(lora_layers(model))
    assert loss(model, codes_BKT).item() == pytest.approx(last, abs=1e-4)
