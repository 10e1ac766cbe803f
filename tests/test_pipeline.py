"""One conversation: the events in order, their timing, turns, interruption and exchangeable parts."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from fakes import ANSWER, OUTPUT_RATE, EchoConfig, EchoModel, Tone, tone

import duologue
from duologue.errors import AudioError, PartError
from duologue.pipeline import Audio, Done, Heard, Pipeline, Text
from duologue.streaming.protocol import Frame, StreamSpec


def pipeline(**settings) -> Pipeline:
    return Pipeline(EchoModel(EchoConfig(**settings)), name="echo")


def test_the_package_exports_it_lazily():
    assert duologue.Pipeline is Pipeline
    with pytest.raises(AttributeError):
        _ = duologue.Nothing


def test_events_come_in_order_and_add_up():
    events = list(pipeline().stream(tone(1.0)))
    kinds = [type(event) for event in events]
    assert kinds[-1] is Done and kinds.count(Done) == 1
    heard = [event for event in events if isinstance(event, Heard)]
    assert [event.final for event in heard] == [False] * (len(heard) - 1) + [True]
    assert len(heard) == 14 and heard[-1].text == "sound for 13 ticks in turn 1"  # 12.5 ticks, filled up
    assert kinds.index(Text) > kinds.index(Heard) and kinds.index(Audio) > kinds.index(Text)
    assert kinds.index(Audio) < len(kinds) - 1 - kinds[::-1].index(Text)  # speech begins while text still comes
    assert "".join(event.text for event in events if isinstance(event, Text)) == ANSWER
    audio = np.concatenate([event.samples for event in events if isinstance(event, Audio)])
    assert audio.dtype == np.float32 and len(audio) == round(7.5 * 0.08 * OUTPUT_RATE)
    spectrum = np.abs(np.fft.rfft(audio))
    assert np.argmax(spectrum) / 0.6 == pytest.approx(440, abs=2)  # one tone without a seam


def test_metrics_say_what_happened():
    metrics = pipeline()(tone(1.0)).metrics
    assert metrics.transcript.startswith("sound for") and metrics.text == ANSWER
    assert metrics.question_seconds == 1.0 and metrics.audio_seconds == 0.6
    assert 0 <= metrics.first_text_ms <= metrics.first_audio_ms
    assert metrics.lagging_words == 3  # "You spoke, an": three steps of four bytes
    assert metrics.real_time_factor > 0
    wanted = "transcript text audio_seconds first_text_ms first_audio_ms lagging_words real_time_factor"
    assert set(wanted.split()) <= metrics.as_dict().keys()


def test_silent_speech_is_no_first_sound():
    pipe = pipeline()
    pipe.replace(vocoder=Tone(0.0))  # a sine of 0 Hz: samples, but no sound
    metrics = pipe(tone(1.0)).metrics
    assert metrics.audio_seconds == 0.6 and metrics.first_audio_ms is None and metrics.lagging_words is None


def test_silence_is_heard_as_nothing_and_gets_no_answer():
    events = list(pipeline().stream(np.zeros(16_000)))
    assert [type(event) for event in events] == [Heard, Done]
    assert events[0] == Heard("", final=True)
    metrics = events[1].metrics
    assert (metrics.transcript, metrics.text, metrics.audio_seconds) == ("", "", 0.0)
    assert metrics.first_text_ms is None and metrics.first_audio_ms is None and metrics.real_time_factor is None


def test_a_file_of_any_rate_and_samples_of_any_rate_are_one_question(tmp_path):
    soundfile.write(tmp_path / "q.wav", tone(1.0, rate=44_100), 44_100)
    pipe = pipeline()
    from_file = pipe(tmp_path / "q.wav")
    from_samples = pipe(np.stack([tone(1.0, rate=8_000)] * 2, axis=1), sample_rate=8_000)
    assert from_file.transcript == from_samples.transcript == "sound for 13 ticks in turn 1"


def test_an_answer_can_be_saved(tmp_path):
    answer = pipeline()(tone(1.0))
    got, rate = soundfile.read(answer.save(tmp_path / "a.wav"))
    assert rate == OUTPUT_RATE
    np.testing.assert_allclose(got, answer.audio, atol=1e-4)
    with pytest.raises(AudioError, match="no speech to save"):
        pipeline()(np.zeros(16_000)).save(tmp_path / "b.wav")
    assert not (tmp_path / "b.wav").exists()


def test_bad_audio_is_refused(tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        pipeline()(tmp_path / "none.wav")
    with pytest.raises(AudioError, match="too short"):
        pipeline()(tone(0.1))
    with pytest.raises(AudioError, match="not numbers"):
        pipeline()(np.full(16_000, np.nan))


@pytest.mark.parametrize("chunk", [100, 1_280, 5_000, 16_000])
def test_any_chunks_make_the_same_turn(chunk):
    conversation, question = pipeline().conversation(), tone(1.0)
    for begin in range(0, len(question), chunk):
        conversation.listen(question[begin : begin + chunk])
    events = list(conversation.answer())
    assert events[-1].metrics.transcript == "sound for 13 ticks in turn 1"
    assert events[-1].metrics.question_seconds == 1.0


def test_a_conversation_has_turns_and_can_begin_anew():
    conversation = pipeline().conversation()
    for turn in (1, 2):
        conversation.listen(tone(0.4))
        assert list(conversation.answer())[-1].metrics.transcript == f"sound for 5 ticks in turn {turn}"
    conversation.listen(tone(0.4))
    conversation.reset()
    conversation.listen(tone(0.8))
    assert list(conversation.answer())[-1].metrics.transcript == "sound for 10 ticks in turn 1"


def test_calls_know_nothing_of_each_other():
    pipe = pipeline()
    assert pipe(tone(0.4)).transcript == pipe(tone(0.4)).transcript == "sound for 5 ticks in turn 1"


def test_an_answer_can_be_cut_short():
    pipe = pipeline()
    conversation = pipe.conversation()
    conversation.listen(tone(0.4))
    answer = conversation.answer()
    for event in answer:
        if isinstance(event, Audio):
            break
    answer.close()
    conversation.interrupt(0.2)
    assert pipe.model.truncated == [2]  # whole ticks of 80 ms
    conversation.listen(tone(0.8))
    assert list(conversation.answer())[-1].metrics.transcript == "sound for 10 ticks in turn 2"


def test_after_an_answer_that_was_never_taken_the_model_listens_again():
    pipe = pipeline()
    conversation = pipe.conversation()
    conversation.listen(np.zeros(16_000, np.float32))
    assert [type(event) for event in conversation.answer()] == [Heard, Done]
    conversation.listen(tone(0.4))  # the echo fails here if it still has the floor
    answer = conversation.answer()
    assert next(answer) == Heard("sound for 5 ticks in turn 2", final=True)
    answer.close()
    conversation.listen(tone(0.4))
    assert pipe.model.truncated == [0]
    assert list(conversation.answer())[-1].metrics.transcript == "sound for 5 ticks in turn 3"


def test_parts_are_exchanged_or_refused():
    pipe, other = pipeline(), Tone(880.0)
    old = pipe.model.vocoder
    with pytest.raises(PartError, match="no part 'ears'; the parts are vocoder"):
        pipe.replace(vocoder=other, ears=None)
    assert pipe.model.vocoder is old
    with pytest.raises(PartError, match="need 24000 Hz, got 8000"):
        pipe.replace(vocoder=Tone(880.0, sample_rate=8_000))
    assert pipe.model.vocoder is old
    assert pipe.replace(vocoder=other) is pipe
    assert np.argmax(np.abs(np.fft.rfft(pipe(tone(1.0)).audio))) / 0.6 == pytest.approx(880, abs=2)


def test_a_model_without_parts_says_so():
    class Sealed:
        spec = EchoModel.spec

    with pytest.raises(PartError, match="Sealed: this model has no parts"):
        Pipeline(Sealed()).replace(vocoder=None)


def test_a_model_that_never_ends_is_stopped():
    class Endless(EchoModel):
        def speak(self, state, live_B):
            none = torch.zeros(1, dtype=torch.long)
            return Frame(audio_BN=torch.zeros(1, 1920), samples_B=none, ids_BT=none[:, None] - 1, done_B=none.bool())

    with pytest.raises(PartError, match="does not come to the end"):
        Pipeline(Endless())(tone(1.0))


def test_a_conversation_by_turns_needs_a_model_that_takes_turns():
    class Duplex(EchoModel):
        spec = StreamSpec(input_rate=16_000, output_rate=24_000, duplex=True)

    with pytest.raises(PartError, match="need a turn-taking model"):
        Pipeline(Duplex()).conversation()


def test_a_duplex_model_hears_a_recording_and_is_heard_until_it_is_quiet():
    """It hums from the third tick after the first loud one, for five ticks, and has a word for the first of them."""

    class Hums(EchoModel):
        spec = StreamSpec(input_rate=16_000, output_rate=24_000, duplex=True)

        def init_state(self, slots):
            self.heard, self.loud = 0, None
            return super().init_state(slots)

        def listen(self, state, audio_BN, live_B):
            assert audio_BN.shape == (1, 1280)
            self.heard += 1
            self.loud = self.heard if self.loud is None and float(audio_BN.abs().max()) > 0.1 else self.loud

        def speak(self, state, live_B):
            since = -1 if self.loud is None else self.heard - self.loud - 3
            return Frame(
                audio_BN=torch.full((1, 1920), 0.5 if 0 <= since < 5 else 0.0),
                samples_B=torch.tensor([1920]),
                ids_BT=torch.tensor([[7 if since == 0 else -1]]),
                done_B=torch.tensor([False]),
            )

        def text(self, ids):
            return "hum" * len(ids)

    question = np.concatenate([np.zeros(16_000, np.float32), tone(0.1)])  # 1.1 s: fourteen ticks, the last one broken
    events = list(Pipeline(Hums()).stream(question, sample_rate=16_000))
    audio = np.concatenate([event.samples for event in events if isinstance(event, Audio)])
    begin = (12 + 3) * 1920  # the tone begins in the thirteenth tick
    assert (audio[begin : begin + 5 * 1920] == 0.5).all() and not audio[:begin].any()
    assert len(audio) == begin + 5 * 1920 + round(2.0 * 24_000) and not audio[begin + 5 * 1920 :].any()
    assert [event.text for event in events if isinstance(event, Text)] == ["hum"]
    metrics = events[-1].metrics
    assert metrics.first_audio_ms == pytest.approx(16 * 80 - 1100, abs=1) and metrics.question_seconds == 1.1
    assert metrics.text == "hum" and metrics.real_time_factor > 0
