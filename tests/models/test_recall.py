"""What users have said of themselves comes back when they ask about it, however long ago they said it."""

from __future__ import annotations

import pytest
import torch
from tiny_omni import TICK, codec, sounds, tiny_omni

from duologue.models.llama_omni.recall import LINES, TOKENS, asked, init_recall, note, recall, statements

ONE = torch.tensor([True])


@pytest.fixture(autouse=True)
def no_grad():
    with torch.inference_mode():
        yield


def write(model, state, slot, *parts):
    """Written turns, one after another. Gives the pieces of work that each took."""
    return [len(list(model.write(state, slot, role, text))) for role, text in parts]


class Heard:
    """Understands what it is told, whatever the microphone hears."""

    def __init__(self, model):
        self.model, self.text = model, ""
        model.heard = lambda state, slot: self.text

    def hear(self, state, slot, text, *, seed=1):
        """The user's part of a turn."""
        live_B = torch.arange(len(state.phase_B)) == slot
        for number, tick in enumerate(sounds(0.64, seed).split(TICK)):
            self.model.listen(state, tick.expand(len(live_B), -1), live_B)
            if number == 0:  # the turn before is over
                self.text = text
        return live_B

    def turn(self, state, slot, text, *, seed=1):
        live_B = self.hear(state, slot, text, seed=seed)
        self.model.end_turn(state, live_B)
        while not bool(self.model.speak(state, live_B).done_B[slot]):
            pass


@pytest.mark.parametrize(
    "text,kept",
    [
        ("Hi there! My name is Anna.", ["My name is Anna."]),
        ("I'm allergic to nuts, and what can I eat?", []),
        ("I live in Lisbon. Is it warm there? My dog hates it", ["I live in Lisbon.", "My dog hates it."]),
        ("Remember that the code is four four two.", ["Remember that the code is four four two."]),
        ("Tell me about my stars.", []),
        ("The sky is blue.", []),
        ("I am. So am I.", []),
    ],
)
def test_statements_of_the_user_are_kept_and_nothing_else(text, kept):
    assert statements(text) == kept


@pytest.mark.parametrize(
    "question,line",
    [
        ("What is my name?", "My name is Anna. "),
        ("Okay, tell me, what's my dog called?", "My dog is called Biscuit. "),
        ("where am i from", "I come from Norway. "),
        ("What is the code I told you?", "Remember that the code is four four two. "),
        ("What is my job?", "I work as a nurse. "),
        ("What is a name?", ""),  # of nothing that is theirs
        ("How do I stop my puppy from chewing my shoes?", ""),
        ("How do I introduce a new kitten to my dog?", ""),  # mostly of something else
        ("My name is what it is.", ""),
        ("", ""),
    ],
)
def test_a_question_brings_back_the_line_that_answers_it(question, line, monkeypatch):
    monkeypatch.setattr("duologue.models.llama_omni.recall.TOKENS", 60)
    state, words = init_recall(2), codec()
    state.ids_BLT = torch.zeros(2, LINES, 60, dtype=torch.int64)
    for told in ("My name is Anna. I come from Norway.", "My dog is called Biscuit.", "I work as a nurse."):
        note(state, 1, told, words)
    note(state, 1, "Remember that the code is four four two.", words)
    assert words.decode(recall(state, 1, question, words)) == line
    assert recall(state, 0, question, words) == []


def test_the_newest_counts_and_there_is_a_bound():
    state, words = init_recall(1), codec()
    shape = state.ids_BLT.shape
    for number in range(3 * LINES):
        note(state, 0, f"I own {number} boats and houses and horses and cars.", words)
    kept = recall(state, 0, "How many boats do I own?", words)
    assert words.decode(kept) == f"I own {3 * LINES - 1} boats and houses and"[:TOKENS] and len(kept) == TOKENS
    assert state.ids_BLT.shape == shape and bool((state.ids_BLT > 0).any(2).all())


def test_a_written_question_is_read_with_what_was_said_long_ago():
    model = tiny_omni()
    state, other = model.init_state(2), model.init_state(1)
    small_talk = [part for n in range(20) for part in (("user", f"the number {n} is odd"), ("assistant", "indeed"))]
    write(model, state, 1, ("user", "My name is Anna."), ("assistant", "hello"), *small_talk)
    assert int(state.cache.length_B[1]) <= 400 < 20 * len("the number is odd indeed")  # the first turns are gone
    other.load(0, state.save(1))
    other.told.reset(ONE)
    pieces = write(model, state, 1, ("user", "What is my name?"))
    assert pieces == write(model, other, 0, ("user", "My name is Anna. What is my name?")) == [2]  # short ones
    assert torch.equal(state.cache.length_B[1:], other.cache.length_B)
    torch.testing.assert_close(state.hidden_BD[1:], other.hidden_BD, atol=1e-3, rtol=1e-3)


def test_a_heard_question_is_read_with_what_was_heard_before():
    model = tiny_omni()
    mouth, state, other = Heard(model), model.init_state(3), model.init_state(1)
    mouth.turn(state, 0, "My name is Bob.")
    mouth.turn(state, 2, "My name is Anna.")
    mouth.turn(state, 2, "The sky is blue.")
    other.load(0, state.save(2))
    other.told.reset(ONE)  # has the same past, and kept nothing of it
    ends = []
    for each, slot in ((state, 2), (other, 0)):
        live_B = mouth.hear(each, slot, "What is my name?", seed=3)
        model.end_turn(each, live_B)
        ends.append((int(each.cache.length_B[slot]), each.hidden_BD[slot].clone()))
        model.resume(each, live_B)  # the turn was not over
    assert ends[0][0] == ends[1][0] + len(model.codec.encode("My name is Anna. "))
    assert not torch.allclose(ends[0][1], ends[1][1])
    assert int(state.cache.length_B[2]) == int(other.cache.length_B[0])
    for each, slot in ((state, 2), (other, 0)):  # what asks of nothing is read as it is
        live_B = mouth.hear(each, slot, "What is the sky?", seed=3)
        model.end_turn(each, live_B)
    assert int(state.cache.length_B[2]) == int(other.cache.length_B[0])
    torch.testing.assert_close(state.hidden_BD[2], other.hidden_BD[0], atol=1e-3, rtol=1e-3)


def test_a_statement_that_was_given_up_is_not_kept_and_a_reset_forgets_all():
    model = tiny_omni()
    mouth, state = Heard(model), model.init_state(1)
    mouth.hear(state, 0, "My name is Anna.")
    model.truncate(state, ONE, torch.tensor([0]))
    mouth.turn(state, 0, "The sky is blue.")
    mouth.turn(state, 0, "My name is Anna.")
    assert not bool(state.told.ids_BLT.any())
    mouth.turn(state, 0, "The sky is blue.")
    assert bool(state.told.ids_BLT.any())
    state.reset(ONE)
    assert not bool(state.told.ids_BLT.any())


def test_a_model_that_finds_things_by_itself_keeps_no_lines():
    model = tiny_omni(recall=False)
    state = model.init_state(1)
    write(model, state, 0, ("user", "My name is Anna."), ("assistant", "hello"))
    length = int(state.cache.length_B[0])
    write(model, state, 0, ("user", "What is my name?"))
    question = len(model.framing.next_turn) + len(model.codec.encode("What is my name?"))
    assert int(state.cache.length_B[0]) == length + question and not bool(state.told.ids_BLT.any())


def test_words_that_ask_of_nothing_ask_of_nothing():
    assert not asked("Can you help me?") and not asked("What can I do for you?") and asked("What did I eat?")
