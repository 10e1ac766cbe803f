"""Packed linear layers are the plain ones, in another layout."""

import pytest
import torch
from torch import nn

from duologue.nn.packed import PackedLinear, can_pack, pack_linears, unpack_linears

pytestmark = pytest.mark.skipif(not can_pack(), reason="this torch is built without oneDNN")


def make(dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(37, 64), nn.SiLU(), nn.Linear(64, 19, bias=False)).to(dtype)


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_numbers_stay(dtype, near):
    plain, packed = make(dtype), make(dtype)
    assert pack_linears(packed) == ["0", "2"] and isinstance(packed[0], PackedLinear)
    for shape in ((1, 37), (3, 1, 37), (40, 37)):
        x = torch.randn(shape).to(dtype)
        torch.testing.assert_close(packed(x), plain(x), rtol=near, atol=near)


@torch.no_grad()
def test_for_single_rows_wide_float32_matrices_are_transposed():
    plain, packed, half = make(torch.float32), make(torch.float32), make(torch.bfloat16)
    pack_linears(packed, single=True)
    pack_linears(half, single=True)
    assert [packed[0].transposed, packed[2].transposed, half[0].transposed] == [True, False, False]
    for rows in (1, 2, 3, 40):
        x = torch.randn(rows, 1, 37)
        torch.testing.assert_close(packed(x), plain(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_state_dict_and_the_way_back_are_exact(dtype, single):
    plain, packed = make(dtype).state_dict(), make(dtype)
    pack_linears(packed, single=single)
    assert packed.state_dict().keys() == plain.keys()
    assert all(torch.equal(packed.state_dict()[name], tensor) for name, tensor in plain.items())
    unpack_linears(packed)
    assert type(packed[0]) is nn.Linear
    assert all(torch.equal(packed.state_dict()[name], tensor) for name, tensor in plain.items())
