import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from duologue.errors import ShapeError
from duologue.nn.quant import (
    Int8Embedding,
    dequantize,
    from_int8,
    has_integer_product,
    pack_int8,
    quantize,
    release,
    set_activations,
    shape_like,
    to_int8,
    unpack_int8,
)
from duologue.nn.quant_matrix import QuantLinear
from duologue.nn.transformer import Transformer, TransformerConfig

WAYS = ["bf16", "int8", "int16"]  # where a CPU has no integer product, the last two are as the first
SMALL = TransformerConfig(vocab_size=96, dim=64, layers=2, heads=4, kv_heads=2, head_dim=16, ffn_dim=128)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Transformer(SMALL).eval()


def logits(model, ids_BT):
    with torch.no_grad():
        state = model.init_state(len(ids_BT), ids_BT.shape[1])
        return model.logits(model(model.embedding(ids_BT), state, torch.ones(len(ids_BT), dtype=torch.bool)))


def error(value, wanted):
    return float((value.float() - wanted).norm() / wanted.norm())


def test_rounding_is_within_half_a_step_of_each_row():
    weight = torch.randn(8, 3, 5) * torch.logspace(-4, 2, 8)[:, None, None]
    int8, scale = to_int8(weight)
    assert int8.dtype == torch.int8 and int8.shape == weight.shape
    off = (from_int8(int8, scale) - weight).abs().flatten(1).amax(1)
    assert (off <= scale * 0.5001).all()
    assert (int8.flatten(1).abs().amax(1) == 127).all()
    assert torch.equal(from_int8(*to_int8(torch.zeros(2, 3))), torch.zeros(2, 3))


