"""Voices of the tests are kept out of training."""

import pytest

from duologue.data.speakers import Voice
from duologue.eval import voices


def test_every_voice_of_the_tests_is_reserved():
    for speaker in voices.reserved_speakers():
        voice = getattr(speaker, "voice", None) or Voice(kind="command", name=speaker.name, command="x {out}")
        assert voices.is_reserved(voice), speaker.name


@pytest.mark.parametrize(
    ("voice", "reserved"),
    [
        (Voice(kind="hibari", name="a", voice="gb"), True),
        (Voice(kind="hibari", name="a", voice="us"), False),
        (Voice(kind="flite", name="a", voice="slt"), True),
        (Voice(kind="flite", name="a", voice="rms"), False),
        (Voice(kind="espeak", name="a", voice="en-gb-scotland"), True),
        (Voice(kind="command", name="a", command="pico2wave -l en-GB -w {out} {text}"), True),
        (Voice(kind="command", name="a", command="pico2wave -l en-US -w {out} {text}"), False),
    ],
)
def test_recipes_can_tell_which_voices_are_reserved(voice, reserved):
    assert voices.is_reserved(voice) is reserved


def test_clauses_keep_their_punctuation(monkeypatch):
    class Done:
        def __init__(self, said):
            self.stdout = said.encode()

    monkeypatch.setattr(voices.subprocess, "run", lambda command, **options: Done(f"<{command[-1].strip()}>\n"))
    assert voices.espeak_symbols("Well, is it 3.5? Yes", "en-us") == "<Well>, <is it 3.5>? <Yes>"
