"""Turns from probabilities alone: no audio, no model, no clock."""

from __future__ import annotations

import pytest

from duologue.errors import ConfigError
from duologue.streaming.turns import OverlapConfig, Turn, TurnConfig, TurnDetector, is_backchannel

CONFIG = TurnConfig(start=0.3, pause=0.2, end=0.5, end_complete=0.3, end_incomplete=1.0)


def run(text: str, config: TurnConfig = CONFIG, *, complete: float | None = None) -> str:
    """A letter a window of 0.1 s: # speech, - nearly speech, . silence. Gives B, P, W, E or a dot a window."""
    detector, out = TurnDetector(config, window=0.1), []
    for letter in text:
        turn = detector.step({"#": 0.9, "-": 0.4, ".": 0.0}[letter])
        if turn is Turn.PAUSED:
            detector.complete = complete
        out.append(turn.name[0] if turn else ".")
    return "".join(out)


@pytest.mark.parametrize(
    "heard,want",
    [
        ("..###.....", "....B.P..E"),
        ("##.##.....", ".........."),  # too short to be a turn
        ("###--.....", "..B...P..E"),  # what has begun goes on a little longer
        ("###..##.....", "..B.PW..P..E"),
        ("###.#.#.....", "..B.....P..E"),
        ("###.....###.....", "..B.P..E..B.P..E"),
    ],
)
def test_turns_begin_pause_and_end(heard, want):
    assert run(heard) == want


@pytest.mark.parametrize("complete,want", [(None, "..B.P..E"), (0.9, "..B.PE"), (0.1, "..B.P.......E")])
def test_what_sounds_complete_ends_sooner(complete, want):
    assert run("###" + "." * 10, complete=complete).rstrip(".") == want


def test_a_guess_is_forgotten_when_the_user_goes_on():
    detector = TurnDetector(CONFIG, window=0.1)
    for probability in (0.9, 0.9, 0.9, 0.0, 0.0):
        detector.step(probability)
    detector.complete = 0.9
    assert detector.step(0.9) is Turn.WENT_ON and detector.complete is None


def test_impossible_settings_are_refused():
    for wrong in ({"threshold": 1.0}, {"start": -0.1}, {"end": -1.0}):
        with pytest.raises(ConfigError):
            TurnConfig(**wrong)
    with pytest.raises(ConfigError):
        OverlapConfig(enough=2.0, longest=1.0)


@pytest.mark.parametrize("text", ["", "Uh-huh.", "Okay, yeah.", "Mm-hmm", "I see.", "Right, right."])
def test_signs_of_listening_ask_for_nothing(text):
    assert is_backchannel(text)


@pytest.mark.parametrize(
    "text", ["Stop.", "Okay, stop.", "Wait", "No", "Yeah yeah yeah yeah okay", "What about Sunday?"]
)
def test_other_words_do(text):
    assert not is_backchannel(text)
