"""The evaluation of a codec, on a tiny one."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from eval.helpers import make_context
from tiny_mimi import CONFIG, speech

from duologue.checkpoints.codecs import save_codec
from duologue.codecs.mimi import Mimi
from duologue.eval import codec as codec_eval
from duologue.eval import runner
from duologue.eval.codec import CODEC, bit_rate, encoded, first_codes, phone_runs, spectra, through, untrained
from duologue.eval.opus_codec import through_opus
from duologue.train.mimi_task import begin_loud


def speaking() -> Mimi:
    """A tiny codec with random weights whose codebooks were begun on speech."""
    torch.manual_seed(3)
    mimi = Mimi(dataclasses.replace(CONFIG, quantizer=dataclasses.replace(CONFIG.quantizer, codebook_size=16)))
    begin_loud(mimi)
    mimi.quantizer.train()
    x_BTD = mimi.encoder(speech(16), mimi.init_state(1).encoder, torch.ones(1, dtype=torch.bool)).detach()
    for _ in range(7):
        mimi.quantizer(x_BTD, 7)
    return mimi.eval()


@pytest.fixture(scope="module")
def mimi():
    return speaking()


def test_a_recording_of_any_rate_comes_back_in_whole_frames(mimi):
    audio_N = speech(8)[0].numpy()[::3]
    heard_N, rate = through(mimi, audio_N, 8_000)
    assert rate == 24_000 and len(heard_N) == 8 * 1920 and np.abs(heard_N).max() <= 1
    assert encoded(mimi, audio_N, 8_000).shape == (1, 5, 8)
    assert first_codes(mimi, audio_N, 8_000).shape == (8, 32)


def test_bits_a_second_are_those_of_whole_codes(mimi):
    assert bit_rate(mimi) == 5 * 4 * 12.5


def test_what_has_learnt_nothing_has_the_same_shape_and_uses_its_codes(mimi):
    other = untrained(mimi, [(speech(12)[0].numpy(), 24_000)])
    assert other.config == mimi.config and not other.quantizer.training
    codes = encoded(other, speech(12)[0].numpy(), 24_000)
    assert len(codes[0, 0].unique()) > 3 and not torch.equal(codes, encoded(mimi, speech(12)[0].numpy(), 24_000))


def test_opus_keeps_the_length_the_place_and_the_rate():
    audio_N = speech(20)[0].numpy()
    heard_N, bits = through_opus(audio_N, 24_000, bit_rate=6_000)
    assert len(heard_N) == len(audio_N) and bits == pytest.approx(6_000, rel=0.02)
    product = np.fft.irfft(np.fft.rfft(audio_N, 131_072) * np.conj(np.fft.rfft(heard_N, 131_072)))
    lag = (int(product.argmax()) + 65_536) % 131_072 - 65_536
    assert abs(lag) < 12, "half a millisecond"


def test_phones_of_a_run_carry_their_stress_and_pauses_part_them():
    symbols = [("ˈ", 0.0, 0.1), ("a", 0.1, 0.2), (" ", 0.2, 0.2), ("n", 0.2, 0.3), (",", 0.3, 0.5), ("t", 0.5, 0.6)]
    assert phone_runs(symbols) == [[("a", 0.0, 0.2), ("n", 0.2, 0.3)], [("t", 0.5, 0.6)]]


def test_a_spectrum_a_frame_has_no_mean():
    found = spectra(speech(10)[0].numpy(), 24_000, 12.5)
    assert found.shape == (10, 40) and np.abs(found.mean(0)).max() < 1e-4


@pytest.fixture
def context(tmp_path, mimi, monkeypatch):
    folder = save_codec(mimi, tmp_path / "codec")

    def says(self, text, seed):
        symbols, audio_N = [], speech(12)[0].numpy()
        for place, symbol in enumerate(("t", "ae"[seed % 2], "n", "t", "ea"[seed % 2], "n")):
            symbols.append((symbol, 0.1 + 0.1 * place, 0.2 + 0.1 * place))
        return audio_N * (1 + 0.01 * seed), symbols

    monkeypatch.setattr(codec_eval.HibariSpeaker, "speak_symbols", says)
    return make_context(tmp_path, name=str(folder))[0]


def test_every_row_of_the_table_is_measured(context, tmp_path):
    page = runner.run_tasks(context, CODEC, title="duologue eval mimi")
    raw = json.loads((page.parent / "raw.json").read_text())["tasks"]
    assert not [found["error"] for found in raw.values() if "error" in found]
    measured = {key for found in raw.values() for key in found["values"]}
    assert measured == {row.key for task in CODEC for row in task.rows}
    assert raw["resynthesis"]["values"]["bits_codec"]["value"] == bit_rate(speaking())
    assert sorted(path.name for path in (page.parent / "sounds").glob("0-*")) == [
        f"0-{name}.flac" for name in ("codec", "opus", "original", "untrained")
    ]
    table = (page.parent / "report.md").read_text()
    assert "Opus at 6 kbit/s" in table and "ABX error across voices" in table


def test_the_command_names_it():
    assert runner.EVALUATIONS["mimi"] is CODEC
    assert runner.command("mimi", model="runs/codec", only=None) == "duologue eval mimi --model codec"
