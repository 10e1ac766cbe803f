import pytest
import torch
from tiny_mimi import CONFIG

from duologue.codecs.mimi import Mimi
from duologue.errors import ConfigError
from duologue.eval.bench_mimi import Stream, _frame, compare


def test_every_codec_is_measured_and_compared(tmp_path):
    mimi, before = Mimi(CONFIG).eval(), torch.get_num_threads()
    result = compare({"one": mimi, "two": mimi}, tmp_path / "none", rivals=(), threads=1, rounds=2, warm_up=1, rows=2)
    assert result.speeds.keys() == result.faster.keys() == {"one", "two"}
    speed = result.speeds["one"]
    assert 0 < speed.encode < speed.both and 0 < speed.decode < speed.both and speed.cpu > 0
    assert torch.get_num_threads() == before


def test_what_was_encoded_is_decoded():
    got = []
    encode, decode, cpu = _frame(Stream(lambda audio: audio + 1, got.append), torch.zeros(1))
    assert got == [torch.ones(1)] and min(encode, decode) >= 0 and cpu >= 0


def test_an_unknown_rival_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the rivals are moshi, rustymimi, got 'opus'"):
        compare({}, tmp_path / "none", rivals=("opus",), rounds=1)
