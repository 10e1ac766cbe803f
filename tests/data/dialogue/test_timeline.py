"""When each side speaks: what is drawn is what comes out, and nobody speaks over themselves."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from fake_speakers import ASSISTANT as HUM
from fake_speakers import USERS, hums

from duologue.data.dialogue.clips import Clips
from duologue.data.dialogue.config import Distribution, TimingConfig
from duologue.data.dialogue.texts import ASSISTANT, USER, Line, Phrases, Script
from duologue.data.dialogue.timeline import APART, BACKCHANNEL, TURN, lay_out
from duologue.data.prompts import Prompts
from duologue.errors import ConfigError

LONG = "Once upon a time, there was a very small horse that lived in a house. It was green, and it never slept."
SCRIPT = Script(
    id="s",
    split="train",
    source="x",
    lines=(Line(USER, LONG), Line(ASSISTANT, LONG), Line(USER, "Go on, please."), Line(ASSISTANT, LONG)) * 2,
)
PHRASES = Phrases.read(Prompts())
NEVER = {
    "user_pause_chance": 0.0,
    "user_hesitation_chance": 0.0,
    "assistant_pause_chance": 0.0,
    "user_backchannels": 0.0,
    "assistant_backchannels": 0.0,
    "interruption_chance": 0.0,
}
CALM = TimingConfig(**NEVER)


def exactly(value: float) -> Distribution:
    return Distribution(low=value, high=value)


@pytest.fixture(scope="module")
def laid_out():
    clips = Clips(speakers=hums())

    def lay(timing, seed=0, script=SCRIPT):
        def say(role, text):
            return clips.get(HUM if role == ASSISTANT else USERS[0], text, 0)

        return lay_out(script, say, timing=timing, phrases=PHRASES, rng=np.random.default_rng(seed))

    return lay


def test_turns_follow_each_other_at_the_gaps_that_were_drawn(laid_out):
    timing = replace(CALM, lead=exactly(0.5), tail=exactly(1.5), assistant_gap=exactly(0.3), user_gap=exactly(-0.4))
    line = laid_out(timing)
    assert [each.text for each in line.utterances] == [each.text for each in SCRIPT.lines]
    gaps = [b.start - a.end for a, b in pairwise(line.utterances)]
    np.testing.assert_allclose(gaps, [0.3, -0.4, 0.3, -0.4, 0.3, -0.4, 0.3][: len(gaps)], atol=1e-6)
    assert line.utterances[0].start == 0.5 and line.seconds == pytest.approx(line.utterances[-1].end + 1.5)
    assert [each.gap for each in line.utterances[1:]] == pytest.approx([each.gap_drawn for each in line.utterances[1:]])


def test_a_side_that_goes_on_does_so_after_its_own_gap(laid_out):
    timing = replace(CALM, goes_on=exactly(0.7), assistant_gap=exactly(0.3), user_gap=exactly(0.2))
    lines = (Line(USER, "It was green."), Line(USER, "Go on, please."), Line(ASSISTANT, LONG), Line(ASSISTANT, LONG))
    line = laid_out(timing, script=replace(SCRIPT, lines=lines))
    assert [each.gap for each in line.utterances[1:]] == pytest.approx([0.7, 0.3, 0.7])


def test_the_assistant_begins_on_its_grid_and_the_user_anywhere(laid_out):
    timing = TimingConfig(assistant_grid=0.08, assistant_backchannels=60.0, assistant_gap=exactly(0.3))
    line = laid_out(timing)
    own = [each for each in line.utterances if each.role == ASSISTANT]
    assert {each.kind for each in own} == {TURN, BACKCHANNEL}
    for each in own:
        assert each.start / 0.08 == pytest.approx(round(each.start / 0.08), abs=1e-6)
    assert all(0.3 - 1e-6 <= each.gap < 0.38 for each in own if each.kind == TURN)
    assert all(each.words[0].start >= each.start for each in own)
    assert any(abs(each.start / 0.08 - round(each.start / 0.08)) > 0.01 for each in line.utterances)
    with pytest.raises(ConfigError, match="grid"):
        TimingConfig(assistant_grid=-0.1)


def test_words_stand_where_their_utterance_does(laid_out):
    for each, clip in zip(*(lambda line: (line.utterances, line.clips))(laid_out(CALM)), strict=True):
        assert each.text == clip.text == " ".join(word.text for word in each.words)
        assert each.start <= each.words[0].start and each.words[-1].end <= each.end + 1e-9
        assert each.end - each.start == pytest.approx(clip.seconds)


def test_an_answer_does_not_begin_before_half_of_the_turn_is_over(laid_out):
    line = laid_out(replace(CALM, assistant_gap=exactly(-30.0), user_gap=exactly(-30.0)))
    for before, each in pairwise(line.utterances):
        assert each.start >= before.start + 0.5 * (before.end - before.start) - 1e-9
        assert each.gap > each.gap_drawn == -30


def test_pauses_last_as_long_as_was_drawn(laid_out):
    timing = replace(CALM, user_pause_chance=1.0, user_pause=exactly(0.7), assistant_pause_chance=1.0)
    for each in laid_out(replace(timing, assistant_pause=exactly(0.4))).utterances:
        commas = sum(word.text.endswith((",", ".")) for word in each.words[:-1])
        silences = [b.start - a.end for a, b in pairwise(each.words) if a.text.endswith((",", "."))]
        wanted = 0.7 if each.role == USER else 0.4
        np.testing.assert_allclose(silences, [wanted] * commas, atol=1e-3)
        assert each.pauses == pytest.approx([wanted] * commas, abs=1e-3) and each.pauses_drawn == [wanted] * commas


def test_only_users_hesitate_between_any_two_words(laid_out):
    timing = replace(CALM, user_hesitation_chance=1.0, user_pause=exactly(0.5))
    for each in laid_out(timing).utterances:
        assert bool(each.pauses) == (each.role == USER)


def test_an_interrupted_assistant_stops_at_a_word_within_the_delay(laid_out):
    timing = replace(CALM, interruption_chance=1.0, stop_delay=Distribution(low=0.2, high=0.6))
    seen = 0
    for seed in range(8):
        line = laid_out(timing, seed)
        for before, each in pairwise(line.utterances):
            assert each.interrupts == (before.stop is not None)
            if each.interrupts:
                seen += 1
                spoken = [word for word in before.words if word.start <= each.start]
                assert spoken[-1].end >= each.start  # it begins while a word is being said
                assert before.role == ASSISTANT and before.start < each.start < before.end
                assert LONG.startswith(before.text) and before.text != LONG
                assert before.stop == pytest.approx(before.end - each.start, abs=1e-5)
                late = before.words[-1] is spoken[-1]  # the word that was being said is always said to its end
                assert late or before.stop <= before.stop_drawn + 0.031
                assert each.text.endswith("Go on, please.") or each.text.endswith(LONG)
        assert line.utterances[-1].stop is None  # nobody has anything to say after it
    assert seen > 10


def test_short_turns_are_not_interrupted(laid_out):
    script = replace(SCRIPT, lines=(Line(ASSISTANT, "Yes, it is."), Line(USER, "Good.")))
    timing = replace(CALM, interruption_chance=1.0)
    assert not any(each.interrupts for seed in range(5) for each in laid_out(timing, seed, script).utterances)


def test_backchannels_come_at_their_rate_where_there_is_room(laid_out):
    timing = replace(CALM, user_backchannels=12.0, assistant_backchannels=6.0)
    counts, room = {USER: 0, ASSISTANT: 0}, {USER: 0.0, ASSISTANT: 0.0}
    for seed in range(150):
        line = laid_out(timing, seed)
        for role in counts:
            counts[role] += sum(each.kind == BACKCHANNEL and each.role == role for each in line.utterances)
            room[role] += line.room[role]
    for role, rate in ((USER, 12.0), (ASSISTANT, 6.0)):
        expected = rate * room[role] / 60
        assert expected > 80 and abs(counts[role] - expected) < 4 * np.sqrt(expected)


def test_a_backchannel_is_inside_the_others_turn_and_nothing_else(laid_out):
    timing = replace(CALM, user_backchannels=20.0, assistant_backchannels=20.0, backchannel_margin=0.8)
    line = laid_out(timing, 3)
    turns = [each for each in line.utterances if each.kind == TURN]
    murmurs = [each for each in line.utterances if each.kind == BACKCHANNEL]
    assert len(turns) == len(SCRIPT.lines) and len(murmurs) > 3
    for each in murmurs:
        (host,) = [turn for turn in turns if turn.role != each.role and turn.start < each.start < turn.end]
        assert host.start + 0.7 < each.start and each.end < host.end - 0.7
        assert each.text in (PHRASES.user_backchannels if each.role == USER else PHRASES.assistant_backchannels)


def test_nobody_speaks_over_themselves(laid_out):
    wild = TimingConfig(
        user_gap=Distribution(low=-3.0, high=1.0),
        assistant_gap=Distribution(low=-3.0, high=1.0),
        user_backchannels=30.0,
        assistant_backchannels=30.0,
        interruption_chance=0.7,
    )
    for seed in range(20):
        for role in (USER, ASSISTANT):
            own = [each for each in laid_out(wild, seed).utterances if each.role == role]
            assert all(b.start >= a.end + APART - 1e-9 for a, b in pairwise(own))


def test_the_same_seed_gives_the_same_timing(laid_out):
    assert laid_out(TimingConfig(), 5).utterances == laid_out(TimingConfig(), 5).utterances
    assert laid_out(TimingConfig(), 5).utterances != laid_out(TimingConfig(), 6).utterances


def test_distributions_keep_their_limits_and_their_middle():
    rng = np.random.default_rng(0)
    for kind in ("normal", "lognormal"):
        one = Distribution(kind=kind, low=-0.5, high=3.0, middle=0.4, width=0.3)
        values = [one.draw(rng) for _ in range(2000)]
        assert min(values) >= -0.5 and max(values) <= 3.0 and np.median(values) == pytest.approx(0.4, abs=0.03)
    for wrong in ({"kind": "beta"}, {"low": 5.0}, {"kind": "normal", "middle": 7.0, "width": 1.0}):
        with pytest.raises(ConfigError, match="Distribution"):
            Distribution(**{"low": 0.0, "high": 1.0, **wrong})
    for wrong in ({"user_pause_chance": 2.0}, {"user_backchannels": -1.0}, {"tail": exactly(-1.0)}):
        with pytest.raises(ConfigError, match="TimingConfig"):
            TimingConfig(**wrong)
