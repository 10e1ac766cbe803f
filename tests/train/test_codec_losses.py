"""What a codec's sound is judged by."""

from __future__ import annotations

import pytest
import torch
from tiny_mimi import speech

from duologue.errors import ConfigError
from duologue.train.balance import Balance
from duologue.train.discriminators import DiscriminatorConfig, Discriminators, found_out, told_apart, unlike
from duologue.train.mel_loss import SCALES, mel_bands, mel_distance


def test_mel_distance_grows_with_the_difference():
    audio_BN = speech(4)
    noise_BN = torch.randn(audio_BN.shape, generator=torch.Generator().manual_seed(0))
    found = [float(mel_distance(audio_BN, audio_BN + size * noise_BN)) for size in (0, 1e-3, 1e-2, 1e-1)]
    assert found[0] == 0 and found == sorted(found) and found[-1] > 1
    assert float(mel_distance(audio_BN, 0.5 * audio_BN)) < float(mel_distance(audio_BN, audio_BN.flip(1)))


def test_mel_distance_has_a_gradient_at_silence():
    silence_BN = torch.zeros(1, 4096, requires_grad=True)
    mel_distance(silence_BN, speech(3)[:, :4096]).backward()
    assert silence_BN.grad is not None and silence_BN.grad.isfinite().all()


@pytest.mark.parametrize("window,bands", SCALES)
def test_every_mel_band_hears_something(window, bands):
    assert (mel_bands(bands, window, 24_000).sum(1) > 1).all()


@pytest.fixture
def judges():
    torch.manual_seed(0)
    return Discriminators(DiscriminatorConfig(windows=(256, 64), channels=4))


def test_discriminators_learn_to_tell_speech_from_noise(judges):
    real_BN = speech(8)[:, 7 * 1920 :]
    noise_BN = 0.05 * torch.randn(real_BN.shape)
    optimizer = torch.optim.Adam(judges.parameters(), lr=5e-3, betas=(0.5, 0.9))
    before = float(told_apart(judges(real_BN), judges(noise_BN)).detach())
    for _ in range(100):
        loss = told_apart(judges(real_BN), judges(noise_BN))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3 * before
    with torch.no_grad():
        assert float(found_out(judges(noise_BN))) > 1.5 > float(found_out(judges(real_BN)))


def test_features_of_the_same_sound_are_alike(judges):
    audio_BN = speech(8)[:, 6 * 1920 :]
    with torch.no_grad():
        verdicts = judges(audio_BN)
        assert float(unlike(verdicts, judges(audio_BN))) == 0
        assert float(unlike(verdicts, judges(audio_BN.flip(1)))) > 0.05
    assert [len(verdict.features) for verdict in verdicts] == [5, 5]


def test_discriminators_without_windows_are_refused():
    with pytest.raises(ConfigError, match="windows"):
        DiscriminatorConfig(windows=())


def test_each_loss_has_its_share_of_the_gradient_however_large_it_is():
    balance, x_BN = Balance({"small": 1.0, "large": 3.0}), torch.randn(4, 50)
    for _ in range(5):
        sound_BN = x_BN.clone().requires_grad_()
        losses = {"small": 1e-4 * sound_BN[:, :25].square().sum(), "large": 1e4 * sound_BN[:, 25:].square().sum()}
        gradient_BN = balance(losses, sound_BN) * len(x_BN)
    assert float(gradient_BN[:, :25].norm(dim=1).mean()) == pytest.approx(0.25, rel=1e-3)
    assert float(gradient_BN[:, 25:].norm(dim=1).mean()) == pytest.approx(0.75, rel=1e-3)
    assert not sound_BN.grad


def test_a_loss_that_fades_counts_less_at_once():
    """Its usual strength is what it is held against, so that a loss near its end is not blown up to its share."""
    balance = Balance({"only": 1.0})
    for size in (*[1.0] * 20, 0.01):
        sound_BN = torch.ones(1, 10, requires_grad=True)
        gradient_BN = balance({"only": size * sound_BN.sum()}, sound_BN)
    assert float(gradient_BN.norm()) < 0.05
