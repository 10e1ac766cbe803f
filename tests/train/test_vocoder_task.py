"""The stage `vocoder`: what the teacher says goes in, the loss goes down, the part comes out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import linear

from duologue.data.teacher import HibariTeacher
from duologue.errors import DataError
from duologue.train.parts import load_part
from duologue.train.vocoder_data import VocoderData, audible, fit_space, prepare, weights
from duologue.train.vocoder_task import VocoderTask, speak
from duologue.vocoders.spectral import SpectralVocoder, SpectralVocoderConfig

TINY = SpectralVocoderConfig(dim=32, unit_hidden=32, step_hidden=32, rank=12)
TEXTS = ["Good day.", "No.", "It is ten.", "Why not?", "Tea, please."]


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> VocoderTask:
    folder = tmp_path_factory.mktemp("vocoder")
    (folder / "texts.txt").write_text("\n".join([TEXTS[0], "", *TEXTS[1:]]), encoding="utf-8")
    return VocoderTask(
        texts=(str(folder / "texts.txt"),), cache=str(folder / "cache"), held_out=1, vocoder=TINY, frames=300
    )


def test_loss_goes_down_and_the_part_is_exported(task, tmp_path):
    torch.manual_seed(0)
    made = task.make()
    model = made.build()
    before = made.evaluate(model)
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=5e-3)
    stream = made.batches(0, 0)
    for _ in range(25):
        value, parts = made.loss(model, next(stream)())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    after = made.evaluate(model)
    assert parts["weight"] > 0
    for name in ("loss", "spectra", "pitch", "guess"):
        assert after[name] < before[name], name
    made.export(model, tmp_path)
    again = load_part(SpectralVocoder(TINY), "vocoder", tmp_path)
    units = HibariTeacher().units("Tea.")
    assert (speak(again, units) == speak(model, units)).all()
    going_on = replace(task, start=str(tmp_path)).make()
    assert going_on.evaluate(going_on.build()) == pytest.approx(after, rel=1e-2)


def test_batches_go_on_from_any_position(task):
    made = task.make()
    stream = made.batches(3, 0)
    skipped = [next(stream) for _ in range(7)][5]()
    resumed = next(made.batches(3, 5))()
    for name, value in vars(resumed).items():
        assert torch.equal(value, getattr(skipped, name)), name


def test_what_the_teacher_said_is_said_once(task, tmp_path, monkeypatch):
    first = prepare(TEXTS[:2], tmp_path / "a.safetensors", rank=4)
    monkeypatch.setattr(HibariTeacher, "speak", lambda *_, **__: pytest.fail("asked again"))
    again = prepare(TEXTS[:2], tmp_path / "a.safetensors", rank=4)
    assert all(torch.equal(value, getattr(again, name)) for name, value in vars(first).items())


def test_joined_keeps_every_utterance(tmp_path):
    a = prepare(TEXTS[:2], tmp_path / "a.safetensors", rank=4)
    b = prepare(TEXTS[2:4], tmp_path / "b.safetensors", like=a.space)
    both = VocoderData.joined([a, b])
    assert len(both) == 4 and both.hours == pytest.approx(a.hours + b.hours)
    begin, end = both.frame_starts[2:4]
    assert torch.equal(both.f0[begin:end], b.f0[: b.frame_starts[1]])
    other = replace(b, basis=b.basis + 1)
    with pytest.raises(DataError, match="frame spaces"):
        VocoderData.joined([a, other])


def test_space_gives_back_what_lies_in_it():
    torch.manual_seed(0)
    spectra = torch.randn(40, 5) @ torch.randn(5, len(weights())) * 0.5
    space = fit_space([spectra], 5)
    code = space.encode(spectra)
    torch.testing.assert_close(linear(code, space.basis_CR, space.mean_C), audible(spectra), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(code.T @ code / len(code), torch.eye(5), atol=1e-3, rtol=0)
    with pytest.raises(DataError, match="at least 41"):
        fit_space([spectra], 41)


def test_missing_texts_are_named(task, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.txt"):
        replace(task, texts=(str(tmp_path / "nowhere.txt"),)).make().build()
    (tmp_path / "few.txt").write_text("One.\n")
    with pytest.raises(DataError, match="more than 1 texts"):
        replace(task, texts=(str(tmp_path / "few.txt"),)).make().build()
