"""Callers of a real server that hears loudness and answers with a tone."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from fakes import EchoConfig, EchoModel, tone
from serving import served

from duologue.eval.callers import RATE, Caller, Question, Turn, call
from duologue.eval.serving import fine, summary


def test_the_end_of_speech_is_found_behind_which_there_is_silence():
    samples = np.concatenate([np.zeros(8_000), tone(1.0), np.zeros(16_000)]).astype(np.float32)
    question = Question.of(samples, 16_000)
    assert question.end == pytest.approx(1.5, abs=0.03) and len(question.samples) == pytest.approx(2.5 * RATE, abs=50)


def test_callers_are_answered_and_notice_when():
    question = Question.of(tone(0.4), 16_000)
    with served(EchoModel(EchoConfig(audio_ticks=6))) as (address, _):
        turns = asyncio.run(call(address, [question], callers=2, every=0.5, rounds=2))
    assert len(turns) == 4 and all(turn.transcript.startswith("sound for") for turn in turns)
    for turn in turns:
        assert turn.first is not None and turn.decided is not None and turn.first >= turn.decided > 0.3
        assert turn.seconds == pytest.approx(5.5 * 0.08, abs=0.01)


def test_missing_sound_is_noticed():
    """A server that sends half a second of sound, waits longer than that, and sends more."""
    import base64
    import json

    sound = base64.b64encode((np.full(12_000, 8_000)).astype("<i2").tobytes()).decode()

    class Socket:
        def __init__(self):
            delta = "response.output_audio.delta"
            self.left = iter([(delta, 0.0), (delta, 0.7), ("response.done", 0.0)])

        async def recv(self):
            kind, wait = next(self.left)
            await asyncio.sleep(wait)
            return json.dumps({"type": kind, "delta": sound})

        async def send(self, text):
            pass

    turn = asyncio.run(Caller(Socket()).ask(Question(np.zeros(RATE // 10, np.float32), 0.0)))
    assert len(turn.gaps) == 1 and turn.seconds == 1.0


def test_a_crowd_is_fine_when_everybody_was_answered_in_time_without_gaps():
    good = Turn(first=0.9, decided=0.5)
    assert fine(summary(2, [good, good]))
    assert not fine(summary(2, [good, Turn()]))
    assert not fine(summary(2, [good, Turn(first=1.3, decided=0.5)]))
    assert not fine(summary(2, [good, Turn(first=0.9, decided=0.5, gaps=[0.1])]))
