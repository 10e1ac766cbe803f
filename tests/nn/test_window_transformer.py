"""The windowed transformer against the `moshi` package's on the same random weights, and under the contract."""

import pytest
import torch
from conformance import Case, check_all
from moshi.modules.transformer import StreamingTransformer
from moshi.utils.compile import no_compile

from duologue.errors import ConfigError, ShapeError
from duologue.nn.window_transformer import WindowConfig, WindowTransformer, make_norm

SHAPE = {"dim": 16, "layers": 2, "heads": 2, "context": 5}
CONFIGS = {
    "moshi": WindowConfig(**SHAPE, ffn_dim=24),
    "mimi": WindowConfig(**SHAPE, ffn_dim=32, ffn="gelu", norm="layer", norm_eps=1e-5, layer_scale=0.3, chunk=2),
    "grouped": WindowConfig(**{**SHAPE, "heads": 4}, kv_heads=2, ffn_dim=24, chunk=3),
}
REFERENCE = {
    "moshi": {"num_heads": 2, "norm": "rms_norm_f32", "gating": "silu", "dim_feedforward": 36},
    "mimi": {"num_heads": 2, "norm": "layer_norm", "gating": "none", "dim_feedforward": 32, "layer_scale": 0.3},
    "grouped": {"num_heads": 4, "norm": "rms_norm_f32", "gating": "silu", "dim_feedforward": 36, "kv_repeat": 2},
}
NAMES = {
    "norm1.alpha": "attention_norm.weight",
    "norm2.alpha": "ffn_norm.weight",
    "norm1.": "attention_norm.",
    "norm2.": "ffn_norm.",
    "self_attn.in_projs.0.": "attention.qkv.",
    "self_attn.out_projs.0.": "attention.out.",
    "gating.linear_in.": "up.",
    "gating.linear_out.": "down.",
    "linear1.": "up.",
    "linear2.": "down.",
    "layer_scale_1.scale": "attention_scale",
    "layer_scale_2.scale": "ffn_scale",
}


@pytest.fixture(params=CONFIGS)
def kind(request) -> str:
    torch.manual_seed(0)
    return request.param


def make(kind: str) -> WindowTransformer:
    model = WindowTransformer(CONFIGS[kind]).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm.weight" in name), std=0.3)
    return model


def reference(kind: str, model: WindowTransformer) -> StreamingTransformer:
    theirs = StreamingTransformer(
        d_model=16, num_layers=2, causal=True, context=5, positional_embedding="rope", **REFERENCE[kind]
    )
    ours, state = model.state_dict(), {}
    for name, tensor in theirs.state_dict().items():
        mapped = name
        for old, new in NAMES.items():
            mapped = mapped.replace(old, new)
        state[name] = ours.pop(mapped).view(tensor.shape)
    assert not ours
    theirs.load_state_dict(state)
    return theirs.eval()


@torch.no_grad()
def test_the_whole_and_its_steps_equal_the_reference(kind):
    model, x_BTD, live_B = make(kind), torch.randn(2, 23, 16), torch.ones(2, dtype=torch.bool)
    with no_compile():
        want = reference(kind, model)(x_BTD)
    torch.testing.assert_close(model(x_BTD, model.init_state(2), live_B), want, rtol=1e-5, atol=1e-5)
    state = model.init_state(2)
    got = torch.cat([model(piece, state, live_B) for piece in x_BTD.split(1, 1)], 1)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert want.std() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_without_gradients_is_torchs(dtype):
    torch.manual_seed(0)
    norm = make_norm("rms", 96, 1e-8)
    torch.nn.init.normal_(norm.weight, mean=1.0, std=0.2)
    norm = norm.to(dtype)
    x = (torch.randn(7, 3, 96) * torch.logspace(-5, 3, 7)[:, None, None]).to(dtype)
    wanted = torch.nn.functional.rms_norm(x, (96,), norm.weight, 1e-8).detach()
    torch.testing.assert_close(norm(x), wanted, rtol=1e-6, atol=3e-7)
    assert torch.equal(norm(x)[:1], norm(x[:1])) and norm(x).is_contiguous()
    assert norm(torch.zeros(1, 96, dtype=dtype)).abs().max() == 0


def test_far_from_the_start_it_still_equals_the_reference():
    torch.manual_seed(0)
    model, x_BTD, live_B = make("moshi"), torch.randn(1, 3, 16), torch.ones(1, dtype=torch.bool)
    theirs, state = reference("moshi", model), model.init_state(1)
    state.offset_B += 90_001  # two hours of 80 ms
    with no_compile(), theirs.streaming(1):
        for module in theirs.modules():
            inner = getattr(module, "_streaming_state", None)
            if hasattr(inner, "kv_cache"):
                inner.offset += 90_001
                inner.kv_cache.end_offset += 90_001
        for piece in x_BTD.split(1, 1):
            torch.testing.assert_close(model(piece, state, live_B), theirs(piece), rtol=1e-5, atol=1e-5)


