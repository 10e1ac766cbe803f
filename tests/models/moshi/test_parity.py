"""Our language model against the `moshi` package's with the same random weights."""

import pytest
import torch
from moshi.models.lm import LMGen
from moshi.utils.compile import no_compile
from tiny_moshi import TINY, VARIANTS, ours, reference

from duologue.models.moshi.config import ZERO
from duologue.models.moshi.generation import GREEDY, MoshiGenerator


@pytest.fixture(autouse=True)
def plain():
    with no_compile(), torch.no_grad():
        yield


@pytest.fixture(params=VARIANTS)
def raw(request):
    return VARIANTS[request.param]


def conversation(raw: dict, slots: int, steps: int, *, holes: bool = False) -> torch.Tensor:
    """Random tokens of all streams, [B, K, T]."""
    audio = torch.randint(raw["card"], (slots, raw["n_q"], steps))
    codes = torch.cat([torch.randint(raw["text_card"], (slots, 1, steps)), audio], 1)
    return torch.where(torch.rand(codes.shape) < 0.2, ZERO, codes) if holes else codes


def test_scores_of_known_tokens_are_the_same(raw):
    theirs = reference(raw)
    model, codes_BKT = ours(raw, theirs), conversation(raw, 2, 17, holes=True)
    got = model(codes_BKT)
    if not raw["dep_q"]:  # theirs cannot do this without a depth transformer
        z_BTD, text_B1TV = theirs.forward_text(model.delayed(codes_BKT)[:, :-1].mT)
        torch.testing.assert_close(got.text_BTV, text_B1TV[:, 0], rtol=1e-5, atol=1e-5)
        for ours_head, their_head in zip(model.extra_heads, theirs.extra_heads, strict=True):
            torch.testing.assert_close(ours_head(z_BTD), their_head(z_BTD))
        return
    for norm in theirs.depformer_norms:  # theirs forgets an axis there
        norm.forward = lambda x, forward=norm.forward: forward(x[:, None])[:, 0] if x.dim() == 2 else forward(x)
    want = theirs(codes_BKT)
    assert torch.equal(got.text_mask_BT, want.text_mask[:, 0])
    assert torch.equal(got.audio_mask_BKT, want.mask)
    text, audio = want.text_mask[:, 0], want.mask
    torch.testing.assert_close(got.text_BTV[text], want.text_logits[:, 0][text], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.audio_BKTV[audio], want.logits[audio], rtol=1e-5, atol=1e-5)
    assert want.logits[audio].std() > 0.3 and audio.any() and text.any()


def test_greedy_conversations_are_the_same_token_for_token(raw):
    theirs = reference(raw)
    steps, heard_BKT = 60, torch.randint(raw["card"], (2, raw["n_q"] - raw["dep_q"], 60))
    generator = MoshiGenerator(ours(raw, theirs), GREEDY)
    state, live_B = generator.init_state(2), torch.ones(2, dtype=torch.bool)
    gen, said = LMGen(theirs, use_sampling=False, check=True), []
    with gen.streaming(2):
        for t in range(steps):
            want = gen.step(heard_BKT[:, :, t : t + 1])
            got = generator.step(state, heard_BKT[:, :, t], live_B)
            if want is None:
                assert (got == -2).all() and t < generator.config.max_delay
            else:
                assert torch.equal(got, want[:, :, 0]), f"step {t}"
                said.append(got)
    assert len(said) == steps - generator.config.max_delay
    assert all(len(stream.unique()) > 2 for stream in torch.stack(said, -1).transpose(0, 1))


def test_five_hundred_greedy_steps_are_the_same():
    small = {**TINY, "num_layers": 1, "depformer_num_layers": 1, "n_q": 4, "dep_q": 2, "delays": [0, 0, 1, 0, 1]}
    theirs = reference(small, seed=1)
    generator, heard_T = MoshiGenerator(ours(small, theirs), GREEDY), torch.randint(20, (1, 2, 500))
    state, gen, same = generator.init_state(1), LMGen(theirs, use_sampling=False), 0
    with gen.streaming(1):
        for t in range(500):
            want, got = (
                gen.step(heard_T[:, :, t : t + 1]),
                generator.step(state, heard_T[:, :, t], torch.tensor([True])),
            )
            same += want is None or torch.equal(got, want[:, :, 0])
    assert same == 500


def test_slots_that_begin_idle_and_end_at_their_own_times_are_the_same():
    theirs = reference(TINY)
    generator = MoshiGenerator(ours(TINY, theirs), GREEDY)
    state, gen = generator.init_state(4), LMGen(theirs, use_sampling=False, support_out_of_sync=True)
    whole = 0
    with gen.streaming(4):
        for t in range(80):
            live_B = torch.rand(4) < torch.tensor([1.0, 0.7, 0.7, float(t > 20)])
            if t % 19 == 18:
                ended_B = torch.rand(4) < 0.5
                state.reset(ended_B)
                gen.reset_streaming(ended_B)
            gen.set_exec_mask(live_B)
            heard_BK = torch.randint(20, (4, 3))
            want = gen.step(heard_BK[:, :, None])[:, :, 0]
            got = generator.step(state, heard_BK, live_B)
            assert torch.equal(got, want), f"step {t}"
            whole += int((got[:, 0] >= 0).sum())
    assert whole > 150 and len(set(state.cache.offset_B.tolist())) > 1


def test_in_bfloat16_the_best_tokens_agree():
    theirs = reference({**TINY, "dim": 64, "num_layers": 4})
    model, codes_BKT = ours({**TINY, "dim": 64, "num_layers": 4}, theirs), conversation(TINY, 2, 60)
    exact = theirs(codes_BKT)
    want, got = theirs.bfloat16()(codes_BKT), model.bfloat16()(codes_BKT)
    sure = exact.text_logits[:, 0].topk(2).values  # where rounding cannot turn the order
    sure_BT = sure[..., 0] - sure[..., 1] > 0.15
    assert torch.equal(got.text_BTV.argmax(-1)[sure_BT], want.text_logits[:, 0].argmax(-1)[sure_BT])
    best = exact.logits.nan_to_num().topk(2).values
    sure_BKT = (best[..., 0] - best[..., 1] > 0.15) & exact.mask
    assert torch.equal(got.audio_BKTV.argmax(-1)[sure_BKT], want.logits.argmax(-1)[sure_BKT])
    assert sure_BT.float().mean() > 0.4 and sure_BKT.float().mean() > 0.4
