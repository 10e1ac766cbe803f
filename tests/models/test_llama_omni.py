"""The family under the contract: what a conversation does must not depend on its neighbours or on how it was cut."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from tiny_omni import PROMPT, TICK, ask, codec, listener, sounds, tiny_omni

from duologue.codecs.text import Message
from duologue.errors import PartError, ShapeError
from duologue.models.llama_omni.adapter import EmbeddingScale, ReadoutAdapter, ReadoutConfig, embedding_scale
from duologue.models.llama_omni.framing import Framing
from duologue.models.llama_omni.listening import SHORTEST, quietest

ONE = torch.tensor([True])


@pytest.fixture(autouse=True)
def no_grad():
    with torch.inference_mode():
        yield


def test_a_draft_changes_nothing_of_what_is_heard():
    ears = listener()
    audio_BN = torch.stack([sounds(1.2, 1), sounds(1.2, 2)])
    samples_B = torch.tensor([19_200, 12_000])
    whole = ears.hear(audio_BN, samples_B)
    for draft in (whole.ids_BT, ears.hear(audio_BN[:, :8000], samples_B.clamp(max=8000)).ids_BT, torch.full((2, 5), 7)):
        again = ears.hear(audio_BN, samples_B, draft)
        assert torch.equal(again.ids_BT, whole.ids_BT)
        torch.testing.assert_close(again.states_BTD, whole.states_BTD, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(again.guess_probs_BTK, whole.guess_probs_BTK, atol=1e-4, rtol=1e-4)


def test_a_row_is_heard_as_if_alone():
    ears = listener()
    audio_BN = torch.stack([sounds(1.2, 1), sounds(1.2, 2)])
    samples_B = torch.tensor([19_200, 9_000])
    both = ears.hear(audio_BN, samples_B)
    alone = ears.hear(audio_BN[1:, :9_000], samples_B[1:])
    assert both.ids_BT[1, : int(both.counts_B[1])].tolist() == alone.ids_BT[0].tolist()


@pytest.mark.parametrize("seed,found", [(0, False), (2, True)])
def test_second_thoughts_find_a_likelier_sentence_and_only_such(seed, found):
    audio_BN = torch.stack([sounds(1.2, seed) for seed in range(8)])
    samples_B = torch.full((8,), 19_200)
    torch.manual_seed(seed)
    ears = listener()
    ears.config = dataclasses.replace(ears.config, doubt=1e-3)  # it has not learnt to be sure of anything
    memory = ears.encode(audio_BN, samples_B)
    first = ears._write(memory, samples_B)
    final = ears._reconsider(first, memory, samples_B)
    likelier_B = final.score_B > first.score_B
    same_B = (ears._report(final).ids_BT == ears._report(first).ids_BT).all(1)
    assert bool(likelier_B.any()) == found and torch.equal(~likelier_B, same_B)
    hasty, whole = ears.hear(audio_BN, samples_B, hasty=True), ears.hear(audio_BN, samples_B)
    assert torch.equal(hasty.ids_BT, ears._report(first).ids_BT)
    assert torch.equal(whole.ids_BT, ears._report(final).ids_BT)
    inside_BT = whole.ids_BT >= 0
    assert torch.equal(whole.guess_ids_BTK[..., 0][inside_BT], whole.ids_BT[inside_BT])  # the LLM hears what is written
    for b, count in enumerate(whole.counts_B.tolist()):  # what it reports is what writing that sentence gives
        again = ears._write(
            ears.encode(audio_BN[b : b + 1], samples_B[:1]),
            samples_B[:1],
            whole.ids_BT[b : b + 1],
            torch.tensor([count]),
        )
        torch.testing.assert_close(again.score_B, final.score_B[b : b + 1], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ears._report(again).states_BTD[0], whole.states_BTD[b, :count], atol=1e-4, rtol=1e-4)


def test_an_expected_sentence_is_heard_where_it_is_hardly_less_likely():
    audio_BN, samples_B = torch.stack([sounds(1.2, seed) for seed in range(4)]), torch.full((4,), 19_200)
    ears = listener()
    free = ears.hear(audio_BN, samples_B, hasty=True)
    memory = ears.encode(audio_BN, samples_B)
    written = ears._write(memory, samples_B)
    expected = [[5, 9], [7], [11, 3, 2], [7, 5, 5, 5]]

    def totals(b):  # each sentence on its own
        one, count = ears.encode(audio_BN[b : b + 1], samples_B[:1]), samples_B[:1]
        return [ears._teach(one, [ids]).total(0) for ids in expected], ears._write(one, count).total(0)

    for margin in (0.0, 1e4):
        ears.config = dataclasses.replace(ears.config, expect=margin, expect_pieces=99)
        heard = ears.hear(audio_BN, samples_B, hasty=True, expected=expected)
        for b in range(4):
            found, best = totals(b)
            likeliest = expected[found.index(max(found))]
            taken = max(found) > best - margin and written.counts_B[b] > 0
            want = likeliest if taken else free.ids_BT[b][free.ids_BT[b] >= 0].tolist()
            assert heard.ids_BT[b][heard.ids_BT[b] >= 0].tolist() == want
            assert margin < 1e4 or want == likeliest
    ears.config = dataclasses.replace(ears.config, expect_pieces=int(written.counts_B.min()) - 1)
    assert torch.equal(ears.hear(audio_BN, samples_B, hasty=True, expected=expected).ids_BT, free.ids_BT)


def test_the_language_model_chooses_between_what_sounds_alike_only():
    audio_BN = torch.stack([sounds(1.2, seed) for seed in range(8)])
    samples_B = torch.full((8,), 19_200)
    torch.manual_seed(2)
    ears = listener()
    ears.config = dataclasses.replace(ears.config, doubt=1e-3, close=0.5)
    asked: list[list[tuple[int, ...]]] = []

    def least_likely(choices, *, sign=-1e3):
        asked.extend(choices)
        return [[sign * place for place in range(len(each))] for each in choices]

    whole = [tuple(ids[ids >= 0].tolist()) for ids in ears.hear(audio_BN, samples_B, prefer=least_likely).ids_BT]
    firsts = [each[0] for each in asked]
    assert asked and all(1 < len(set(each)) == len(each) <= 4 for each in asked)
    assert set(firsts) <= set(whole)  # the first of each list was wanted
    lasts = functools.partial(least_likely, sign=1e3)
    other = [tuple(ids[ids >= 0].tolist()) for ids in ears.hear(audio_BN, samples_B, prefer=lasts).ids_BT]
    assert {each[-1] for each in asked} <= set(other) and len(set(whole) - set(other)) == len(set(firsts))
    ears.config = dataclasses.replace(ears.config, close=0.0)
    asked.clear()
    ears.hear(audio_BN, samples_B, prefer=least_likely)
    assert not asked  # nothing sounds exactly alike


def test_its_opinion_is_that_of_the_language_model_on_what_differs():
    model = tiny_omni()
    hearing, text = model.ear.hearing, model.codec
    pieces = [text.encode(word) for word in ("ab cd", "ab ce", "ab")]
    with torch.no_grad():
        got = hearing._opinion(model.llm, [pieces, pieces[:2]])
        opening = [*text.close_turn(), *text.open_turn("user")]
        want = []
        for ids in pieces:
            row = torch.tensor([[*opening, *ids, text.turn_end]])
            hidden = model.llm(model.llm.embedding(row), model.llm.init_state(1, row.shape[1]), torch.tensor([True]))
            log_prob = model.llm.logits(hidden)[0, :-1].log_softmax(-1).gather(1, row[0, 1:, None])
            want.append(float(log_prob[len(opening) - 1 :].sum()))
    assert got == [pytest.approx(want, rel=1e-4), pytest.approx(want[:2], rel=1e-4)]


def test_only_words_round_a_difference_are_looked_at():
    hearing = tiny_omni().ear.hearing
    long = list(range(100, 160))
    left, right = hearing._differing([[*long, 1, *long], [*long, 2, 3, *long]])
    assert left == [*long[-16:], 1, *long[: 3 + 1]] and right == [*long[-16:], 2, 3, *long[:4]]


def test_the_listener_writes_words_only_and_comes_to_an_end():
    heard = listener().hear(sounds(2.0, 3)[None], torch.tensor([32_000]))
    assert heard.counts_B[0] <= 14  # seven a second
    assert all(token < 256 and token not in PROMPT for token in heard.ids_BT[0].tolist())


@pytest.mark.parametrize("mode", ["states", "text"])
def test_a_conversation_is_the_same_alone_and_beside_others(mode):
    model = tiny_omni(mode=mode)
    alone, crowd = model.init_state(1), model.init_state(3)
    ask(model, crowd, 0, sounds(0.6, 9))
    for seed in (1, 2):  # two turns
        want = ask(model, alone, 0, sounds(1.0, seed))
        got = ask(model, crowd, 2, sounds(1.0, seed))
        assert got[:2] == want[:2] and want[1]
        torch.testing.assert_close(got[2], want[2], atol=2e-3, rtol=1e-3)


def test_an_idle_slot_keeps_every_number():
    model = tiny_omni()
    state = model.init_state(2)
    ask(model, state, 0, sounds(0.8, 1))
    before = state.save(0)
    ask(model, state, 1, sounds(0.8, 2))
    for name, tensor in state.save(0).items():
        assert torch.equal(tensor, before[name]), name


def test_saved_and_loaded_elsewhere_it_goes_on():
    model = tiny_omni()
    here, there, elsewhere = (model.init_state(2) for _ in range(3))
    ask(model, here, 0, sounds(0.8, 1))
    saved = here.save(0)
    there.load(0, saved)
    elsewhere.load(1, saved)
    want, got = ask(model, here, 0, sounds(0.7, 2)), ask(model, there, 0, sounds(0.7, 2))
    assert got[:2] == want[:2] and torch.equal(got[2], want[2])
    got = ask(model, elsewhere, 1, sounds(0.7, 2))  # another row of a matrix product may round otherwise
    assert got[:2] == want[:2]
    torch.testing.assert_close(got[2], want[2], atol=2e-3, rtol=1e-3)


def test_a_reset_slot_is_a_new_conversation():
    model = tiny_omni()
    state = model.init_state(1)
    want = ask(model, state, 0, sounds(0.8, 1))
    state.reset(torch.tensor([True]))
    got = ask(model, state, 0, sounds(0.8, 1))
    assert got[:2] == want[:2] and torch.equal(got[2], want[2])


def test_speech_does_not_depend_on_omega():
    answers = [ask(m := tiny_omni(omega=omega), m.init_state(1), 0, sounds(0.8, 1)) for omega in (1, 4, 1000)]
    for answer in answers[1:]:
        assert answer[1] == answers[0][1]
        torch.testing.assert_close(answer[2], answers[0][2], atol=2e-3, rtol=1e-3)  # rounding adds up in the phase


def test_each_slot_may_have_chunks_of_its_own_until_it_is_reset():
    model = tiny_omni(omega=3)
    least, most, own = model.omegas
    assert (least, own) == (1, 3) and most >= 50
    state = model.init_state(2)

    def steps_to_sound(slot: int) -> int:
        live_B = torch.arange(2) == slot
        model.end_turn(state, live_B)
        model.say(state, slot, "0123456789")
        return next(step for step in range(200) if int(model.speak(state, live_B).samples_B[slot]))

    model.set_omega(state, 0, most)
    assert steps_to_sound(0) > steps_to_sound(1)
    state.reset(torch.tensor([True, False]))
    assert steps_to_sound(0) == steps_to_sound(1)


def test_silence_gets_no_answer_and_leaves_no_trace_in_the_context():
    model = tiny_omni()
    state = model.init_state(1)
    heard, ids, speech = ask(model, state, 0, torch.zeros(16_000))
    assert (heard, ids, len(speech)) == ("", [], 0)
    after_silence = ask(model, state, 0, sounds(0.8, 1))
    assert after_silence[0] == ask(model, model.init_state(1), 0, sounds(0.8, 1))[0]


def test_a_long_question_is_read_in_segments():
    model = tiny_omni(longest=1.0)
    state = model.init_state(1)
    heard, _, _ = ask(model, state, 0, sounds(3.5, 4))
    assert int(state.ear.kept_B[0]) > 0 and heard


def test_old_turns_make_room_for_new_ones():
    model = tiny_omni()
    state = model.init_state(1)
    opening = state.cache.k_BLHTD
    for seed in range(12):
        heard, ids, _ = ask(model, state, 0, sounds(1.0, seed))
        assert heard and ids
        assert int(state.cache.length_B[0]) <= 400
    fresh = model.init_state(1)
    model.listen(fresh, torch.zeros(1, TICK), torch.tensor([True]))
    kept = len(model.framing.opening)
    torch.testing.assert_close(opening[0, :, :, :kept], fresh.cache.k_BLHTD[0, :, :, :kept])


def test_after_barge_in_the_unheard_words_are_forgotten():
    model = tiny_omni(omega=2)
    state, live_B = model.init_state(1), torch.tensor([True])
    for tick in sounds(0.96, 1).split(TICK):
        model.listen(state, tick[None], live_B)
    model.end_turn(state, live_B)
    begin = int(state.cache.length_B[0])
    while not model.speak(state, live_B).done_B[0]:
        pass
    written = int(state.written_B[0])
    whole = int(state.cache.length_B[0])
    assert whole == begin + written
    model.truncate(state, live_B, torch.tensor([2]))
    assert begin <= int(state.cache.length_B[0]) < whole
    assert model.speak(state, live_B).samples_B[0] == 0
    assert ask(model, state, 0, sounds(0.8, 2))[1]


@pytest.mark.parametrize("longest", [1.5, 0.7], ids=["one segment", "several"])
def test_a_turn_that_goes_on_after_its_end_is_as_if_it_had_not_ended(longest):
    model, live_B, audio_N = tiny_omni(longest=longest), torch.tensor([True]), sounds(1.28, 1)
    want_state, state = model.init_state(1), model.init_state(1)
    ask(model, want_state, 0, sounds(0.8, 2))
    ask(model, state, 0, sounds(0.8, 2))
    for number, tick in enumerate(audio_N.split(TICK)[:-1]):
        model.listen(state, tick[None], live_B)
        if number in (4, 9):
            model.end_turn(state, live_B)
            for _ in range(number):
                model.speak(state, live_B)
            model.resume(state, live_B)
    want, got = ask(model, want_state, 0, audio_N), ask(model, state, 0, audio_N.split(TICK)[-1])
    assert got[:2] == want[:2] and want[1]
    torch.testing.assert_close(got[2], want[2], atol=2e-3, rtol=1e-3)
    assert torch.equal(state.cache.length_B, want_state.cache.length_B)


def finish(model, state, slot: int = 0) -> str:
    """Speaks to the end; the text."""
    live_B, ids = torch.arange(len(state.phase_B)) == slot, []
    while not (frame := model.speak(state, live_B)).done_B[slot]:
        ids += [token for token in frame.ids_BT[slot].tolist() if token >= 0]
    return model.text(ids)


def test_a_written_question_is_answered_like_the_same_text_alone():
    model = tiny_omni()
    state, live_B = model.init_state(2), torch.tensor([False, True])
    for _ in model.write(state, 1, "user", "how are you"):
        pass
    model.end_turn(state, live_B)
    assert finish(model, state, 1) == model.answer_text("how are you") != ""


def test_history_and_instructions_that_were_written_are_the_context():
    model = tiny_omni()
    state, spoken = model.init_state(1), model.init_state(1)
    parts = (("system", "Be long. " * 20), ("user", "one"), ("assistant", "two"), ("user", "three"))
    pieces = [len(list(model.write(state, 0, role, text))) for role, text in parts]
    assert pieces[0] > 3  # a long text is read in pieces, between which others have their turn
    want = model.codec.chat([Message(role, text) for role, text in parts], answer=False)[
        : -len(model.codec.close_turn())
    ]
    hidden_BTD = model.llm(model.llm.embedding(torch.tensor([want])), cache := model.llm.init_state(1, 400), ONE)
    torch.testing.assert_close(state.hidden_BD, hidden_BTD[:, -1], atol=1e-4, rtol=1e-4)
    assert int(state.cache.length_B[0]) == int(cache.length_B[0]) == len(want)
    with pytest.raises(PartError, match="come first"):
        list(model.write(state, 0, "system", "Too late."))
    with pytest.raises(PartError, match="'robot'"):
        list(model.write(spoken, 0, "robot", "x"))


def test_other_instructions_leave_the_date_and_the_next_day_has_another():
    words, days = codec(), ["May first", "May second"]
    framing = Framing.chatml(
        words, "You are mini. Today is {date}.", note="Today is {date}.", fill=lambda text: text.format(date=days[0])
    )
    system = "Answer in {rhymes}."  # what a client writes is left as it is
    assert f"{system}\nToday is May first." in words.decode(framing.instruct(f" {system}\n"))
    assert "mini" not in words.decode(framing.instruct(system))
    del days[0]
    assert "Today is May first." in words.decode(framing.opening)
    assert "You are mini. Today is May second." in words.decode(framing.renew())
    assert f"{system}\nToday is May second." in words.decode(framing.instruct(system))
    model = tiny_omni()
    model.framing = framing
    asked = model.init_state(1)
    list(model.write(asked, 0, "user", "how are you"))
    assert int(asked.opening_B[0]) == len(framing.renew()) != len(framing.opening)


def test_given_words_are_said_and_remembered_as_an_answer():
    model = tiny_omni(longest_answer=12)
    state, other = model.init_state(1), model.init_state(1)
    for each in (state, other):
        ask(model, each, 0, sounds(0.8, 1))
    model.say(state, 0, "hello you")  # out of the blue, after an answer
    assert finish(model, state) == "hello you"
    assert int(state.units_B[0]) > 0
    for _ in model.write(other, 0, "assistant", "hello you"):
        pass
    assert torch.equal(state.cache.length_B, other.cache.length_B)
    length = int(state.cache.length_B[0])
    keys, want_keys = (each.cache.k_BLHTD[:, :, :, :length] for each in (state, other))
    torch.testing.assert_close(keys, want_keys, atol=1e-4, rtol=1e-4)
    got, want = ask(model, state, 0, sounds(0.8, 2)), ask(model, other, 0, sounds(0.8, 2))
    assert got[:2] == want[:2] and want[1]  # and its own words come again
    with pytest.raises(PartError, match="at most 12 tokens at once, got 13"):
        model.say(state, 0, "x" * 13)


def test_instructions_that_were_written_stay_when_old_turns_go():
    model = tiny_omni()
    state = model.init_state(1)
    for _ in model.write(state, 0, "system", "Speak like a pirate."):
        pass
    kept, keys = int(state.cache.length_B[0]), state.cache.k_BLHTD.clone()
    for seed in range(12):
        ask(model, state, 0, sounds(1.0, seed))
    assert torch.equal(state.cache.k_BLHTD[0, :, :, :kept], keys[0, :, :, :kept])


def test_a_question_that_is_given_up_leaves_nothing():
    model = tiny_omni(longest=0.5)
    state, fresh = model.init_state(1), model.init_state(1)
    for tick in sounds(0.96, 1).split(TICK):  # some of it is read already
        model.listen(state, tick[None], ONE)
    model.truncate(state, ONE, torch.tensor([0]))
    got, want = ask(model, state, 0, sounds(0.4, 2)), ask(model, fresh, 0, sounds(0.4, 2))
    assert got[:2] == want[:2] and torch.equal(state.cache.length_B, fresh.cache.length_B)


def test_parts_are_exchanged_only_for_parts_that_fit():
    model = tiny_omni()
    model.replace_part("adapter", ReadoutAdapter(ReadoutConfig(state_dim=16, hidden_dim=4, llm_dim=16)))
    with pytest.raises(PartError, match="llm_dim 16, got 24"):
        model.replace_part("adapter", ReadoutAdapter(ReadoutConfig(state_dim=16, hidden_dim=4, llm_dim=24)))
    with pytest.raises(PartError, match="the parts are encoder"):
        model.replace_part("ears", None)
    with pytest.raises(PartError, match="vocoder: need a module"):
        model.replace_part("vocoder", "g_00500000")


def test_a_context_that_cannot_hold_a_question_is_refused():
    model = tiny_omni(longest_answer=150)
    state, live_B = model.init_state(1), torch.tensor([True])
    with pytest.raises(ShapeError, match="do not fit into a context of 400"):
        model._make_room(state, torch.tensor([True]), 500)
    del live_B


def test_written_questions_are_answered_by_the_same_model():
    model = tiny_omni(mode="text")
    state = model.init_state(1)
    heard, ids, _ = ask(model, state, 0, sounds(0.8, 1))
    assert model.answer_text(heard.strip()) == model.text(ids).strip()


def test_an_answer_says_nothing_twice_where_that_is_asked_for():
    def twice(ids: list[int]) -> int:
        grams = [tuple(ids[i : i + 3]) for i in range(len(ids) - 2)]
        return len(grams) - len(set(grams))

    circling = tiny_omni(longest_answer=30)
    bounded = tiny_omni(longest_answer=30, once=3)
    circles, seeds = 0, range(2)
    for seed in seeds:
        _, ids, _ = ask(circling, circling.init_state(1), 0, sounds(1.0, seed))
        alone = ask(bounded, bounded.init_state(1), 0, sounds(1.0, seed))
        beside = ask(bounded, bounded.init_state(3), 1, sounds(1.0, seed))
        circles += twice(ids) > 0
        assert not twice(alone[1]) and alone[1] == beside[1]
        if not twice(ids):
            assert alone[1] == ids
    assert circles  # the test would find them
    with pytest.raises(ShapeError, match="once"):
        tiny_omni(once=1)


def test_the_cut_falls_on_the_quietest_place():
    audio = sounds(3.0, 1)
    audio[32_000:36_000] = 0
    assert 32_000 <= quietest(audio) <= 36_000
    assert SHORTEST == 3200


def test_the_size_of_embeddings_is_measured_once_for_each_table():
    first, second = torch.nn.Embedding(50, 4), torch.nn.Embedding(50, 4)
    first.weight.data *= 3
    looks = []
    first.register_forward_hook(lambda *_: looks.append(1))
    scale = EmbeddingScale()
    assert scale(first) == scale(first) == pytest.approx(float(first.weight.square().mean().sqrt()), rel=1e-5)
    assert len(looks) == 1 and scale(second) == embedding_scale(second) != scale(first)


def test_a_known_size_of_embeddings_gives_the_same_states():
    model = tiny_omni()
    hearing, embedding = model.ear.hearing, model.llm.embedding
    torch.nn.init.normal_(hearing.adapter.down.weight)
    with torch.no_grad():
        heard = hearing.speller(hearing.listener.hear(sounds(1.0, 1)[None], torch.tensor([16_000])))
        fresh = hearing.adapter(heard, embedding)
        known = hearing.adapter(heard, embedding, scale=embedding_scale(embedding))
        wrong = hearing.adapter(heard, embedding, scale=2 * embedding_scale(embedding))
    assert torch.equal(fresh, known) and not torch.allclose(fresh, wrong)