def test_the_streaming_contract(kind):
    model = make(kind)
    cuts = [[14, 2], [1, 2, 13], [7, 9], [1] * 16]
    check_all(Case(make_state=model.init_state, call=lambda x, s, live, _: model(x, s, live),
                   inputs=torch.randn(3, 16, 16), cuts=cuts, tolerance=1e-5))  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("call", [0, 10_000], ids=["slots one by one", "slots together"])
def test_slots_at_different_places_equal_each_alone(kind, call, monkeypatch):
    monkeypatch.setattr("duologue.nn.ring._CALL", call)
    model, state = make(kind), None
    state, alone = model.init_state(5), [model.init_state(1) for _ in range(5)]
    for tick in range(24):
        live_B = torch.rand(5) < 0.6
        x_BTD = torch.randn(5, 1 + tick % 3, 16)
        got = model(x_BTD, state, live_B)
        for slot in live_B.nonzero()[:, 0].tolist():
            want = model(x_BTD[slot : slot + 1], alone[slot], torch.ones(1, dtype=torch.bool))
            torch.testing.assert_close(got[slot], want[0], rtol=1e-5, atol=1e-5)
        assert not got[~live_B].any()
    assert len(set(state.offset_B.tolist())) > 1


@torch.no_grad()
def test_a_step_of_fixed_shapes_is_the_same_step(kind):
    model = make(kind)
    state, static = model.init_state(4), model.init_state(4)
    capacity = static.k_BLHTD.shape[3]
    for tick in range(20):
        live_B, x_BD = torch.rand(4) < 0.6, torch.randn(4, 16)
        keys = capacity if tick % 2 else min(capacity, int(static.offset_B.max()) + 1)
        want = model(x_BD[:, None], state, live_B)[:, 0]
        got = model.step(x_BD, static, live_B, keys=keys)
        torch.testing.assert_close(got[live_B], want[live_B], rtol=1e-5, atol=1e-5)
        for name, tensor in state.save(0).items():
            torch.testing.assert_close(static.save(0)[name], tensor, rtol=1e-5, atol=1e-5)
    assert int(state.offset_B.max()) > capacity  # the ring went round


@torch.no_grad()
def test_a_step_of_fixed_shapes_looks_at_no_number(kind):
    """As a captured graph may not: the meta device has none."""
    with torch.device("meta"):
        model = WindowTransformer(CONFIGS[kind]).eval()
        state, live_B = model.init_state(4), torch.ones(4, dtype=torch.bool)
        capacity = state.k_BLHTD.shape[3]
        assert model.step(torch.randn(4, 16), state, live_B, keys=capacity).shape == (4, 16)
        with pytest.raises((RuntimeError, NotImplementedError)):
            model(torch.randn(4, 1, 16), state, live_B)  # which looks


def test_with_gradients_the_numbers_are_the_same_and_reach_every_weight(kind):
    model, x_BTD, live_B = make(kind), torch.randn(2, 12, 16), torch.ones(2, dtype=torch.bool)
    with torch.no_grad():
        want = model(x_BTD, model.init_state(2), live_B)
    state = model.init_state(2)
    got = torch.cat([model(piece, state, live_B) for piece in x_BTD.split([7, 1, 4], 1)], 1)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    got.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    assert not state.k_BLHTD.requires_grad


@torch.no_grad()
def test_what_left_the_window_is_forgotten(kind):
    model, x_BTD, live_B = make(kind), torch.randn(1, 30, 16), torch.ones(1, dtype=torch.bool)
    other_BTD = x_BTD.clone()
    other_BTD[:, :21] = torch.randn(1, 21, 16)
    reach = 2 * (5 - 1)  # layers times the steps before its own that each sees
    a, b = (model(x, model.init_state(1), live_B) for x in (x_BTD, other_BTD))
    torch.testing.assert_close(a[:, 21 + reach :], b[:, 21 + reach :], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(a[:, 20 + reach], b[:, 20 + reach], atol=1e-5)


def test_a_long_stream_is_cut_without_a_trace(monkeypatch):
    torch.manual_seed(0)
    model, x_BTD, live_B = make("moshi"), torch.randn(1, 600, 16), torch.ones(1, dtype=torch.bool)
    whole = model(x_BTD, model.init_state(1), live_B).detach()  # with gradients: one piece
    with torch.no_grad():
        torch.testing.assert_close(model(x_BTD, model.init_state(1), live_B), whole, rtol=1e-5, atol=1e-5)


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="heads must divide dim"):
        WindowConfig(dim=10, heads=3)
    with pytest.raises(ConfigError, match="need ffn"):
        WindowConfig(ffn="relu")
    model = make("moshi")
    with pytest.raises(ShapeError, match=r"need \[B, T, 16\], got \(1, 0, 16\)"):
        model(torch.randn(1, 0, 16), model.init_state(1), torch.ones(1, dtype=torch.bool))
