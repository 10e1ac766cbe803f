"""Moshi under the contract of a family, and in the engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conformance import Case, check_all
from loudness import Loudness
from tiny_duplex import RAW, pieces, reference_codec, tiny_duplex
from tiny_mimi import CONFIG, speech
from tiny_moshi import reference

from duologue.engine import Engine, SessionConfig
from duologue.errors import PartError
from duologue.models.moshi.family import Moshi, PromptConfig
from duologue.models.moshi.generation import ANEW, GREEDY
from duologue.models.moshi.script import LONGEST
from duologue.streaming.events import Audio, Declined, Text

ALL = torch.ones(3, dtype=torch.bool)
PROMPT = PromptConfig(said=(1, 2, 3), heard=(4, 5, 6), pause=2)
DELAY = 2  # ticks until the first frame is complete


@pytest.fixture(autouse=True)
def plain():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def greedy() -> Moshi:
    return tiny_duplex(sampling=GREEDY, seed=0)


def talk(moshi, state, audio_BN, live_B):
    """Every tick's audio and text in one tensor."""
    steps = []
    for tick_BN in audio_BN.split(moshi.spec.input_samples, dim=1):
        moshi.listen(state, tick_BN, live_B)
        frame = moshi.speak(state, live_B)
        steps.append(torch.cat([frame.audio_BN, frame.ids_BT.float()], 1)[:, None])
    return torch.cat(steps, 1)


@pytest.mark.parametrize("options", [{"sampling": GREEDY}, {"seed": 3}])
def test_the_streaming_contract(options):
    moshi = tiny_duplex(**options)
    audio_BTN = speech(4, rows=3).unflatten(1, (4, -1))
    check_all(
        Case(
            make_state=moshi.init_state,
            call=lambda audio, state, live_B, _: talk(moshi, state, audio.flatten(1), live_B),
            inputs=audio_BTN,
            cuts=[[1, 2, 1]],
            tolerance=1e-5,
        )
    )


def test_the_whole_is_what_the_moshi_package_says(greedy):
    from moshi.models.lm import LMGen
    from moshi.utils.compile import no_compile

    ticks = 1 + CONFIG.transformer.context // CONFIG.resample  # past that its codec forgets one step too early
    mimi, model, audio_BN = reference_codec(), reference(RAW), speech(ticks)
    mimi.set_num_codebooks(3)
    generator = LMGen(model, use_sampling=False)
    mimi.streaming_forever(1)
    generator.streaming_forever(1)
    want, ids = [], []
    with no_compile():
        for number, tick in enumerate(audio_BN.split(1920, dim=1)):
            codes = mimi.encode(tick[:, None])
            if number == 0:
                mimi.reset_streaming()
            tokens = generator.step(codes)
            if tokens is not None:
                want.append(mimi.decode(tokens[:, 1:])[0, 0])
                ids.append(int(tokens[0, 0, 0]))
    said = talk(greedy, greedy.init_state(1), audio_BN, ALL[:1])[0]
    assert not said[:DELAY, :-1].any() and len(want) == ticks - DELAY
    torch.testing.assert_close(said[DELAY:, :-1], torch.stack(want), atol=1e-5, rtol=0)
    assert said[DELAY:, -1].tolist() == [token if pieces().speaks(token) else -1 for token in ids]


def test_each_conversation_draws_its_own_unless_a_seed_is_given():
    audio_BN, free, seeded = speech(4).repeat(3, 1), tiny_duplex(), tiny_duplex(seed=5)
    said = talk(free, free.init_state(3), audio_BN, ALL)
    assert not torch.equal(said[0], said[1])
    said = talk(seeded, seeded.init_state(3), audio_BN, ALL)
    assert torch.equal(said[0], said[1])
    state = seeded.init_state(3)
    seeded.choose(state, 1, seed=6)
    seeded.choose(state, 2, sampling=GREEDY)
    said = talk(seeded, state, audio_BN, ALL)
    assert not torch.equal(said[0], said[1]) and not torch.equal(said[1], said[2])


