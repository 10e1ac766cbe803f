"""Conditions and classifier-free guidance against the `moshi` package's, and beside conversations without."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from conformance import Case, check_all
from moshi.conditioners import ConditionAttributes
from moshi.models.lm import LMGen
from moshi.models.loaders import get_moshi_lm
from moshi.utils.compile import no_compile
from safetensors.torch import load_file
from tiny_moshi import CONDITIONED, TINY, ours, reference

from duologue.errors import CheckpointError, ConfigError
from duologue.models.moshi.conditions import Guidance
from duologue.models.moshi.config import UNGENERATED
from duologue.models.moshi.generation import GREEDY, MoshiGenerator, Sampling
from duologue.models.moshi.guidance import Pairs
from duologue.models.moshi.released import load_moshi, quantize_moshi, save_moshi
from duologue.models.moshi.released_config import from_kyutai, read_config, to_kyutai

GOOD, BAD = {"description": "very_good", "style": "calm"}, {"description": "very_bad"}
LED = Guidance(conditions=GOOD, against=BAD, coefficient=3.0)
CHOICES = [Guidance(conditions=GOOD), LED, Guidance(conditions={"style": "x"}, coefficient=1.7), Guidance()]


@pytest.fixture(autouse=True)
def plain():
    with no_compile(), torch.no_grad():
        yield


@pytest.fixture(scope="module")
def theirs():
    return reference(CONDITIONED)


@pytest.fixture(scope="module")
def model(theirs):
    return ours(CONDITIONED, theirs)


def given(theirs, *rows):
    """The package's own tensors of conditions."""
    rows = [{"description": None, "style": None} | dict(row) for row in rows]
    return theirs.condition_provider.prepare_and_provide([ConditionAttributes(text=row) for row in rows])


def want(theirs, guidance: Guidance, heard_BKT: torch.Tensor) -> torch.Tensor:
    """What the package says, greedily, [B, K, T]; UNGENERATED before its first frame."""
    slots, led = len(heard_BKT), guidance.coefficient != 1
    rows = [guidance.conditions] * slots + [guidance.against] * slots * led
    gen = LMGen(
        theirs, use_sampling=False, cfg_coef=guidance.coefficient, condition_tensors=given(theirs, *rows), check=True
    )
    with gen.streaming(slots):
        said = [gen.step(heard_BK1) for heard_BK1 in heard_BKT.split(1, 2)]
    late = sum(frame is None for frame in said)
    first = torch.full((slots, theirs.dep_q + 1, late), UNGENERATED)
    return torch.cat([first, *said[late:]], 2)


def run(generator, state, heard_BKT, live_B=None):
    live_B = torch.ones(len(heard_BKT), dtype=torch.bool) if live_B is None else live_B
    return torch.stack([generator.step(state, heard_BK, live_B) for heard_BK in heard_BKT.unbind(2)], -1)


def heard(slots: int, steps: int) -> torch.Tensor:
    return torch.randint(20, (slots, 3, steps), generator=torch.Generator().manual_seed(5))


def chosen(generator, choices):
    state = generator.init_state(len(choices))
    for slot, guidance in enumerate(choices):
        generator.guide(state, slot, guidance)
    return state


def test_scores_under_conditions_are_the_same(theirs, model):
    torch.manual_seed(3)
    codes_BKT = torch.cat([torch.randint(40, (3, 1, 17)), torch.randint(20, (3, 6, 17))], 1)
    rows = [GOOD, BAD, {}]
    expected = theirs(codes_BKT, given(theirs, *rows))
    got = model(codes_BKT, torch.tensor([model.conditions.ids(row) for row in rows]))
    text, audio = expected.text_mask[:, 0], expected.mask
    torch.testing.assert_close(got.text_BTV[text], expected.text_logits[:, 0][text], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.audio_BKTV[audio], expected.logits[audio], rtol=1e-5, atol=1e-5)
    none = model(codes_BKT)
    assert torch.equal(none.text_BTV[2], got.text_BTV[2]) and not torch.allclose(none.text_BTV[0], got.text_BTV[0])


