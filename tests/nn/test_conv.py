import pytest
import torch

from duologue.errors import ConfigError, ShapeError
from duologue.nn.conv import CausalConv1d

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
