import pytest
import torch

from duologue.errors import ConfigError, ShapeError
from duologue.nn.attention import CrossAttention, KVCache, RopeScaling, SelfAttention, attend, parts
from duologue.nn.transformer import Blocks, TransformerConfig

TINY = TransformerConfig(dim=16, layers=2, heads=4, kv_heads=2, head_dim=4, ffn_dim=24)


def test_grouped_queries_equal_repeated_keys():
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 6, 5, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 8)
    mask_BTK = torch.rand(2, 5, 7) < 0.7
    mask_BTK[..., 0] = True
    weights = (q @ k.repeat_interleave(3, 1).mT / 8**0.5).masked_fill(~mask_BTK[:, None], float("-inf")).softmax(-1)
    want = (weights @ v.repeat_interleave(3, 1)).transpose(1, 2).reshape(2, 5, 48)
    torch.testing.assert_close(attend(q, k, v, mask_BTK), want)


def test_ragged_steps_equal_each_slot_alone():
    torch.manual_seed(0)
    blocks = Blocks(TINY).eval()
    x_BTD, steps = torch.randn(3, 6, 16), [6, 0, 3]
    state = blocks.init_state(3, 12)
    with torch.no_grad():
        blocks(torch.randn(3, 2, 16), state, torch.ones(3, dtype=torch.bool))  # not from the start
        alone = [state.save(slot) for slot in range(3)]
        got = blocks(x_BTD, state, torch.ones(3, dtype=torch.bool), torch.tensor(steps))
        assert state.length_B.tolist() == [8, 2, 5]
        for slot, count in enumerate(steps):
            if count:
                one = blocks.init_state(1, 12)
                one.load(0, alone[slot])
                want = blocks(x_BTD[slot : slot + 1, :count], one, torch.tensor([True]))
                torch.testing.assert_close(got[slot, :count], want[0])


def test_slots_without_steps_cost_nothing_and_change_nothing():
    torch.manual_seed(0)
    blocks, live_B = Blocks(TINY).eval(), torch.tensor([False, True, False, True])
    x_BTD, state = torch.randn(4, 1, 16), blocks.init_state(4, 12)
    seen = []
    blocks.layers[0].down.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[0]))
    with torch.no_grad():
        blocks(torch.randn(4, 3, 16), state, torch.ones(4, dtype=torch.bool), torch.tensor([3, 1, 2, 3]))
        before = [state.save(slot) for slot in range(4)]
        got = blocks(x_BTD, state, live_B)
        assert seen == [4, 2]
        for slot in range(4):
            one = blocks.init_state(1, 12)
            one.load(0, before[slot])
            if live_B[slot]:
                torch.testing.assert_close(got[slot], blocks(x_BTD[slot : slot + 1], one, torch.tensor([True]))[0])
            torch.testing.assert_close(state.save(slot), one.save(0))
        assert all(torch.equal(state.save(0)[name], tensor) for name, tensor in before[0].items())


def test_without_no_grad_the_numbers_are_the_same():
    torch.manual_seed(0)
    blocks, live_B = Blocks(TINY), torch.ones(2, dtype=torch.bool)
    x_BTD = torch.randn(2, 6, 16)
    with torch.no_grad():
        want = blocks(x_BTD, blocks.init_state(2, 6), live_B)
    state = blocks.init_state(2, 6)
    got = torch.cat([blocks(piece, state, live_B) for piece in x_BTD.split([3, 1, 2], dim=1)], dim=1)
    torch.testing.assert_close(got, want)
    assert not state.k_BLHTD.requires_grad


@pytest.mark.parametrize("steps", [None, [6, 4]], ids=["whole", "ragged"])
def test_gradients_flow_through_a_chunk_and_are_right(steps):
    torch.manual_seed(0)
    attention = SelfAttention(8, heads=2, kv_heads=1, head_dim=4).double()
    live_B = torch.ones(2, dtype=torch.bool)
    steps_B = None if steps is None else torch.tensor(steps)
    real_BT = torch.arange(6) < (torch.tensor([6, 6]) if steps is None else steps_B)[:, None]

    def run(x_BTD: torch.Tensor) -> torch.Tensor:
        cache = KVCache.make(2, layers=1, kv_heads=1, capacity=6, head_dim=4, like=x_BTD.detach())
        return attention(x_BTD, parts(cache, 6, live_B, steps_B)[0], 0) * real_BT[..., None]

    assert torch.autograd.gradcheck(run, torch.randn(2, 6, 8, dtype=torch.float64, requires_grad=True))


def test_a_full_cache_is_refused_and_left_alone():
    blocks = Blocks(TINY)
    state = blocks.init_state(2, 4)
    before = state.save(0)
    with pytest.raises(ShapeError, match="need room for 5 positions, have 4"):
        blocks(torch.randn(2, 5, 16), state, torch.tensor([True, True]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.save(0).items())


def test_cross_attention_masks_what_is_padding():
    torch.manual_seed(0)
    cross = CrossAttention(8, heads=2, memory_dim=6)
    encoded = torch.randn(1, 5, 6)
    k, v = cross.remember(encoded)
    short_k, short_v = cross.remember(encoded[:, :3])
    mask_BTK = (torch.arange(5) < 3)[None, None].expand(1, 4, -1)
    x_BTD = torch.randn(1, 4, 8)
    torch.testing.assert_close(cross(x_BTD, k, v, mask_BTK), cross(x_BTD, short_k, short_v))


def test_shapes_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="kv_heads must divide heads"):
        SelfAttention(8, heads=3, kv_heads=2, head_dim=4)
    with pytest.raises(ConfigError, match="high_freq_factor"):
        RopeScaling(low_freq_factor=4.0, high_freq_factor=4.0)
    with pytest.raises(ShapeError, match="need width 16, got 8"):
        Blocks(TINY)(torch.randn(1, 2, 8), Blocks(TINY).init_state(1, 4), torch.tensor([True]))
