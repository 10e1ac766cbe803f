"""Moshi with weights of few bits: how far its scores go from those in bfloat16, and that it runs step by step."""

import copy

import pytest
import torch
from tiny_moshi import TINY, ours, reference

from duologue.errors import CheckpointError
from duologue.models.moshi.generation import GREEDY, MoshiGenerator
from duologue.models.moshi.model import MoshiModel
from duologue.models.moshi.released import quantize_moshi, save_moshi
from duologue.nn.packed import pack_linears
from duologue.nn.quant import release
from duologue.nn.quant_matrix import QuantLinear

SHAPE = {**TINY, "dim": 64, "depformer_dim": 32, "context": 24}


@pytest.fixture(autouse=True)
def plain():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model() -> MoshiModel:
    return ours(SHAPE, reference(SHAPE)).bfloat16()


def few(model: MoshiModel, bits: int) -> MoshiModel:
    made = copy.deepcopy(model)
    quantize_moshi(made, bits=bits)
    return made


def error(value: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((value.float() - wanted.float()).norm() / wanted.float().norm())


@pytest.mark.parametrize(("bits", "most"), [(8, 0.04), (4, 0.25)])
def test_scores_stay_near_those_in_bfloat16(model, bits, most):
    torch.manual_seed(0)
    made = few(model, bits)
    assert not any(type(layer) is torch.nn.Linear for layer in made.modules())
    codes_BKT = torch.randint(20, (4, 1 + SHAPE["n_q"], 12))
    plain, rounded = model(codes_BKT), made(codes_BKT)
    for value, wanted in ((rounded.text_BTV, plain.text_BTV), (rounded.audio_BKTV, plain.audio_BKTV)):
        assert 0.001 < error(value, wanted) < most
    # A step more means a greater error: int4's is that of its weights, not of a slip.
    assert bits == 8 or error(rounded.text_BTV, plain.text_BTV) > 2 * error(
        few(model, 8)(codes_BKT).text_BTV, plain.text_BTV
    )


@pytest.mark.parametrize("bits", [8, 4])
def test_greedy_steps_of_a_row_are_the_same_alone_and_among_others(model, bits):
    made = few(model, bits)
    pack_linears(made, single=True)
    release(made)
    assert any(isinstance(layer, QuantLinear) for layer in made.modules())
    generator, live_B = MoshiGenerator(made, GREEDY), torch.ones(3, dtype=torch.bool)
    torch.manual_seed(1)
    heard_BKT = torch.randint(20, (3, SHAPE["n_q"] - SHAPE["dep_q"], 20))
    state = generator.init_state(3)
    together = torch.stack([generator.step(state, heard_BK, live_B) for heard_BK in heard_BKT.unbind(2)], 2)
    said = together[:, :, generator.config.max_delay :]
    assert ((said >= 0) & (said < SHAPE["text_card"])).all() and len(said.unique()) > 3
    state = generator.init_state(1)
    alone = [generator.step(state, heard_BK[1:2], live_B[:1])[0] for heard_BK in heard_BKT.unbind(2)]
    assert torch.equal(torch.stack(alone, 1), together[1])


def test_the_published_layout_has_no_int4(model, tmp_path):
    with pytest.raises(CheckpointError, match=r"unexpected: .*int4"):
        save_moshi(few(model, 4), tmp_path)