def test_what_is_heard_is_written_down_and_begins_anew_after_a_silence(monkeypatch):
    moshi = tiny_duplex(sampling=GREEDY, seed=0)
    state = moshi.init_state(2)
    assert not state.model.written_BN.numel() and moshi.heard(state, 0) == "", "this one has no head for it"

    pad = moshi.config.padding_id
    pieces_heard = [pad, 7, 8, pad, 9, *[pad] * ANEW, 10, pad, 11]
    moshi.model.hear, rows = torch.nn.Identity(), iter(pieces_heard)

    def scores(z_RD):
        piece = next(rows)
        return torch.nn.functional.one_hot(torch.tensor([piece, pad][: len(z_RD)]), 40).float()

    monkeypatch.setattr(moshi.model, "score_heard", scores)
    state, live_B, texts = moshi.init_state(2), torch.tensor([True, True]), []
    tick_BN = torch.zeros(2, moshi.spec.input_samples)
    for _ in pieces_heard:
        moshi.listen(state, tick_BN, live_B)
        moshi.speak(state, live_B)
        texts.append(moshi.heard(state, 0))
    assert texts[:5] == ["", " c", " c d", " c d", " c d e"] and texts[4 + ANEW] == " c d e"
    assert texts[5 + ANEW :] == [" f", " f", " f g"] and moshi.heard(state, 1) == ""

    rows = iter([11, pad, 11, 11, pad, pad, 11])
    for wanted in ("", "", "", "", "", "", " g"):
        moshi.listen(state, tick_BN, live_B)
        moshi.speak(state, live_B)
        assert moshi.heard(state, 0) == " f g" + wanted, "what was late is not written twice"

    state.model.written_BN[0] = 6  # full of " a"
    rows = iter([12, 13])
    for wanted in (" h", " h i"):
        moshi.listen(state, tick_BN, torch.tensor([True, False]))
        moshi.speak(state, torch.tensor([True, False]))
        assert moshi.heard(state, 0) == wanted
    state.reset(torch.tensor([True, False]))
    assert moshi.heard(state, 0) == ""


def test_speak_without_a_new_frame_says_nothing(greedy):
    state = greedy.init_state(3)
    talk(greedy, state, speech(4, rows=3), ALL)
    before = state.save(0)
    assert not greedy.speak(state, ALL).samples_B.any()
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.save(0).items())


