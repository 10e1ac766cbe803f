"""Speed and size are measured on the same answers, and the baselines beside them."""

import sys

import numpy as np
import pytest
from eval.helpers import KnowsAnswer, UnitTone, make_context

from duologue.errors import DataError
from duologue.eval import bench
from duologue.eval.cascade import Cascade
from duologue.eval.probe import probe, resident


def test_latency_comes_from_the_metrics_of_the_answers(tmp_path):
    context, _ = make_context(tmp_path)
    found = bench.latency(context)
    times = sorted(row["first_audio_ms"] for row in found.details["rows"])
    assert found.values["first_audio"].value == pytest.approx(np.median(times))
    assert found.values["first_audio_p90"].value >= found.values["first_audio"].value
    assert found.values["lagging_words"].value == found.details["rows"][0]["lagging_words"]


def test_real_time_factor_weighs_answers_by_their_length():
    rows = [{"real_time_factor": 1.0, "audio_seconds": 1.0}, {"real_time_factor": 0.1, "audio_seconds": 9.0}]
    assert bench.real_time_factor(rows) == pytest.approx(0.19)


def test_the_cascade_stops_at_its_first_sentence_and_its_parts_add_up():
    said, closed = [], []

    def think(question):
        try:
            yield from ("Yes. ", "And a long story", "about it.")
        finally:
            closed.append(question)

    def voice(text):
        said.append(text)
        return np.zeros(10, np.float32), 24_000

    found = Cascade(KnowsAnswer(), think, voice).first_sound(np.zeros(100, np.float32), 16_000)
    assert said == ["Yes."] and closed == [found.transcript]
    assert found.recognise_ms + found.think_ms + found.speak_ms == pytest.approx(found.first_audio_ms, abs=0.2)


def test_the_cascade_and_the_model_are_asked_the_same_questions(tmp_path):
    context, _ = make_context(tmp_path)
    found = bench.cascade(context)
    own, other = found.values["cascade_own"].value, found.values["cascade_first_audio_ms"].value
    assert found.values["cascade_ratio"].value == pytest.approx(own / other)
    assert {row["sentence"] for row in found.details["rows"]} == {"It is a good question."}


def test_the_sweep_has_a_row_for_every_chunk_size(tmp_path):
    context, loaded = make_context(tmp_path)
    found = bench.sweep(context)
    assert [row["omega"] for row in found.details["table"]] == ["10", "20", "40", "80", "offline"]
    assert [settings["omega"] for settings in loaded] == list(bench.OMEGAS)
    assert all(row["answer_wer"] == 0 for row in found.details["table"])


def test_independent_chunks_are_told_from_carried_ones(tmp_path):
    context, _ = make_context(tmp_path)
    found = bench.seams(context)
    assert found.values["seam_difference"].value == 0.0
    whole, _ = bench.vocode(UnitTone(), [1] * 40, 40)
    alone, borders = bench.vocode(UnitTone(), [1] * 40, 10, independent=True)
    assert borders == [100, 200, 300, 400]
    assert np.abs(whole - alone).max() > 0.5


def test_a_jump_is_seen_where_the_sound_breaks_off():
    rate = 16_000
    steady = np.sin(np.arange(rate) / 3)
    broken = steady.copy()
    broken[8_000:] *= 0.01
    assert bench.jump(broken, [8_000], rate) > 10 * bench.jump(steady, [8_000], rate)
    assert bench.jump(steady, [], rate) == 1.0


def test_a_probe_reports_the_start_and_the_memory_of_another_process():
    program = 'print(\'{"now": 0.5, "peak": 0.6}\', flush=True); print(\'{"now": 0.7, "peak": 0.9, "answering": 0.8}\')'
    found = probe("x", [], threads=1, command=(sys.executable, "-c", program))
    assert found["ready_now"] == 0.5 and found["talking_peak"] == 0.9 and found["start_seconds"] > 0


def test_a_probe_that_fails_tells_why():
    program = "raise SystemExit('there is no model x')"
    with pytest.raises(DataError, match="there is no model x"):
        probe("x", [], threads=1, command=(sys.executable, "-c", program))


def test_resident_memory_is_that_of_this_process():
    before = resident()["now"]
    held = np.ones(25_000_000)  # 0.19 GiB
    assert 0.15 < resident()["now"] - before < 0.3
    assert resident()["peak"] >= resident()["now"] - 0.01
    del held
