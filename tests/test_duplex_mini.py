"""The small full-duplex model as it is kept in models/: it hears a question from a voice that no training heard, says
the answer when it is its turn, and is silent where nobody speaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from duologue.checkpoints import load_model
from duologue.data.speakers import default_voices, make_speaker
from duologue.eval.duplex import short_answers
from duologue.eval.duplex_cases import TURN, make_cases
from duologue.eval.duplex_driver import Line
from duologue.eval.metrics import exact_match
from duologue.pipeline import Audio, Pipeline, Text

PROJECT = Path(__file__).parents[1]
FOLDER = PROJECT / "models" / "duplex_mini"


@pytest.fixture(scope="module")
def model():
    made = load_model(FOLDER)
    made.seed = 1
    return made


def test_it_answers_questions_of_its_set_when_they_are_over(model, tmp_path):
    known = short_answers(PROJECT / "recipes" / "data")
    [child] = [voice for voice in default_voices() if voice.name == "hibari-child-us"]
    cases = make_cases(TURN, 8, speakers=[make_speaker(child)], questions=list(known), cache=tmp_path)
    line, right, begun = Line(model), 0, []
    for case in cases:
        take = line.run(case)
        right += exact_match(known[case.said[0][0]], "".join(text for _, text in take.texts))
        begun += [start - case.end for start, _ in take.spans[:1]]
    assert right >= 4, "of eight"
    assert len(begun) >= 6 and sum(-0.3 < late < 2 for late in begun) >= 5


def test_it_is_silent_where_nobody_speaks(model):
    noise = 1e-3 * np.random.default_rng(0).standard_normal(24_000 * 6).astype(np.float32)
    events = list(Pipeline(model).stream(noise))
    assert not [event for event in events if isinstance(event, Text)]
    sound = np.concatenate([event.samples for event in events if isinstance(event, Audio)])
    assert float(np.sqrt(np.mean(sound**2))) < 0.003