@pytest.mark.parametrize("rows", [1, 3, 16, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activations", WAYS)
def test_the_product_is_that_of_the_rounded_weights(rows, dtype, activations):
    torch.manual_seed(rows)
    layer = nn.Sequential(nn.Linear(96, 64))
    exact = layer[0]
    quantize(layer, activations=activations)
    x = torch.randn(2, rows, 96)
    with torch.no_grad():
        y = layer(x.to(dtype))
        wanted = F.linear(x, from_int8(*to_int8(exact.weight)), exact.bias)
    assert y.dtype == dtype and y.shape == wanted.shape
    assert (
        error(y, wanted)
        < {"bf16": 0.006, "int8": 0.02, "int16": 0.0003 if dtype == torch.float32 else 0.006}[activations]
    )
    assert error(y, exact(x).detach()) < 0.025


@pytest.mark.parametrize("activations", WAYS)
@pytest.mark.parametrize("width", [64, 72, 65])
@pytest.mark.parametrize("offset", [0, 2, 8, 16])
def test_any_address_and_any_width_will_do(activations, width, offset):
    """Torch's kernel ends the process on odd ones. Weights of a mapped file begin at any 8 bytes, slices anywhere."""
    layer = nn.Sequential(nn.Linear(width, 32, bias=False))
    quantize(layer, activations=activations)
    for name, like in (("int8", torch.int8), ("scale", torch.float32)):
        kept = getattr(layer[0].weight, name)
        moved = torch.zeros(kept.numel() + 16, dtype=like)[offset : offset + kept.numel()].view(kept.shape)
        setattr(layer[0].weight, name, moved.copy_(kept))
    x = torch.randn(8 * width + 16).bfloat16()[offset : offset + 8 * width].view(8, width)
    with torch.no_grad():
        assert error(layer(x), F.linear(x.float(), layer[0].weight.expanded())) < 0.02


@pytest.mark.parametrize("activations", WAYS)
def test_rows_do_not_influence_each_other(activations):
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(32, 16))
    quantize(layer, activations=activations)
    x = torch.randn(4, 32)
    with torch.no_grad():
        alone, wild = layer(x[:1]), layer(torch.cat([x[:1], 1e4 * x[1:]]))[:1]
    torch.testing.assert_close(alone, wild)


@pytest.mark.parametrize("activations", WAYS)
def test_a_whole_model_with_a_tied_head_stays_close(model, activations):
    ids_BT = torch.randint(0, SMALL.vocab_size, (2, 9))
    exact = logits(model, ids_BT)
    names = quantize(model, activations=activations)
    assert "embedding" in names and isinstance(model.embedding, Int8Embedding)
    assert len(names) == 1 + 4 * SMALL.layers
    assert not any(p.dim() > 1 for p in model.parameters())
    assert 0 < error(logits(model, ids_BT), exact) < 0.06


def test_only_the_named_layers_are_replaced(model):
    names = quantize(model, ("*.gate_up", "blocks.layers.1.down"))
    assert names == ["blocks.layers.0.gate_up", "blocks.layers.1.gate_up", "blocks.layers.1.down"]
    assert isinstance(model.embedding, nn.Embedding)
    assert quantize(model, lambda name, layer: isinstance(layer, nn.Embedding)) == ["embedding"]
    with pytest.raises(ShapeError, match="no linear layer or embedding fits"):
        quantize(model, ("nothing",))


@pytest.mark.parametrize("activations", WAYS)
def test_saved_and_loaded_it_gives_the_same_numbers(model, tmp_path, activations):
    ids_BT = torch.randint(0, SMALL.vocab_size, (2, 5))
    quantize(model, activations=activations)
    before = logits(model, ids_BT)
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    tensors = load_file(tmp_path / "m.safetensors")
    with torch.device("meta"):
        other = Transformer(SMALL)
    shape_like(other, tensors, activations=activations)
    other.load_state_dict(tensors, strict=True, assign=True)
    assert torch.equal(logits(other, ids_BT), before)
    assert torch.equal(logits(copy.deepcopy(other), ids_BT), before)


@pytest.mark.parametrize("activations", WAYS)
def test_loading_other_weights_takes_effect_after_a_first_use(activations):
    layers = [nn.Sequential(nn.Linear(32, 16)) for _ in range(2)]
    x = torch.randn(2, 32)
    for layer in layers:
        quantize(layer, activations=activations)
    with torch.no_grad():
        first, second = layers[0](x), layers[1](x)
        layers[0].load_state_dict(layers[1].state_dict())
        assert torch.equal(layers[0](x), second) and not torch.equal(first, second)


@pytest.mark.parametrize("activations", WAYS)
def test_released_weights_give_the_same_numbers_and_the_same_state_dict(model, activations):
    ids_BT = torch.randint(0, SMALL.vocab_size, (2, 5))
    quantize(model, activations=activations)
    before, tensors = logits(model, ids_BT), {name: t.clone() for name, t in model.state_dict().items()}
    release(model)
    held = [layer.weight.int8.numel() for layer in model.modules() if isinstance(layer, QuantLinear)]
    assert (sum(held) == 0) == (activations != "bf16" and has_integer_product())
    for each in (model, copy.deepcopy(model)):
        assert torch.equal(logits(each, ids_BT), before)
        state = each.state_dict()
        assert state.keys() == tensors.keys() and all(torch.equal(state[name], tensors[name]) for name in state)
    model.load_state_dict({name: t.flip(0) for name, t in tensors.items()})
    assert not torch.allclose(logits(model, ids_BT), before)
    set_activations(model, "bf16")
    assert error(logits(model, ids_BT), logits(copy.deepcopy(model), ids_BT)) == 0


def test_packed_weights_are_a_quantized_modules_own(model):
    packed = pack_int8(model.state_dict())
    quantize(model)
    own = model.state_dict()
    assert packed.keys() == own.keys()
    assert all(torch.equal(packed[name], own[name]) for name in own)


def test_packing_is_storage_only_and_small(model):
    tensors = {**model.state_dict(), "conv": torch.randn(64, 64, 3), "count": torch.tensor(3)}
    packed = pack_int8(tensors, rest=torch.float16)
    size = {
        name: sum(t.numel() * t.element_size() for t in group.values())
        for name, group in (("plain", tensors), ("packed", packed))
    }
    assert size["packed"] < 0.28 * size["plain"]
    plain = unpack_int8(packed)
    assert plain.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert plain[name].dtype == tensor.dtype and error(plain[name], tensor.float()) < 0.01
    with pytest.raises(ShapeError, match=r"conv.int8 has no conv.scale"):
        unpack_int8({"conv.int8": packed["conv.int8"]})


def test_dequantize_gives_back_plain_layers_with_the_same_weights(model):
    ids_BT = torch.randint(0, SMALL.vocab_size, (1, 5))
    shapes = {name: t.shape for name, t in model.state_dict().items()}
    rounded = Transformer(SMALL).eval()
    rounded.load_state_dict(unpack_int8(pack_int8(model.state_dict())))
    quantize(model)
    dequantize(model)
    assert {name: t.shape for name, t in model.state_dict().items()} == shapes
    torch.testing.assert_close(logits(model, ids_BT), logits(rounded, ids_BT))


def test_gradients_reach_the_input_through_int8_weights():
    layer = nn.Sequential(nn.Linear(8, 4, bias=False))
    quantize(layer)
    x = torch.randn(3, 8, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer[0].weight.expanded().sum(0).expand(3, 8))


def test_a_file_of_another_model_is_refused(model):
    with pytest.raises(ShapeError, match=r"blocks.layers.7.down is int8 in the file, but here it is nothing"):
        shape_like(model, {"blocks.layers.7.down.weight.int8": torch.zeros(1)})
    with pytest.raises(ShapeError, match="need bf16, int8, int16"):
        set_activations(model, "int4")
    assert isinstance(model.blocks.layers[0].down, nn.Linear) and not isinstance(
        model.blocks.layers[0].down, QuantLinear
    )