@pytest.mark.parametrize("guidance", CHOICES, ids=["conditions", "guided", "none against", "none"])
def test_greedy_conversations_are_the_same_token_for_token(theirs, model, guidance):
    generator, heard_BKT = MoshiGenerator(model, GREEDY, guidance), heard(2, 100)
    said = run(generator, generator.init_state(2), heard_BKT)
    assert torch.equal(said, want(theirs, guidance, heard_BKT))
    assert (said[:, :, 2:] >= 0).all() and len(said.unique()) > 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_guided_scores_are_the_same(dtype, monkeypatch):
    """Both go on from the same tokens, so that rounding cannot lead them apart."""
    raw = {**CONDITIONED, "dim": 64, "num_layers": 4, "delays": [0] * 7}
    theirs = reference(raw)
    model, expected, got, mix = ours(raw, theirs), [], [], Pairs.mix
    model.to(dtype)
    tensors = given(theirs, GOOD, BAD)
    gen = LMGen(
        theirs.to(dtype),
        use_sampling=False,
        cfg_coef=3.0,
        condition_tensors=tensors,
        on_text_logits_hook=expected.append,
    )
    monkeypatch.setattr(Pairs, "mix", lambda pairs, scores: got.append(mix(pairs, scores)) or got[-1])
    generator, live_B = MoshiGenerator(model, GREEDY, LED), torch.tensor([True])
    state, torch_rng = generator.init_state(1), torch.Generator().manual_seed(2)
    with gen.streaming(1):
        for _ in range(60):
            heard_BK, said_BK = torch.randint(20, (2, 1, 3), generator=torch_rng)
            gen.step(heard_BK[..., None], depformer_replace_tokens=said_BK[..., None])
            text_B1 = expected[-1].argmax().view(1, 1)
            generator.step(state, heard_BK, live_B, forced_BK=torch.cat([text_B1, said_BK], 1))
    want_TV, got_TV = (torch.stack([scores.float().flatten() for scores in each]) for each in (expected, got))
    if dtype == torch.float32:
        torch.testing.assert_close(got_TV, want_TV, rtol=1e-5, atol=1e-5)
    best_T2 = want_TV.topk(2).values
    sure_T = best_T2[:, 0] - best_T2[:, 1] > 0.3  # where rounding cannot turn the order
    assert torch.equal(got_TV.argmax(1)[sure_T], want_TV.argmax(1)[sure_T]) and sure_T.float().mean() > 0.5


def test_guidance_makes_a_difference(model):
    said = [
        run(generator, generator.init_state(1), heard(1, 30))
        for generator in (MoshiGenerator(model, GREEDY, replace(LED, coefficient=c)) for c in (0.0, 1.0, 1.5, 3.0))
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate(said) for b in said[:i])
    against = MoshiGenerator(model, GREEDY, Guidance(conditions=BAD))
    assert torch.equal(said[0], run(against, against.init_state(1), heard(1, 30)))


def test_slots_with_and_without_guidance_are_as_if_alone(theirs, model):
    generator, heard_BKT = MoshiGenerator(model, GREEDY), heard(4, 60)
    together = run(generator, chosen(generator, CHOICES), heard_BKT)
    for slot, guidance in enumerate(CHOICES):
        assert torch.equal(together[slot], want(theirs, guidance, heard_BKT[slot : slot + 1])[0]), guidance


def test_drawn_slots_are_as_if_alone(model):
    generator, heard_BKT = MoshiGenerator(model, Sampling(top_k=7, repetition_penalty=1.3)), heard(4, 40)
    state = chosen(generator, CHOICES)
    for slot in range(4):
        generator.choose(state, slot, seed=slot + 1)
    together = run(generator, state, heard_BKT)
    for slot, guidance in enumerate(CHOICES):
        alone = chosen(generator, [guidance])
        generator.choose(alone, 0, seed=slot + 1)
        assert torch.equal(together[slot], run(generator, alone, heard_BKT[slot : slot + 1])[0])


