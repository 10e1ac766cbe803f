"""Cases are the same for the same seed, and what is marked in them is there."""

import json
from dataclasses import replace

import numpy as np
import pytest
from eval.helpers import QUESTIONS, Buzz

from duologue.data.dialogue.clips import RATE, Clip
from duologue.data.word_times import Word
from duologue.errors import DataError
from duologue.eval.duplex_cases import KINDS, LEAD, PAUSE, TELLING, TURN, expected_signs, make_cases
from duologue.eval.duplex_dialogues import make_dialogues

SPEAKERS = [Buzz("one"), Buzz("two")]


def made(folder, kind, count=3, **options):
    return make_cases(kind, count, speakers=SPEAKERS, questions=QUESTIONS, cache=folder, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_cases_and_they_are_kept(tmp_path, kind):
    first, again = made(tmp_path / "a", kind), made(tmp_path / "b", kind)
    for one, other in zip(first, again, strict=True):
        assert replace(one, path=other.path) == other
        assert one.path.read_bytes() == other.path.read_bytes()
    assert made(tmp_path / "a", kind) == first
    assert made(tmp_path / "a", kind, seed=1) != first
    assert {case.voice for case in first} == {"one", "two"}
    audio, rate = first[0].sound()
    assert rate == RATE and len(audio) / rate == pytest.approx(first[0].seconds) and first[0].end < first[0].seconds


def test_pauses_are_silent_and_inside_what_is_said(tmp_path):
    for number, case in enumerate(made(tmp_path, PAUSE)):
        assert len(case.marked) == 1 + number % 2 and len(case.said) == len(case.marked) + 1
        audio, rate = case.sound()
        for start, end in case.marked:
            assert 0.6 <= end - start <= 2.0
            assert np.abs(audio[round((start + 0.05) * rate) : round((end - 0.05) * rate)]).max() < 0.01
        for _, start, end in case.said:
            assert np.abs(audio[round(start * rate) : round(end * rate)]).max() > 0.02


def test_the_end_of_a_turn_is_marked(tmp_path):
    case = made(tmp_path, TURN)[0]
    assert case.marked == ((case.end, case.end),) and case.said[0][2] == case.end


def test_the_reference_of_backchannels_follows_the_words(tmp_path):
    words = tuple(Word(f"word{n}", float(n), n + 0.5) for n in range(10))
    told = Clip(np.zeros(10 * RATE, np.float32), words)
    shares = expected_signs(told, seconds=LEAD + 10.0, seed=0)
    assert sum(shares) == pytest.approx(1.0) and len(shares) == 53
    assert sum(shares[: round(LEAD / 0.2)]) < 1e-6 and sum(shares[-2:]) < 1e-6
    early = sum(share for n, share in enumerate(shares) if (n * 0.2 - LEAD) % 1 < 0.4)
    assert early < 0.4 * sum(shares), "signs come behind words, not at their beginnings"
    assert made(tmp_path, TELLING)[0].expected == made(tmp_path, TELLING)[0].expected != ()


def test_conversations_have_two_channels_and_the_assistants_words(tmp_path):
    rows = [{"question": f"What is the number {n} good for, please?", "answer": "It is good."} for n in range(150)]
    (tmp_path / "spoken_qa.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    options = {"speakers": SPEAKERS, "data": tmp_path, "cache": tmp_path / "cache", "assistant": Buzz("assistant")}
    first = make_dialogues(2, **options)
    assert make_dialogues(2, **options) == first
    for case in first:
        assert case.other is not None and case.other.is_file() and case.words and case.said
        assert 0 < case.end <= case.seconds


def test_what_is_missing_is_told(tmp_path):
    with pytest.raises(DataError, match="there are: pause, backchannel, turn, interruption"):
        made(tmp_path, "song")
    with pytest.raises(DataError, match="at least one question"):
        make_cases(TURN, 1, speakers=SPEAKERS, questions=[], cache=tmp_path)
    with pytest.raises(DataError, match=r"need one of spoken_qa\.jsonl"):
        make_dialogues(1, speakers=SPEAKERS, data=tmp_path, cache=tmp_path)
