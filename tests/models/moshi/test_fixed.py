"""Steps of fixed shapes: the same tokens as the ordinary ones, and nothing in them that a captured graph may not do."""

from __future__ import annotations

import pytest
import torch
from tiny_moshi import TINY, VARIANTS, ours, reference

from duologue.models.moshi.config import UNGENERATED
from duologue.models.moshi.fixed import FixedStep
from duologue.models.moshi.generation import GREEDY, MoshiGenerator, Sampling
from duologue.models.moshi.released import meta_model
from duologue.models.moshi.released_config import from_kyutai


@torch.no_grad()
@pytest.mark.parametrize("variant", ["moshi", "schedule", "recogniser"])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(top_k=7, text_top_k=0, repetition_penalty=1.4)])
def test_the_tokens_are_those_of_the_ordinary_step(variant, sampling, monkeypatch):
    monkeypatch.setattr("duologue.models.moshi.fixed._KEYS", 4)  # lengths of 4, 8 and the ring's 12
    raw = VARIANTS[variant]
    model = ours(raw, reference(raw))
    heard, own = raw["n_q"] - raw["dep_q"], 1 + raw["dep_q"]
    systems = [MoshiGenerator(model, sampling, fixed=fixed) for fixed in (False, True)]
    states = [system.init_state(4) for system in systems]
    for system, state in zip(systems, states, strict=True):
        system.choose(state, 1, sampling=Sampling(top_k=3), seed=5)
    for _ in range(30):
        heard_BK, live_B = torch.randint(20, (4, heard)), torch.rand(4) < 0.7
        forced_BK = torch.where(torch.rand(4, own) < 0.2, torch.randint(20, (4, own)), UNGENERATED)
        want, got = (
            system.step(state, heard_BK, live_B, forced_BK=forced_BK)
            for system, state in zip(systems, states, strict=True)
        )
        assert torch.equal(got, want)
    for slot in range(4):
        for name, value in states[0].save(slot).items():
            torch.testing.assert_close(states[1].save(slot)[name], value, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_no_number_is_looked_at():
    """The meta device has none."""
    config = from_kyutai(TINY)
    model = meta_model(config).eval()
    step, slots, own = FixedStep(model), 3, config.own_codebooks
    with torch.device("meta"):
        cache, live_B = model.transformer.init_state(slots), torch.ones(slots, dtype=torch.bool)
        z_BD = step.temporal(torch.zeros(slots, 1 + config.codebooks, dtype=torch.int64), cache, live_B, keys=8)
        ids_B = torch.zeros(slots, dtype=torch.int64)
        given_BK = ids_B[:, None].expand(-1, own)
        codes_BK = step.depth(z_BD, ids_B, given_BK, torch.ones(slots, own, 5), live_B)
    assert z_BD.shape == (slots, config.temporal.dim) and codes_BK.shape == (slots, own)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@torch.no_grad()
def test_replayed_graphs_say_what_the_calls_say():
    model = ours(TINY, reference(TINY)).cuda()
    systems = [MoshiGenerator(model, GREEDY, fixed=fixed) for fixed in (False, True)]
    states = [system.init_state(4) for system in systems]
    for _ in range(20):
        heard_BK, live_B = torch.randint(20, (4, 3), device="cuda"), torch.rand(4, device="cuda") < 0.7
        want, got = (system.step(state, heard_BK, live_B) for system, state in zip(systems, states, strict=True))
        assert torch.equal(got, want)