def test_slots_that_begin_idle_and_end_at_their_own_times(theirs, model):
    """Slot 1 begins later, idles at every third tick, is put aside and goes on elsewhere; slot 2 begins twice."""
    generator, heard_BKT = MoshiGenerator(model, GREEDY), heard(4, 50)
    state, said = chosen(generator, CHOICES), [[], [], [], []]
    places, fed = [0, 1, 2, 3], [0, 0, 0, 0]
    for tick in range(70):
        live = {0: tick < 50, 1: tick > 4 and tick % 3 != 0, 2: True, 3: tick % 2 == 1}
        if tick == 30:
            aside = state.save(1)
            state.reset(torch.tensor([False, True, False, False]))
            other = generator.init_state(4)
            for slot in (0, 2, 3):
                other.load(slot, state.save(slot))
            other.load(1, aside)
            state = other
        if tick == 25:
            state.reset(torch.tensor([False, False, True, False]))
            generator.guide(state, 2, CHOICES[1])
            said[2], fed[2] = [], 0
        heard_BK = torch.stack([heard_BKT[slot, :, min(fed[slot], 49)] for slot in places])
        out_BK = generator.step(state, heard_BK, torch.tensor([live[slot] for slot in places]))
        for slot in places:
            if live[slot]:
                said[slot].append(out_BK[slot])
                fed[slot] += 1
    for slot, guidance in enumerate([*CHOICES[:2], CHOICES[1], CHOICES[3]]):
        got = torch.stack(said[slot][:45], 1)
        assert got.shape[1] > 30
        assert torch.equal(got, want(theirs, guidance, heard_BKT[slot : slot + 1])[0, :, : got.shape[1]]), slot


def test_a_place_that_is_reset_has_the_default_again(model):
    generator, heard_BKT = MoshiGenerator(model, GREEDY, LED), heard(1, 20)
    first = run(generator, generator.init_state(1), heard_BKT)
    state = chosen(generator, [Guidance()])
    other = run(generator, state, heard_BKT)
    state.reset(torch.tensor([True]))
    assert not torch.equal(other, first) and torch.equal(run(generator, state, heard_BKT), first)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(top_k=7)])
def test_the_streaming_contract(model, sampling):
    generator = MoshiGenerator(model, sampling, LED)
    check_all(
        Case(
            make_state=generator.init_state,
            call=lambda heard, state, live_B, _: run(generator, state, heard, live_B),
            inputs=heard(3, 14),
            cuts=[[7, 7], [1, 12, 1]],
            axis=2,
            exact=True,
        )
    )


def test_only_those_that_are_guided_have_a_second_row(model):
    generator, rows = MoshiGenerator(model, GREEDY), []
    handle = model.text_head.register_forward_hook(lambda _, __, scores: rows.append(len(scores)))
    for choices in (CHOICES, [Guidance(), CHOICES[0]]):
        run(generator, chosen(generator, choices), heard(len(choices), 1))
    handle.remove()
    assert rows == [6, 2]


def test_what_is_forced_is_said_under_guidance(model):
    generator = MoshiGenerator(model, GREEDY, LED)
    state, live_B = generator.init_state(1), torch.tensor([True])
    forced_BK = torch.tensor([[7, UNGENERATED, 5, 6]])
    said = [generator.step(state, heard(1, 1)[:, :, 0], live_B, forced_BK=forced_BK) for _ in range(6)]
    assert torch.stack(said[2:], -1)[0, [0, 2, 3]].tolist() == [[7] * 4, [5] * 4, [6] * 4]


