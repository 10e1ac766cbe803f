"""Losses of the duplex model against cases worked out by hand, and against the model's own scores."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from train.coding import TINY
from train.conversing import DEPTH, SHAPE

from duologue.errors import ConfigError
from duologue.models.moshi.config import UNGENERATED, ZERO
from duologue.models.moshi.generation import GREEDY, MoshiGenerator
from duologue.models.moshi.model import MoshiModel
from duologue.train.duplex_losses import LEAD, LossWeights, Measures, Told, combine, tell
from duologue.train.duplex_start import delays, moshi_config

CODEC = replace(TINY, num_codebooks=3)
PAD, END_PAD = 10, 11


def make_model(**changes) -> MoshiModel:
    torch.manual_seed(0)
    depth = replace(DEPTH, **changes.pop("depth", {}))
    config = replace(moshi_config(replace(SHAPE, context=50), depth, CODEC, text=12, delay=2), **changes)
    model = MoshiModel(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.5 * parameter.shape[-1] ** -0.5)
    return model.eval()


def make_codes(model: MoshiModel, *, rows: int = 2, frames: int = 9) -> torch.Tensor:
    c, generator = model.config, torch.Generator().manual_seed(1)
    codes = torch.randint(0, c.codebook_size, (rows, 1 + c.codebooks, frames), generator=generator)
    codes[:, 0] = torch.randint(0, c.text_vocab, (rows, frames), generator=generator)
    return codes


def told(text, word, audio=((0.0,),), audio_known=((False,),), known=None, heard=(), heard_word=()) -> Told:
    text_BT = torch.tensor(text)
    return Told(
        text_BT=text_BT,
        text_known_BT=torch.ones_like(text_BT, dtype=torch.bool) if known is None else torch.tensor(known),
        word_BT=torch.tensor(word),
        silent_BT=torch.zeros(0),
        heard_N=torch.tensor(heard),
        heard_word_N=torch.tensor(heard_word, dtype=torch.bool),
        audio_NK=torch.tensor(audio),
        audio_known_NK=torch.tensor(audio_known),
        right_NK=torch.tensor(audio_known),
    )


def test_the_weights_of_a_case_worked_out_by_hand():
    """Two words and a padding; two frames of three codebooks, one code unknown; one row of text alone."""
    case = told(
        [[2.0, 4.0, 1.0], [3.0, 5.0, 0.0]],
        [[True, True, False], [True, True, False]],
        audio=[[1.0, 2.0, 3.0], [5.0, 0.0, 7.0]],
        audio_known=[[True, True, True], [True, False, True]],
        known=[[True, True, True], [True, True, False]],
        heard=[3.0, 1.0],
        heard_word=[True, False],
    )
    config = make_model().config
    weights = LossWeights(semantic=10.0, padding=0.25, text=2.0, reading=0.5, heard=0.1)
    loss, numbers = combine(case, torch.tensor([False, True]), weights, config)
    text = (2 + 4 + 0.25 * 1) / 2.25
    audio = (10 * 1 + 2 + 3 + 10 * 5 + 7) / (10 + 1 + 1 + 10 + 1)
    heard = (3 + 0.25 * 1) / 1.25
    assert float(loss) == pytest.approx(2 * text + 0.1 * heard + 0.5 * (3 + 5) / 2 + audio)
    assert float(numbers["heard"]) == 3.0
    assert float(numbers["text"]) == pytest.approx(text) and float(numbers["audio"]) == pytest.approx(audio)
    assert float(numbers["words"]) == pytest.approx(3.0) and float(numbers["reading"]) == pytest.approx(4.0)


def test_what_the_user_says_counts_by_its_own_weight():
    both = make_model(depth={"steps": 6, "ffn_dims": (24,) * 6})
    weights = LossWeights(semantic=100.0, user=0.5)
    assert weights.of_codebooks(both.config, torch.zeros(0)).tolist() == [100, 1, 1, 50, 0.5, 0.5]
    assert weights.of_codebooks(make_model().config, torch.zeros(0)).tolist() == [100, 1, 1]
    codes, changed = make_codes(both), make_codes(both)
    changed[:, 4:] = ZERO  # nothing is heard: nothing of it is learnt
    assert tell(both, codes).audio_known_NK[:, 3:].any() and not tell(both, changed).audio_known_NK[:, 3:].any()
    with pytest.raises(ConfigError, match="from 0"):
        LossWeights(semantic=-1.0)


@pytest.mark.parametrize("unknown", [(), (0,), (0, 2, 5)])
def test_the_loss_of_known_tokens_is_that_of_the_models_own_scores(unknown):
    """`MoshiModel.forward` is held to the reference elsewhere; here its scores are taken one by one."""
    model = make_model()
    codes = make_codes(model)
    for stream in unknown:
        codes[0, stream, 2:5] = ZERO
    with torch.no_grad():
        scores, found = model(codes), tell(model, codes)
    own = 1 + model.config.own_codebooks
    text = F.cross_entropy(scores.text_BTV[scores.text_mask_BT], codes[:, 0][scores.text_mask_BT])
    assert torch.equal(found.text_known_BT, scores.text_mask_BT)
    torch.testing.assert_close(found.text_BT[found.text_known_BT].mean(), text)
    for book in range(own - 1):
        mask = scores.audio_mask_BKT[:, book]
        wanted = F.cross_entropy(scores.audio_BKTV[:, book][mask], codes[:, 1 + book][mask])
        known_N = found.audio_known_NK[:, book]
        assert int(known_N.sum()) == int(mask.sum())
        torch.testing.assert_close(found.audio_NK[known_N, book].mean(), wanted)


@pytest.mark.parametrize("stream", range(4))
def test_what_is_learnt_is_what_a_step_says(stream):
    """Driven frame by frame, all else given, the model draws the token that was likeliest in training."""
    model = make_model()
    codes, c = make_codes(model, rows=1, frames=12), model.config
    with torch.no_grad():
        scores = model(codes)
    best_T = (scores.audio_BKTV[0, stream - 1] if stream else scores.text_BTV[0]).argmax(-1)
    generator, live, own = MoshiGenerator(model, GREEDY), torch.tensor([True]), 1 + c.own_codebooks
    for place in (0, 1, 4, 9):
        state = generator.init_state(1)
        for step in range(place + c.max_delay + 1):
            forced = codes[:, :own, step].clone()
            forced[:, stream] = UNGENERATED if step == place else forced[:, stream]
            heard = codes[:, own:, max(0, step - 1)]  # what is heard at the first step is passed over
            with torch.no_grad():
                said = generator.step(state, heard, live, forced_BK=forced)
        assert int(said[0, stream]) == int(best_T[place]), (stream, place)


def test_a_part_of_the_frames_gives_the_same_loss_on_average_and_every_frame_its_turn():
    model, seen = make_model(), set()
    codes = make_codes(model, rows=1)
    whole = tell(model, codes).audio_NK.detach()
    for seed in range(20):
        torch.manual_seed(seed)
        found = tell(model, codes, share=0.3).audio_NK.detach()
        assert len(found) == math.ceil(0.3 * len(whole))
        rows = (found[:, None] - whole[None]).abs().amax(-1).argmin(1)
        torch.testing.assert_close(found, whole[rows])
        seen |= set(rows.tolist())
    assert seen == set(range(len(whole)))


def test_frames_in_which_nothing_changes_are_thinned_out_and_no_other():
    model = make_model()
    codes, own = make_codes(model, rows=1, frames=40), 1 + model.config.own_codebooks
    codes[:, 1:own, 10:30] = codes[:, 1:own, 10:11]  # as in silence
    whole = tell(model, codes).audio_NK.detach()
    torch.manual_seed(0)
    counts = [len(tell(model, codes, still=still).audio_NK) for still in (0.0, 0.5, 1.0)]
    still = 19 - model.config.max_delay  # where the codes that come later stand still, too
    assert counts[0] == len(whole) - still and counts[0] < counts[1] < counts[2] == len(whole)


def test_text_alone_teaches_no_sound():
    model = make_model()
    codes = make_codes(model)
    codes[:, 1:] = ZERO
    found = tell(model, codes)
    loss, numbers = combine(found, torch.tensor([True, True]), LossWeights(), model.config)
    assert float(numbers["audio"]) == 0 == float(numbers["text"]) and float(loss.detach()) == float(numbers["reading"])
    loss.backward()
    assert not any(p.grad is not None and p.grad.any() for p in model.depth.parameters())
    assert model.text_head.weight.grad.any()


def test_beginnings_and_false_starts_are_told_from_the_chance_of_silence():
    config, frames = make_model().config, 3 * LEAD
    text = torch.full((1, frames), PAD)
    text[0, 2 * LEAD], text[0, 2 * LEAD + 1] = END_PAD, 7
    chance = torch.full((1, frames), 0.9)
    chance[0, 2 * LEAD] = 0.2
    measures = Measures(config)
    costs = [0.0] * frames
    costs[2 * LEAD + 1] = 1.5
    empty = told([costs], [[False] * frames])
    measures.add(replace(empty, silent_BT=chance.log()), text[:, None])
    found = measures.result(12.5)
    assert found["taken"] == pytest.approx(1 - 0.2 * 0.9 ** (LEAD - 1))
    assert found["false_starts"] == pytest.approx(0.1 * 60 * 12.5)
    assert found["first"] == 1.5 and found["words"] == 0 and found["perplexity"] == 1


def test_delays_of_either_side():
    assert delays(3, 3, 2) == (0, 0, 2, 2, 0, 2, 2) and delays(2, 0, 1) == (0, 0, 1)
