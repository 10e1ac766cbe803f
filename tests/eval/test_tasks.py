"""Every task measures what its line of the table says, on a family that needs no training."""

import numpy as np
import pytest
import soundfile
from eval.helpers import QUESTIONS, AskableEcho, make_context
from fakes import ANSWER, EchoModel

from duologue.errors import DataError, PartError
from duologue.eval import context as contexts
from duologue.eval import tasks
from duologue.eval.tasks import TASKS, Row
from duologue.pipeline import Heard, Pipeline


def test_a_row_knows_which_way_is_better():
    low, high = Row(key="a", title="", must=2), Row(key="b", title="", must=2, higher=True)
    assert low.reaches(1, 2) and low.reaches(2, 2) and not low.reaches(3, 2)
    assert high.reaches(3, 2) and not high.reaches(1, 2)
    assert low.reaches(1, None) is None


def test_keys_of_rows_are_unique_and_the_table_of_goals_is_whole():
    rows = [row for task in contexts_and_bench() for row in task.rows]
    assert len({row.key for row in rows}) == len(rows)
    goals = {row.key: (row.must, row.aim) for row in rows if row.must is not None and row.aim is not None}
    assert goals == {
        "wer_synthetic": (0.05, 0.02),
        "wer_real": (0.08, 0.04),
        "invented": (2, 0),
        "rouge": (0.85, 0.95),
        "noise_gain": (0.0, 0.05),
        "answer_wer": (0.08, 0.03),
        "answer_cer": (0.08, 0.03),
        "dnsmos_gap": (0.35, 0.1),
        "first_audio": (350, 226),
        "cascade_ratio": (1 / 3, 1 / 5),
        "real_time_factor": (0.5, 0.25),
        "memory": (1.5, 0.8),
        "start": (10, 4),
    }


def contexts_and_bench():
    from duologue.eval.bench import BENCH

    return (*TASKS, *BENCH)


def test_transcripts_are_scored_by_voice_and_condition(tmp_path):
    context, _ = make_context(tmp_path)
    found = tasks.transcript_synthetic(context)
    assert found.count == 8
    assert found.values["wer_synthetic"].value > 0.5, "the echo hears other words than were said"
    assert set(found.details["by_voice"]) == {"one", "two"}
    assert sum(group["clips"] for group in found.details["by_condition"].values()) == 8


def test_real_recordings_are_scored_by_who_speaks(tmp_path):
    context, _ = make_context(tmp_path)
    found = tasks.transcript_real(context)
    assert found.count == 3
    assert found.details["by_voice"]["somebody"]["clips"] == 3 and "reading" in found.details["by_condition"]


def test_without_recordings_there_is_no_number(tmp_path):
    context, _ = make_context(tmp_path, real_speech=lambda: [])
    with pytest.raises(DataError, match="no real recordings"):
        tasks.transcript_real(context)


def test_a_listener_that_hears_sound_everywhere_invents_words(tmp_path):
    context, _ = make_context(tmp_path)
    found = tasks.invented_words(context)
    by_kind = {row["kind"]: row["heard"] for row in found.details["rows"]}
    assert not by_kind.get("silence") and by_kind["keyboard"]
    assert [row["source"] for row in found.details["rows"]].count("somebody") == 2, "a third at most is recorded"
    assert found.values["invented"].value == sum(bool(row["heard"]) for row in found.details["rows"])


def test_equal_answers_from_speech_and_text_score_one(tmp_path):
    context, _ = make_context(tmp_path)
    found = tasks.answer_from_speech(context)
    assert found.values["rouge"].value == 1.0 and found.values["exact"].value == 1.0


def test_noise_compares_the_two_ways_of_listening(tmp_path):
    class Deaf(AskableEcho):
        def __init__(self, config=None, *, wrong=False):
            super().__init__(config)
            self.wrong = wrong

        def text(self, ids):
            return "Pardon me, what?" if self.wrong else super().text(ids)

    context, _ = make_context(tmp_path, load=lambda settings: Pipeline(Deaf(wrong=settings.get("listen") == "text")))
    found = tasks.answer_in_noise(context)
    assert found.values["noise_rouge_states"].value == 1.0
    assert found.values["noise_gain"].value > 0.5


def test_spoken_answers_are_judged_against_their_text_and_the_teacher(tmp_path):
    context, _ = make_context(tmp_path)
    found = tasks.spoken_answer(context)
    assert found.values["answer_wer"].value == 0.0 and found.values["answer_cer"].value == 0.0
    assert found.values["dnsmos_teacher"].value == pytest.approx(3.0, abs=0.01)
    gap = found.values["dnsmos_teacher"].value - found.values["dnsmos"].value
    assert found.values["dnsmos_gap"].value == pytest.approx(gap)


def test_a_model_that_answers_nothing_cannot_be_judged(tmp_path):
    class Silent(AskableEcho):
        def heard(self, state, slot):
            return ""

    context, _ = make_context(tmp_path, load=lambda settings: Pipeline(Silent()))
    with pytest.raises(DataError, match="answered none"):
        tasks.spoken_answer(context)


def test_closed_book_counts_accepted_answers_before_and_after(tmp_path):
    context, _ = make_context(tmp_path, before=lambda question: "I'm sorry.")
    found = tasks.closed_book(context)
    assert found.values["closed_book"].value == 0.5
    assert found.values["closed_book_before"].value == 0.0


def test_answers_are_kept_and_asked_again_only_of_another_model(tmp_path):
    context, _ = make_context(tmp_path)
    first = context.spoken(4)
    again, loaded_again = make_context(tmp_path)
    assert again.spoken(4) == first and not loaded_again
    other, loaded_other = make_context(tmp_path, model="def")
    other.spoken(4)
    assert loaded_other == [{}]
    audio, rate = first[0].audio
    assert rate == 24_000 and len(audio) / rate == pytest.approx(first[0].metrics["audio_seconds"], abs=1e-3)
    assert first[0].text == ANSWER and first[0].question == QUESTIONS[0]


def test_listening_alone_stops_before_the_answer(tmp_path):
    class Counts(AskableEcho):
        spoken = 0

        def speak(self, state, live_B):
            self.spoken += 1
            return super().speak(state, live_B)

    model = Counts()
    pipe = Pipeline(model)
    question = tmp_path / "tone.wav"
    soundfile.write(question, 0.3 * np.sin(np.arange(16_000) / 9), 16_000)
    transcript = contexts.heard(pipe, question)
    assert transcript == next(e.text for e in pipe.stream(question) if isinstance(e, Heard) and e.final)
    assert model.spoken == 0


def test_a_model_that_cannot_be_asked_in_text_is_refused():
    with pytest.raises(PartError, match="EchoModel has no answer_text"):
        contexts.answer_text(Pipeline(EchoModel()), "Why?")


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["It is", " late. ", "Go"], "It is late."),
        (["Pi is 3.14 or", " so"], "Pi is 3.14 or so"),
        (['He said "no." ', "Then"], 'He said "no."'),
        ([], ""),
    ],
)
def test_the_first_sentence_ends_where_a_person_would_pause(pieces, expected):
    assert contexts.first_sentence(iter(pieces)) == expected
