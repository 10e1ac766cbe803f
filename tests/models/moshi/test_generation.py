"""The streaming step under the contract, and how it draws."""

from dataclasses import replace

import pytest
import torch
from conformance import Case, check_all
from tiny_moshi import TINY, VARIANTS, ours, reference

from duologue.errors import ConfigError, ShapeError
from duologue.models.moshi.config import UNGENERATED
from duologue.models.moshi.generation import GREEDY, MoshiGenerator, MoshiState, Sampling
from duologue.models.moshi.model import PASSES, MoshiModel, with_written

ALL = torch.ones(3, dtype=torch.bool)


@pytest.fixture(autouse=True)
def plain():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model():
    return ours(TINY, reference(TINY))


def run(generator: MoshiGenerator, state: MoshiState, heard_BKT, live_B=ALL, forced_BKT=None) -> torch.Tensor:
    steps = range(heard_BKT.shape[2])
    forced = [None if forced_BKT is None else forced_BKT[:, :, t] for t in steps]
    return torch.stack([generator.step(state, heard_BKT[:, :, t], live_B, forced_BK=forced[t]) for t in steps], -1)


@pytest.mark.parametrize("variant", ["moshi", "schedule", "recogniser"])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(top_k=7, text_top_k=0, repetition_penalty=1.4)])
def test_the_streaming_contract(variant, sampling):
    raw = VARIANTS[variant]
    generator = MoshiGenerator(ours(raw, reference(raw)), sampling)
    inputs = torch.randint(20, (3, raw["n_q"] - raw["dep_q"], 14))
    check_all(
        Case(
            make_state=generator.init_state,
            call=lambda heard, state, live_B, _: run(generator, state, heard, live_B),
            inputs=inputs,
            cuts=[[7, 7], [1, 12, 1], [3, 4, 7]],
            axis=2,
            exact=True,
        )
    )


def test_a_slot_draws_the_same_whoever_else_is_there(model):
    generator, heard_BKT = MoshiGenerator(model), torch.randint(20, (3, 3, 40))
    choices = [Sampling(temperature=1.2, top_k=3), GREEDY, Sampling(text_top_k=0, top_k=0, repetition_penalty=1.3)]
    state = generator.init_state(3)
    for slot, sampling in enumerate(choices):
        generator.choose(state, slot, sampling=sampling, seed=7 + slot)
    together = run(generator, state, heard_BKT)
    for slot, sampling in enumerate(choices):
        alone = generator.init_state(1)
        generator.choose(alone, 0, sampling=sampling, seed=7 + slot)
        assert torch.equal(run(generator, alone, heard_BKT[slot : slot + 1], ALL[:1])[0], together[slot])


def test_seeds_make_the_difference(model):
    generator, heard_BKT = MoshiGenerator(model), torch.randint(20, (1, 3, 30)).expand(3, -1, -1)
    state = generator.init_state(3)
    for slot, seed in enumerate([5, 5, 6]):
        generator.choose(state, slot, seed=seed)
    said = run(generator, state, heard_BKT)
    assert torch.equal(said[0], said[1]) and not torch.equal(said[0], said[2])
    state.reset(ALL)
    assert torch.equal(run(generator, state, heard_BKT)[0], run(generator, generator.init_state(3), heard_BKT)[2])


def test_what_is_forced_is_said_and_the_rest_follows_from_it(model):
    generator, heard_BKT = MoshiGenerator(model, GREEDY), torch.randint(20, (3, 3, 20))
    forced_BKT = torch.full((3, 4, 20), UNGENERATED)
    forced_BKT[0] = torch.randint(20, (4, 20))  # everything
    forced_BKT[1, 0] = torch.randint(40, (20,))  # the text
    state = generator.init_state(3)
    said, free = (
        run(generator, s, heard_BKT, forced_BKT=f) for s, f in ((state, forced_BKT), (generator.init_state(3), None))
    )
    late = generator.config.max_delay
    assert (said[:, :, :late] == UNGENERATED).all()
    assert torch.equal(said[0, :, late:], forced_BKT[0, :, : 20 - late])
    assert torch.equal(said[1, 0, late:], forced_BKT[1, 0, : 20 - late])
    assert not torch.equal(said[1, 1:], free[1, 1:])
    assert torch.equal(said[2], free[2])


