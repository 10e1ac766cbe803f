"""The packaged codec, as it ships: it repeats what is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import duologue
from duologue.audio.io import load
from duologue.checkpoints import load_model
from duologue.checkpoints.codecs import load_codec
from duologue.errors import CheckpointError
from duologue.eval.codec import bit_rate, encoded, through
from duologue.train.mel_loss import mel_distance


@pytest.fixture(scope="module")
def mimi():
    return load_codec("mimi_mini")


@pytest.fixture(scope="module")
def hello():
    assets = Path(duologue.__file__).parent / "assets"
    return load(assets / "mini" / "hello.wav", 24_000)


def test_what_is_said_comes_back(mimi, hello):
    heard_N, rate = through(mimi, hello, 24_000)
    said, heard = (torch.from_numpy(x_N[: len(hello)])[None] for x_N in (hello, heard_N))
    assert rate == 24_000 and bit_rate(mimi) == 1_000
    assert float(mel_distance(heard, said)) < 0.5 * float(mel_distance(torch.zeros_like(said), said))
    assert 0.5 < float(heard.std() / said.std()) < 2


def test_it_is_no_model_to_talk_to():
    with pytest.raises(CheckpointError, match="a codec, which holds no conversation"):
        load_model("mimi_mini")


def test_many_of_its_codes_are_in_use(mimi, hello):
    codes_BKT = encoded(mimi, hello, 24_000)
    assert min(len(codes_T.unique()) for codes_T in codes_BKT[0]) > 0.3 * codes_BKT.shape[-1]
