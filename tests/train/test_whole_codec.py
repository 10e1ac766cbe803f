import pytest
import torch
from tiny_mimi import CONFIG, speech

from duologue.codecs.mimi import Mimi
from duologue.train.mimi_task import begin_loud
from duologue.train.whole_codec import encode_whole, sound_whole, steps_whole

BOTH = torch.ones(2, dtype=torch.bool)


@pytest.fixture
def mimi():
    torch.manual_seed(0)
    codec = Mimi(CONFIG)
    begin_loud(codec)
    return codec


def test_training_sees_what_the_stream_gives(mimi):
    audio_BN = speech(6, rows=2)
    state = mimi.init_state(2)
    x_BTD = mimi.encoder(audio_BN, state.encoder, BOTH)
    torch.testing.assert_close(encode_whole(mimi.encoder, audio_BN), x_BTD, rtol=1e-4, atol=1e-5)
    sound_BN = mimi.decoder(x_BTD, state.decoder, BOTH)
    steps_BTD = steps_whole(mimi.decoder, x_BTD)
    torch.testing.assert_close(sound_whole(mimi.decoder, steps_BTD), sound_BN, rtol=1e-4, atol=1e-5)


def test_its_gradients_are_those_of_the_stream(mimi):
    audio_BN = speech(3, rows=2)
    encode_whole(mimi.encoder, audio_BN).square().sum().backward()
    ours = {name: p.grad.clone() for name, p in mimi.encoder.named_parameters()}
    mimi.zero_grad()
    mimi.encoder(audio_BN, mimi.init_state(2).encoder, BOTH).square().sum().backward()
    for name, parameter in mimi.encoder.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-3 * float(parameter.grad.abs().max()))


def test_a_fresh_codec_passes_speech_on_at_its_size_and_silence_without_a_cliff(mimi):
    audio_BN = torch.cat([speech(6), torch.zeros(1, 6 * CONFIG.frame_samples)])
    x_BTD = encode_whole(mimi.encoder, audio_BN)
    sound_BN = sound_whole(mimi.decoder, steps_whole(mimi.decoder, x_BTD))
    sound_BN.square().sum().backward()
    sizes = [float(x[0].detach().std()) for x in (x_BTD, sound_BN)]
    assert 0.03 < sizes[0] < 3 and 0.005 < sizes[1] < 0.5
    assert max(float(p.grad.abs().max()) for p in mimi.parameters() if p.grad is not None) < 1e4