def test_what_is_forced_is_what_the_model_would_have_read(model):
    """A conversation that is forced on the model leaves the scores of the same conversation read as a whole."""
    generator, codes_BKT = MoshiGenerator(model, GREEDY), torch.randint(20, (3, 7, 18))
    state, seen = generator.init_state(3), []
    handle = model.text_head.register_forward_hook(lambda _, __, scores: seen.append(scores))
    heard_BKT = torch.cat([codes_BKT[:, 4:, :1], codes_BKT[:, 4:, :-1]], 2)  # what is heard comes a step later
    run(generator, state, heard_BKT, forced_BKT=codes_BKT[:, :4])
    handle.remove()
    want = model(codes_BKT).text_BTV
    torch.testing.assert_close(torch.stack(seen, 1), want, rtol=1e-5, atol=1e-5)


def test_depth_steps_equal_its_one_call(model):
    torch.manual_seed(0)
    for raw in (TINY, VARIANTS["schedule"], VARIANTS["low rank, norms, biases"]):
        depth = ours(raw, reference(raw)).depth
        z_ND, tokens_NS, seen = torch.randn(5, 24), torch.randint(20, (5, 3)), []

        def known(step, scores, seen=seen, tokens_NS=tokens_NS):
            seen.append(scores)
            return tokens_NS[:, min(step + 1, 2)]

        depth.generate(z_ND, tokens_NS[:, 0], 3, known)
        torch.testing.assert_close(torch.stack(seen, 1), depth(z_ND, tokens_NS), rtol=1e-5, atol=1e-5)


def test_repetition_penalty_looks_at_words_only(model):
    generator = MoshiGenerator(model, Sampling(text_temperature=0, temperature=0, repetition_penalty=1e6))
    state = generator.init_state(3)
    said = run(generator, state, torch.randint(20, (3, 3, 30)))[:, 0]
    for row in said.tolist():
        words = [token for token in row if token >= 0 and token not in (0, 3)]
        positive = words[:10]  # a token that was said cannot be the best again while any other has a positive score
        assert len(set(positive)) == len(positive)


def test_what_cannot_work_is_refused(model):
    generator = MoshiGenerator(model)
    with pytest.raises(ShapeError, match=r"need heard codes \[3, 3\], got \(3, 6\)"):
        generator.step(generator.init_state(3), torch.zeros(3, 6, dtype=torch.int64), ALL)
    with pytest.raises(ConfigError, match="must not be negative"):
        Sampling(temperature=-1)


@pytest.fixture(scope="module")
def hearing(model):
    """One with a head for what is heard, that writes all kinds of pieces and little padding."""
    made = MoshiModel(replace(model.config, hear_delay=4)).eval()
    made.load_state_dict(model.state_dict(), strict=False)
    torch.manual_seed(3)
    for part in (made.hear, made.reread):
        torch.nn.init.normal_(part.weight, std=0.4)
    return made


def test_the_streaming_contract_of_a_head_that_reads_what_it_wrote(hearing):
    generator = MoshiGenerator(hearing, GREEDY)
    check_all(
        Case(
            make_state=generator.init_state,
            call=lambda heard, state, live_B, _: run(generator, state, heard, live_B),
            inputs=torch.randint(20, (3, 3, 14)),
            cuts=[[7, 7], [1, 12, 1]],
            axis=2,
            exact=True,
        )
    )


def test_what_is_written_over_whole_rows_is_what_is_written_step_by_step(hearing):
    c, generator = hearing.config, MoshiGenerator(hearing, GREEDY)
    codes_BKT = torch.cat([torch.randint(5, 40, (3, 1, PASSES)), torch.randint(20, (3, c.codebooks, PASSES))], 1)
    own = 1 + c.own_codebooks
    state, wrote = generator.init_state(3), []
    for t in range(PASSES):  # what is heard while a frame is said is what whole rows have beside the frame before
        generator.step(state, codes_BKT[:, own:, max(t - 1, 0)], ALL, forced_BK=codes_BKT[:, :own, t])
        wrote.append(state.wrote_B - 1)
    input_BTK = hearing.delayed(codes_BKT)[:, :-1]
    assert torch.equal(hearing.write(input_BTK), torch.stack(wrote, 1))
    plain_BTD, read_BTD = (
        hearing.hidden(each, hearing.transformer.init_state(3), ALL)
        for each in (input_BTK, with_written(input_BTK, torch.stack(wrote, 1)))
    )
    assert torch.equal(plain_BTD[:, 0], read_BTD[:, 0]) and not torch.allclose(plain_BTD[:, 4:], read_BTD[:, 4:])
    known = hearing.forward(codes_BKT)
    torch.testing.assert_close(known.text_BTV, hearing.text_head(read_BTD))
