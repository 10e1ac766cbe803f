"""A user on a full-duplex line: what families do whose behaviour is known comes out as it is."""

import numpy as np
import pytest
from eval.duplex_helpers import RATE, Scripted, user
from fakes import EchoConfig, EchoModel, Tone
from loudness import Loudness

from duologue.errors import DataError
from duologue.eval.duplex_cases import INTERRUPTION, PAUSE, TELLING, TURN
from duologue.eval.duplex_driver import Line, played, speech, wrote
from duologue.eval.duplex_observed import observe
from duologue.streaming.events import Audio, Heard, Interrupted, Paused, Resumed


def line(model):
    return Line(model, voice=Loudness())


def talkative(audio, rate):
    return "these are more than three words"


def grunts(audio, rate):
    return "mm-hm"


ASKED = {"spoken": [(0.48, 1.52)], "seconds": 5.2, "marked": ((1.52, 1.52),)}


def test_an_answer_after_four_tenths_of_a_second_has_that_latency(tmp_path):
    case = user(tmp_path, TURN, **ASKED)
    found = observe(case, line(Scripted(after=5, ticks=20)).run(case), talkative)
    assert found["over"] is True and found["latency"] == pytest.approx(0.4)
    assert found["own"] == [[1.92, 3.52]] and found["texts"][0] == [1.92, "a"] and len(found["texts"]) == 20


def test_a_family_that_says_nothing_takes_no_turn(tmp_path):
    case = user(tmp_path, TURN, **ASKED)
    found = observe(case, line(Scripted(ticks=0)).run(case), talkative)
    assert found["over"] is False and found["latency"] is None and found["own"] == [] and "answer" not in found


def test_a_pause_is_taken_by_who_waits_less(tmp_path):
    case = user(tmp_path, PAUSE, [(0.48, 1.52), (2.48, 3.52)], seconds=4.0, marked=((1.52, 2.48),))
    assert observe(case, line(Scripted(after=5)).run(case), talkative)["over"] is True
    assert observe(case, line(Scripted(after=13)).run(case), talkative)["over"] is False


def test_an_interruption_stops_and_is_answered(tmp_path):
    case = user(tmp_path, INTERRUPTION, [(0.48, 1.52), (3.04, 4.08)], seconds=9.0, marked=((3.04, 4.08),))
    found = observe(case, line(Scripted(after=5, ticks=25, slow=4)).run(case), talkative)
    assert found["own"][0] == [1.92, pytest.approx(3.36, abs=0.1)]
    assert found["speaking"] is True and found["stop"] == pytest.approx(0.32, abs=0.1)
    assert found["over"] is True and found["latency"] == pytest.approx(0.4, abs=0.033)


def test_short_sounds_while_the_user_tells_something_are_backchannels(tmp_path):
    told = [(0.48, 2.48), (3.52, 5.52), (6.56, 8.0)]  # a third sound comes when it is over
    case = user(tmp_path, TELLING, told, seconds=9.6, expected=tuple([0.0] * 14 + [1.0] * 2 + [0.0] * 25))
    take = line(Scripted(after=3, ticks=5)).run(case)
    found = observe(case, take, grunts)
    assert not found["over"] and len(found["signs"]) == 2 and found["a_minute"] == pytest.approx(60 * 2 / 8)
    assert len(found["own"]) == 3 and 0 < found["jsd"] < 1
    silent = observe(case, line(Scripted(ticks=0)).run(case), grunts)
    assert silent["jsd"] == silent["jsd_published"] == 1.0 and silent["a_minute"] == 0.0


def test_the_same_comes_out_again_whatever_was_before(tmp_path):
    cases = [user(tmp_path, TURN, name=str(end), **{**ASKED, "spoken": [(0.5, end)]}) for end in (1.33, 1.71)]
    one, other = line(Scripted()), line(Scripted())
    other.run(cases[1])
    first, again = one.run(cases[0]), other.run(cases[0])
    np.testing.assert_array_equal(first.own, again.own)
    assert (first.spans, first.texts) == (again.spans, again.texts)


def test_a_turn_family_answers_on_the_same_line(tmp_path):
    case = user(tmp_path, TURN, **ASKED)
    model = EchoModel(EchoConfig(audio_ticks=20), vocoder=Tone())
    found = observe(case, line(model).run(case), talkative)
    assert found["over"] is True and 0.55 < found["latency"] < 0.9  # the engine waits 0.6 s
    assert found["heard"] == [found["heard"][0]] and "sound for" in found["heard"][0]


def test_real_time_is_the_same_line_on_the_clock_of_the_wall(tmp_path):
    case = user(tmp_path, TURN, [(0.08, 0.4)], seconds=1.2)
    live = Line(Scripted(after=2, ticks=4), voice=Loudness(), real_time=True)
    try:
        takes = [live.run(case) for _ in range(2)]
    finally:
        live.close()
    assert all(np.abs(take.own).max() > 0.1 and take.spans[0][0] > 0.4 for take in takes)


def test_a_conversation_that_fails_is_told_by_name(tmp_path):
    class Broken(Scripted):
        def speak(self, state, live_B):
            raise DataError("no voice today")

    with pytest.raises(DataError, match=r"case: the conversation failed: .*no voice today"):
        case = user(tmp_path, TURN, **ASKED)
        line(Broken()).run(case)


def test_a_loudspeaker_stands_goes_on_and_is_emptied():
    ramp = np.arange(1, 11, dtype=np.float32)
    events = [(1.0, Audio(ramp)), (1.3, Paused(0.3)), (1.5, Resumed()), (1.8, Interrupted(0.6)), (1.9, Audio(ramp))]
    out = played(events, 10, seconds=2.5)
    assert out.tolist() == [0] * 10 + [1, 2, 3, 0, 0, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6]
    assert played([], 10, seconds=0.5).tolist() == [0] * 5


def test_speech_has_units_and_short_sounds_are_none():
    audio = np.zeros(RATE * 3, np.float32)
    for start, end in ((0.32, 0.64), (0.8, 1.28), (2.56, 2.58)):  # a silence of 0.16 s ends no unit
        audio[round(start * RATE) : round(end * RATE)] = 0.3
    assert speech(audio, RATE, Loudness()) == [(0.32, 1.28)]


def test_a_text_that_grows_is_taken_when_it_is_whole():
    texts = [" What", " What is", " What is it?", " And", " And now?"]
    events = [(0.1 * n, Heard(text, final=False)) for n, text in enumerate(texts)]
    assert wrote(events, turns=False) == [(0.2, " What is it?"), (0.4, " And now?")]
    assert wrote([*events, (0.5, Heard(" And now?", final=True))], turns=True) == [(0.5, " And now?")]