def test_instructions_change_what_is_said_in_their_slot_alone():
    moshi = tiny_duplex(sampling=GREEDY, prompt=PROMPT)
    audio_BN, state = speech(6, rows=3), moshi.init_state(3)
    pieces_of_work = sum(1 for _ in moshi.write(state, 1, "system", "be kind"))
    assert pieces_of_work == len("<system> be kind <system>") + 4
    said, plain = talk(moshi, state, audio_BN, ALL), talk(moshi, moshi.init_state(3), audio_BN, ALL)
    for slot in (0, 2):  # alone in its step or not: sums may round otherwise
        torch.testing.assert_close(said[slot], plain[slot], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(said[1], plain[1], atol=1e-2)


@pytest.mark.parametrize(
    ("prompt", "role", "text", "message"),
    [
        (None, "system", "be kind", "no text"),
        (PROMPT, "user", "hello", "instructions alone"),
        (PROMPT, "system", "x" * 100, "longer than"),
    ],
)
def test_other_texts_are_refused(prompt, role, text, message):
    moshi = tiny_duplex(prompt=prompt)
    state = moshi.init_state(1)
    with pytest.raises(PartError, match=message):
        list(moshi.write(state, 0, role, text))
    assert not any(tensor.any() for _, tensor in state.tensors())


def test_instructions_come_before_the_first_tick():
    moshi = tiny_duplex(prompt=PROMPT)
    state = moshi.init_state(1)
    list(moshi.write(state, 0, "system", "a"))
    talk(moshi, state, speech(1), ALL[:1])
    with pytest.raises(PartError, match="before the first tick"):
        list(moshi.write(state, 0, "system", "a"))


def test_parts_of_other_shapes_are_refused():
    with pytest.raises(PartError, match="codes"):
        tiny_duplex({**RAW, "card": 20})
    with pytest.raises(PartError, match="prompt"):
        tiny_duplex(prompt=PromptConfig())


class Driver:
    """An engine whose thread is the test, and whose clock is set by hand."""

    def __init__(self, moshi: Moshi, slots: int):
        self.time = 100.0
        self.engine = Engine(moshi, slots=slots, voice=Loudness(), clock=lambda: self.time)

    def open(self):
        events = []
        session = self.engine.open(events.append, SessionConfig())
        self.run()
        return session, events

    def run(self):
        self.engine._take_posts(wait=None)
        while self.engine.step():
            pass

    def ticks(self, count, *talking):
        """`talking`: sessions and their audio, a tick handed in before each tick."""
        for number in range(count):
            for session, audio_N in talking:
                session.listen(audio_N[number * 1920 : (number + 1) * 1920])
            for _ in range(8):
                self.time += 0.01
                self.run()


def said(events) -> np.ndarray:
    return np.concatenate([event.samples for event in events if isinstance(event, Audio)])


def test_the_engine_gives_audio_at_every_tick_to_conversations_that_began_at_any_time():
    driver, audio_BN = Driver(tiny_duplex(sampling=GREEDY), 3), speech(8, rows=3).numpy()
    (first, one), begun = driver.open(), 3
    driver.ticks(begun, (first, audio_BN[0]))
    second, two = driver.open()
    driver.ticks(5, (first, audio_BN[0, begun * 1920 :]), (second, audio_BN[1]))
    assert len(said(one)) == 8 * 1920 and len(said(two)) == 5 * 1920
    for events in (one, two):
        assert not said(events)[: DELAY * 1920].any() and np.abs(said(events)[DELAY * 1920 :]).max() > 1e-3
    assert any(isinstance(event, Text) for event in one)
    assert not [event for event in one + two if not isinstance(event, Audio | Text)]


def test_a_place_in_the_engine_is_as_new_for_the_next_conversation():
    driver, audio_N = Driver(tiny_duplex(sampling=GREEDY), 1), speech(6).numpy()[0]
    heard = []
    for _ in range(2):
        session, events = driver.open()
        driver.ticks(6, (session, audio_N))
        heard.append(said(events))
        session.close()
        driver.run()
    np.testing.assert_array_equal(*heard)


def test_what_it_cannot_do_does_not_end_the_conversation():
    driver = Driver(tiny_duplex(sampling=GREEDY), 1)
    session, events = driver.open()
    session.say("hello " * LONGEST)
    session.write("user", "hello")
    session.stop()
    session.end_turn()
    driver.ticks(3)
    assert len([event for event in events if isinstance(event, Declined)]) == 2
    assert len(said(events)) >= 2 * 1920 and not session.closed


def test_a_given_text_is_said_in_the_engine():
    moshi = tiny_duplex(seed=1)
    driver = Driver(moshi, 2)
    (session, events), (_, others) = driver.open(), driver.open()
    driver.ticks(2)
    session.say("be kind")
    driver.ticks(60)
    want = moshi.text(moshi.pieces.encode("be kind"))
    text = "".join(event.text for event in events if isinstance(event, Text))
    assert want in text and not any(isinstance(event, Declined) for event in events)
    assert want not in "".join(event.text for event in others if isinstance(event, Text))


def test_instructions_are_read_before_the_first_tick_in_the_engine_too():
    moshi, audio_BN = tiny_duplex(sampling=GREEDY, prompt=PROMPT), speech(6)
    driver, state = Driver(moshi, 2), moshi.init_state(1)
    list(moshi.write(state, 0, "system", "be kind"))
    driver.open()
    driver.ticks(1)
    session, events = driver.open()
    session.write("system", "be kind")
    driver.run()
    driver.ticks(6, (session, audio_BN[0].numpy()))
    want_BTN = talk(moshi, state, audio_BN, ALL[:1])[:, :, :-1]
    np.testing.assert_allclose(said(events), want_BTN.flatten().numpy(), atol=1e-5)
    session.write("system", "be unkind")
    driver.ticks(1)
    assert [event for event in events if isinstance(event, Declined)]