def test_config_and_weights_go_both_ways(theirs, model, tmp_path):
    save_moshi(model, tmp_path)
    raw, file = read_config(tmp_path), tmp_path / "model.safetensors"
    assert from_kyutai(raw) == model.config and from_kyutai(to_kyutai(model.config)) == model.config
    assert raw["conditioners"] == CONDITIONED["conditioners"] and raw["fuser"] == {"sum": ["description", "style"]}
    assert raw["model_type"] == "hibiki"
    again = load_moshi(tmp_path)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    kwargs = {key: raw[key] for key in raw if key not in ("model_type", "moshi_name", "depformer_context")}
    back = get_moshi_lm(file, kwargs, dtype=torch.float32).state_dict()  # their own loader
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.state_dict().items())
    assert load_file(file)["condition_provider.conditioners.style.learnt_padding"].shape == (1, 1, 24)


def test_conditions_stay_in_float32(model, tmp_path):
    save_moshi(model, tmp_path)
    half = load_moshi(tmp_path, dtype=torch.bfloat16)
    kept = half.conditions.state_dict()
    assert half.norm.weight.dtype == torch.bfloat16 and len(kept) == 6
    assert all(torch.equal(tensor, model.conditions.state_dict()[name]) for name, tensor in kept.items())
    quantize_moshi(half)
    assert half.conditions.state_dict().keys() == kept.keys()
    generator = MoshiGenerator(half, GREEDY, LED)
    assert (run(generator, generator.init_state(1), heard(1, 4))[:, :, 2:] >= 0).all()


def lut(**changes) -> dict:
    return {"conditioners": {"a": {"type": "lut", "lut": {"n_bins": 2, "dim": 4, "tokenizer": "noop", **changes}}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conditioners": {"voice": {"type": "tensor", "tensor": {"dim": 4}}}}, "conditioners.voice: type = 'tensor'"),
        ({"conditioners": {"voice": 3}}, "conditioners.voice: type = None"),
        ({**lut(), "fuser": {"cross": ["a"]}}, r"fuser.cross = \['a'\] is not supported, only 'sum'"),
        ({**lut(), "fuser": None}, r"fuser.sum = \[\] must name all conditioners, \['a'\]"),
        ({"fuser": {"sum": ["a"]}}, r"must name all conditioners, \[\]"),
        (lut(tokenizer="whitespace"), "conditioners.a.lut.tokenizer = 'whitespace' is not supported, only 'noop'"),
        (lut(learn_padding=False), "learn_padding = False is not supported"),
        (lut(binz=3), "unknown key 'binz'"),
        (lut(possible_values=["x", "y", "z"]), "a row for each"),
        ({"conditioners": {"a": {"type": "lut", "lut": {"dim": 4}}}}, "the key 'n_bins' is missing"),
    ],
)
def test_conditions_that_are_not_supported_are_named(change, message):
    with pytest.raises(CheckpointError, match=message):
        from_kyutai(json.loads(json.dumps({**TINY, **change})))


def test_choices_that_cannot_be_are_refused(model):
    for values, message in (
        ({"descripton": "bad"}, "no condition 'descripton'; there are description, style"),
        ({"description": "good"}, "description cannot be 'good', only very_bad, bad, very_good"),
    ):
        with pytest.raises(ConfigError, match=message):
            MoshiGenerator(model, guidance=Guidance(conditions=values))
    with pytest.raises(ConfigError, match="other than those"):
        MoshiGenerator(model, guidance=Guidance(conditions=GOOD, against=GOOD, coefficient=2.0))
    with pytest.raises(ConfigError, match="0 or more"):
        Guidance(conditions=GOOD, coefficient=float("nan"))
    with pytest.raises(ConfigError, match="has no conditions"):
        MoshiGenerator(ours(TINY, reference(TINY)), guidance=LED)
    generator = MoshiGenerator(model, GREEDY)
    state = generator.init_state(1)
    run(generator, state, heard(1, 1))
    with pytest.raises(ConfigError, match="before the first step"):
        generator.guide(state, 0, LED)
