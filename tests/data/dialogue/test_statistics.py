"""Made conversations whose measures are what their recipe states."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from fake_speakers import hums, recipe

from duologue.data.dialogue import Conversation, DialogueSource, make_dialogues, read_conversations
from duologue.data.dialogue.manifest import encode_stereo
from duologue.data.dialogue.statistics import Drawn, check_sound, speech_spans, statistics
from duologue.data.word_times import Word
from duologue.eval.dialogue_page import write_dialogue_page


def test_words_close_together_are_one_stretch_of_speech():
    words = [Word("b", 1.1, 1.5), Word("a", 0.0, 1.0), Word("c", 1.75, 2.0), Word("inside", 0.2, 0.3)]
    assert speech_spans(words) == [(0.0, 1.5), (1.75, 2.0)]


def test_the_distance_is_small_for_the_same_distribution_and_large_for_another():
    rng = np.random.default_rng(0)
    stated = list(rng.normal(size=5000))
    same, other = (Drawn("x", stated, list(rng.normal(mean, size=400))) for mean in (0.0, 1.0))
    assert same.distance < same.expected < 0.3 < other.distance
    assert np.isnan(Drawn("x", stated).distance)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    rows = [
        {"question": f"What is number {'a' * n}, my friend?", "answer": f"It is the {'long ' * 9} {'b' * n}."}
        for n in range(3, 15)
    ]
    (folder / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = DialogueSource(path=str(folder / "q.jsonl"), name="q", licence="CC0", kind="pairs")
    config = recipe([source], conversations=24)
    config = dataclasses.replace(config, timing=dataclasses.replace(config.timing, interruption_chance=0.3))
    make_dialogues(config, folder / "out", progress=False, speakers=hums())
    return config, folder / "out"


def test_what_was_drawn_is_what_came_out(made):
    config, folder = made
    found = statistics(read_conversations(folder), config.timing)
    by_name = {each.name: each for each in found.drawn}
    for name in ("assistant_gap", "user_gap", "user_pause", "stop_delay"):
        each = by_name[name]
        assert len(each.drawn) > 12 and each.distance < 1.2 * each.expected, name
        if name != "stop_delay":  # of which the end of the word takes some
            assert np.quantile(np.abs(np.subtract(each.drawn, each.made)), 0.9) < 0.02, name
    share = found.interruptions / found.interruptible
    assert share == pytest.approx(0.3, abs=0.2)


def test_words_are_where_the_sound_is(made):
    check = check_sound(list(read_conversations(made[1]))[:10])
    assert check.silent_within < 0.01 * check.frames and check.sound_outside == 0
    assert len(check.starts) > 20 and np.abs(check.starts).max() < 0.03


def test_the_check_notices_words_that_are_elsewhere():
    audio = np.zeros((2, 48_000), np.float32)
    audio[0, 24_000:36_000] = 0.1
    row = Conversation(id="x", audio=encode_stereo(audio), words='[["a", 0.1, 0.6, "assistant"]]')
    check = check_sound([row])
    assert check.silent_within == 50 and check.sound_outside == 50 and check.starts == [pytest.approx(-0.9)]


def test_the_page_shows_the_tables_and_the_timelines(made):
    page = write_dialogue_page(made[1]).read_text()
    assert page.count("<svg") == 5 and "assistant gap" in page and "24 conversations" in page
