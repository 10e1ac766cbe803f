"""The small full-duplex model as it is kept in models/: it hears questions of its set in a voice that no training
heard, answers when it is its turn, and is silent where nobody speaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from duologue.audio.io import load
from duologue.checkpoints import load_model
from duologue.pipeline import Audio, Pipeline, Text

PROJECT = Path(__file__).parents[1]
QUESTIONS = PROJECT / "docs" / "samples" / "duplex_questions.flac"  # hibari-child-us
ANSWERS = (
    "A cube has eight corners.",
    "A square has four equal sides.",
    "It comes to six dollars.",
    "A right angle has ninety degrees.",
)
SOUND = 0.01  # root mean square of a frame in which something is said


@pytest.fixture(scope="module")
def pipeline():
    made = load_model(PROJECT / "models" / "duplex_mini")
    made.seed = 1
    return Pipeline(made)


def loudness(events) -> np.ndarray:
    """Of each frame."""
    sound = np.concatenate([event.samples for event in events if isinstance(event, Audio)])
    return np.sqrt(np.square(sound[: len(sound) // 1920 * 1920].reshape(-1, 1920)).mean(1))


def test_it_answers_questions_of_its_set_when_they_are_over(pipeline):
    asked = load(QUESTIONS, 24_000)
    events = list(pipeline.stream(asked))
    text = "".join(event.text for event in events if isinstance(event, Text))
    assert sum(answer in text for answer in ANSWERS) >= 3, text
    theirs = np.sqrt(np.square(asked[: len(asked) // 1920 * 1920].reshape(-1, 1920)).mean(1)) > SOUND
    mine = loudness(events)[: len(theirs)] > SOUND
    assert mine.sum() > 30
    assert (mine & theirs[: len(mine)]).sum() < 0.2 * mine.sum(), "it speaks while nobody else does"


def test_it_is_silent_where_nobody_speaks(pipeline):
    noise = 1e-3 * np.random.default_rng(0).standard_normal(24_000 * 4).astype(np.float32)
    events = list(pipeline.stream(noise))
    assert not [event for event in events if isinstance(event, Text)]
    assert loudness(events).max() < SOUND
