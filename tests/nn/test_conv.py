import pytest
import torch
from conformance import Case, check_all

from duologue.errors import ConfigError, ShapeError
from duologue.nn.conv import CausalConv1d, StepConv1d, StepConvTranspose1d

BOTH = torch.tensor([True, True])


def test_equals_a_convolution_padded_on_the_left():
    torch.manual_seed(0)
    conv, x_BCT = CausalConv1d(3, 4, kernel=5, stride=2, dilation=2), torch.randn(2, 3, 10)
    want = torch.nn.functional.conv1d(
        torch.nn.functional.pad(x_BCT, (7, 0)), conv.conv.weight, conv.conv.bias, stride=2, dilation=2
    )
    got = conv(x_BCT, conv.init_state(2), BOTH)
    assert got.shape == (2, 4, 5)
    torch.testing.assert_close(got, want)


def test_the_future_does_not_matter():
    conv, x_BCT = CausalConv1d(3, 4, kernel=3), torch.randn(2, 3, 8)
    changed = x_BCT.clone()
    changed[..., 5:] = 9
    first, second = (conv(x, conv.init_state(2), BOTH) for x in (x_BCT, changed))
    torch.testing.assert_close(first[..., :5], second[..., :5])
    assert not torch.allclose(first[..., 5], second[..., 5])


def test_two_training_steps_may_share_a_state():
    conv, x_BCT = CausalConv1d(3, 4, kernel=3), torch.randn(2, 3, 8)
    state = conv.init_state(2)
    for _ in range(2):
        conv(x_BCT, state, BOTH).sum().backward()


def test_steps_that_do_not_fill_the_stride_are_refused():
    conv = CausalConv1d(3, 4, kernel=4, stride=2)
    for steps in (0, 3):
        with pytest.raises(ShapeError, match=f"multiple of 2 steps, got {steps}"):
            conv(torch.randn(2, 3, steps), conv.init_state(2), BOTH)
    with pytest.raises(ConfigError, match="skips"):
        CausalConv1d(3, 4, kernel=2, stride=3)


@pytest.mark.parametrize("shape", [(5, 1, 2), (7, 1, 1), (8, 4, 1), (3, 1, 4), (1, 1, 1), (5, 2, 2)])
def test_channels_last_equals_channels_first(shape):
    kernel, stride, dilation = shape
    torch.manual_seed(0)
    want = CausalConv1d(3, 4, kernel=kernel, stride=stride, dilation=dilation)
    conv = StepConv1d(3, 4, kernel=kernel, stride=stride, dilation=dilation)
    conv.taps.weight.data.copy_(want.conv.weight.transpose(1, 2).flatten(1))
    conv.taps.bias.data.copy_(want.conv.bias)
    x_BTC, state, states = torch.randn(2, 24, 3), conv.init_state(2), want.init_state(2)
    for piece in x_BTC.split([8, 16], dim=1):
        torch.testing.assert_close(conv(piece, state, BOTH), want(piece.mT, states, BOTH).mT)


@pytest.mark.parametrize("channelwise", [False, True])
def test_transposed_equals_torchs_without_the_end(channelwise):
    torch.manual_seed(0)
    conv = StepConvTranspose1d(4, 4, stride=3, channelwise=channelwise)
    conv.bias.data.normal_()
    x_BTC = torch.randn(2, 7, 4)
    if channelwise:
        weight = conv.scales.T[:, None]
    else:
        weight = conv.taps.weight.unflatten(0, (6, 4)).permute(2, 1, 0)
    groups = 4 if channelwise else 1
    want = torch.nn.functional.conv_transpose1d(x_BTC.mT, weight, conv.bias, stride=3, groups=groups).mT[:, :21]
    torch.testing.assert_close(conv(x_BTC, conv.init_state(2), BOTH), want)


STEPS = {
    "conv": (lambda: StepConv1d(3, 4, kernel=5, stride=2, dilation=2), [[12], [4, 8]]),
    "point": (lambda: StepConv1d(3, 4, kernel=3, bias=False), [[1] * 12, [3, 9]]),
    "transposed": (lambda: StepConvTranspose1d(3, 4, stride=3), [[1] * 12, [5, 7]]),
    "channelwise": (lambda: StepConvTranspose1d(3, 3, stride=2, bias=False, channelwise=True), [[1] * 12, [5, 7]]),
}


@pytest.mark.parametrize("name", STEPS)
def test_streaming_contract_of_channels_last(name):
    torch.manual_seed(0)
    make, cuts = STEPS[name]
    conv = make()
    check_all(Case(conv.init_state, lambda x, state, live, _: conv(x, state, live), torch.randn(3, 12, 3), cuts))


def test_what_channels_last_refuses():
    conv = StepConv1d(3, 4, kernel=4, stride=2)
    for steps in (0, 3):
        with pytest.raises(ShapeError, match=f"multiple of 2 steps, got {steps}"):
            conv(torch.randn(2, steps, 3), conv.init_state(2), BOTH)
    with pytest.raises(ConfigError, match="skips"):
        StepConv1d(3, 4, kernel=2, stride=3)
    up = StepConvTranspose1d(3, 4, stride=2)
    with pytest.raises(ShapeError, match="at least one step"):
        up(torch.randn(2, 0, 3), up.init_state(2), BOTH)
    with pytest.raises(ConfigError, match="as many channels"):
        StepConvTranspose1d(3, 4, stride=2, channelwise=True)
