import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from duologue.errors import ShapeError
from duologue.nn import quant4
from duologue.nn.quant import dequantize, quantize, release, shape_like
from duologue.nn.quant4 import GROUP, Int4Matrix, from_int4, has_cpu_kernel, to_int4
from duologue.nn.quant_matrix import QuantLinear


def layer(inputs=96, outputs=48, *, bias=True) -> nn.Sequential:
    torch.manual_seed(inputs + outputs)
    return nn.Sequential(nn.Linear(inputs, outputs, bias=bias))


def error(value, wanted):
    return float((value.float() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("inputs", [32, 96, 33])
def test_rounding_is_within_half_a_step_of_each_group(inputs):
    torch.manual_seed(0)
    weight = torch.randn(8, inputs) * torch.logspace(-4, 2, 8)[:, None] + torch.randn(8, 1)
    int4, scale = to_int4(weight)
    assert int4.dtype == torch.uint8 and int4.shape == (8, -(-inputs // GROUP) * GROUP // 2)
    step = scale[..., 0].t().float().repeat_interleave(GROUP, 1)[:, :inputs]
    off, middle = (from_int4(int4, scale, inputs) - weight).abs(), weight.abs()
    assert (off <= 0.51 * step + 0.008 * middle).all()  # scale and offset are in bf16
    zeros = from_int4(*to_int4(torch.zeros(2, 32)), 32)
    assert zeros.abs().max() < 1e-10


def test_two_numbers_are_a_byte_and_keep_their_order():
    numbers = torch.arange(16.0).repeat(2).view(1, 32)  # every number of the grid: nothing is lost
    int4, scale = to_int4(numbers)
    assert int4[0, :8].tolist() == [16 * even + even + 1 for even in range(0, 16, 2)]
    assert torch.equal(from_int4(int4, scale, 32), numbers)


@pytest.mark.parametrize("rows", [1, 3, 16, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("inputs", "outputs"), [(96, 48), (72, 20), (31, 5)])
def test_the_product_is_that_of_the_rounded_weights(rows, dtype, inputs, outputs):
    few = layer(inputs, outputs)
    exact = few[0]
    quantize(few, bits=4)
    x = torch.randn(2, rows, inputs).bfloat16().float()
    with torch.no_grad():
        y = few(x.to(dtype))
        wanted = F.linear(x, few[0].weight.expanded(), exact.bias)
    assert y.dtype == dtype and y.shape == wanted.shape
    assert error(y, wanted) < 0.006
    assert 0.01 < error(y, exact(x).detach()) < 0.1


@pytest.mark.parametrize(("inputs", "outputs"), [(96, 48), (72, 20)])
def test_rows_do_not_influence_each_other(inputs, outputs):
    few = layer(inputs, outputs)
    quantize(few, bits=4)
    x = torch.randn(17, inputs)
    with torch.no_grad():
        alone = torch.cat([few(row[None]) for row in x])
        assert torch.equal(few(x), alone)
        assert torch.equal(few(torch.cat([x[:1], 1e4 * x[1:]]))[:1], alone[:1])


def test_without_a_kernel_the_matrix_is_expanded(monkeypatch):
    few, x = layer(), torch.randn(3, 96).bfloat16()
    quantize(few, bits=4)
    with torch.no_grad():
        by_kernel = copy.deepcopy(few)(x)
        monkeypatch.setattr(quant4, "has_cpu_kernel", lambda: False)
        release(few)
        expanded = few(x)
    assert few[0].weight.int4.numel()
    torch.testing.assert_close(expanded, by_kernel, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("offset", [0, 2, 8, 16])
def test_any_address_will_do(offset):
    few = layer(64, 32, bias=False)
    quantize(few, bits=4)
    for name in ("int4", "scale"):
        kept = getattr(few[0].weight, name)
        moved = torch.zeros(kept.numel() + 16, dtype=kept.dtype)[offset : offset + kept.numel()].view(kept.shape)
        setattr(few[0].weight, name, moved.copy_(kept))
    x = torch.randn(8 * 64 + 16).bfloat16()[offset : offset + 8 * 64].view(8, 64)
    with torch.no_grad():
        assert error(few(x), F.linear(x.float(), few[0].weight.expanded())) < 0.006


def test_only_linear_layers_are_replaced():
    model = nn.ModuleDict({"table": nn.Embedding(40, 32), "head": nn.Linear(32, 40)})
    assert quantize(model, bits=4) == ["head"] and isinstance(model["head"], QuantLinear)
    with pytest.raises(ShapeError, match="need 4 or 8 bits, got 3"):
        quantize(model, bits=3)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(96, 48), (72, 20)])
def test_saved_and_loaded_it_gives_the_same_numbers(tmp_path, inputs, outputs, released):
    few, x = layer(inputs, outputs), torch.randn(3, inputs)
    quantize(few, bits=4)
    before = {name: tensor.clone() for name, tensor in few.state_dict().items()}
    with torch.no_grad():
        wanted = few(x)
        if released:
            release(few)
            assert (few[0].weight.int4.numel() == 0) == has_cpu_kernel()
        save_file(few.state_dict(), tmp_path / "m.safetensors")
        tensors = load_file(tmp_path / "m.safetensors")
        assert all(torch.equal(tensors[name], before[name]) for name in before)
        with torch.device("meta"):
            other = layer(inputs, outputs)
        assert shape_like(other, tensors) == ["0"]
        other.load_state_dict(tensors, strict=True, assign=True)
        for each in (few, other, copy.deepcopy(few), pickle.loads(pickle.dumps(few))):
            assert torch.equal(each(x), wanted)
        second = layer(inputs, outputs)
        second[0].weight.neg_()
        quantize(second, bits=4)
        few.load_state_dict(second.state_dict())
        assert torch.equal(few(x), second(x)) and not torch.equal(few(x), wanted)


def test_it_takes_a_third_of_bf16():
    few = layer(512, 256, bias=False)
    quantize(few, bits=4)
    size = sum(tensor.numel() * tensor.element_size() for tensor in few.state_dict().values())
    assert size == 512 * 256 * 5 // 8


def test_dequantize_gives_back_plain_layers_with_the_same_weights():
    few = layer()
    quantize(few, bits=4)
    kept = few[0].weight.expanded()
    assert dequantize(few) == ["0"] and type(few[0]) is nn.Linear
    assert torch.equal(few[0].weight, kept)


def test_gradients_reach_the_input():
    few = layer(bias=False)
    quantize(few, bits=4)
    x = torch.randn(3, 96, requires_grad=True)
    few(x).sum().backward()
    torch.testing.assert_close(x.grad, few[0].weight.expanded().sum(0).expand(3, 96))


def test_what_does_not_fit_is_refused():
    int4, scale = to_int4(torch.randn(16, 64))
    with pytest.raises(ShapeError, match=r"for 96 inputs need \[out, 48\] bytes and \[3, out, 2\] scales"):
        Int4Matrix(int4, scale, 96)
    table = nn.ModuleDict({"a": nn.Embedding(4, 4)})
    with pytest.raises(ShapeError, match="a is int4 in the file, but here it is Embedding"):
        shape_like(table, {"a.weight.int4": int4})
