"""The paper's speech decoder against a reference built from plain operations that runs the whole prefix every time."""

import math

import pytest
import torch
from torch import Tensor

from duologue.errors import ConfigError, ShapeError
from duologue.models.llama_omni.ctc_decoder import PaperUnitDecoder, PaperUnitDecoderConfig, answer_states
from duologue.nn.attention import RopeScaling
from duologue.nn.ctc import collapse, init_collapse

TINY = PaperUnitDecoderConfig(
    hidden_dim=12,
    dim=16,
    layers=2,
    heads=2,
    ffn_dim=24,
    upsample=5,
    num_units=7,
    rope_scaling=RopeScaling(factor=4.0, original_max_position=16),
)


def make() -> PaperUnitDecoder:
    torch.manual_seed(0)
    decoder = PaperUnitDecoder(TINY).eval()
    for parameter in decoder.parameters():  # large enough that attention and position matter
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.4)
    return decoder


def wave_numbers(dim: int, theta: float, scaling: RopeScaling) -> list[float]:
    """Llama 3.1's rotary frequencies, by its three cases."""
    found = []
    for pair in range(dim // 2):
        frequency = theta ** (-2 * pair / dim)
        wavelength = 2 * math.pi / frequency
        if wavelength > scaling.original_max_position / scaling.low_freq_factor:
            frequency /= scaling.factor
        elif wavelength >= scaling.original_max_position / scaling.high_freq_factor:
            share = scaling.original_max_position / wavelength - scaling.low_freq_factor
            share /= scaling.high_freq_factor - scaling.low_freq_factor
            frequency = (1 - share) * frequency / scaling.factor + share * frequency
        found.append(frequency)
    return found


def reference(decoder: PaperUnitDecoder, hidden_MD: Tensor) -> Tensor:
    """Scores for M hidden states, from nothing but the weights: one head and one position at a time."""
    c, weights = decoder.config, decoder.state_dict()
    size = c.dim // c.heads
    angles = torch.tensor(wave_numbers(size, c.rope_theta, c.rope_scaling))

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + c.norm_eps).sqrt() * weights[name]

    def turn(x: Tensor) -> Tensor:
        steps = torch.arange(len(x))[:, None] * angles
        a, b = x[:, : size // 2], x[:, size // 2 :]
        return torch.cat([a * steps.cos() - b * steps.sin(), b * steps.cos() + a * steps.sin()], dim=1)

    x = hidden_MD @ weights["input_proj.weight"].T + weights["input_proj.bias"]
    x = torch.stack([row for row in x for _ in range(c.upsample)])
    for layer in range(c.layers):
        name = f"blocks.layers.{layer}."
        q, k, v = (norm(x, f"{name}attention_norm.weight") @ weights[f"{name}attention.qkv.weight"].T).chunk(3, dim=1)
        heads = []
        for head in range(c.heads):
            part = slice(head * size, (head + 1) * size)
            turned_q, turned_k = turn(q[:, part]), turn(k[:, part])
            rows = []
            for step in range(len(x)):
                share = (turned_k[: step + 1] @ turned_q[step] / size**0.5).softmax(0)
                rows.append(share @ v[: step + 1, part])
            heads.append(torch.stack(rows))
        x = x + torch.cat(heads, dim=1) @ weights[f"{name}attention.out.weight"].T
        gate, up = (norm(x, f"{name}ffn_norm.weight") @ weights[f"{name}gate_up.weight"].T).chunk(2, dim=1)
        x = x + (gate * gate.sigmoid() * up) @ weights[f"{name}down.weight"].T
    return x @ weights["output_proj.weight"].T + weights["output_proj.bias"]


@torch.no_grad()
def test_scores_agree_with_the_reference():
    decoder, hidden_BMD = make(), torch.randn(2, 8, 12)
    got = decoder(hidden_BMD, decoder.init_state(2, 8), torch.tensor([True, True]))
    want = torch.stack([reference(decoder, hidden_MD) for hidden_MD in hidden_BMD])
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_streaming_gives_the_units_of_recomputing_the_whole_prefix():
    decoder, slots, tokens = make(), 2, 8
    hidden_BMD, live_B = torch.randn(slots, tokens, 12) * 2, torch.ones(2, dtype=torch.bool)
    cache, last = decoder.init_state(slots, tokens), init_collapse(slots)
    streamed: list[list[int]] = [[] for _ in range(slots)]
    for token in range(tokens):
        ids_BT = decoder(hidden_BMD[:, token : token + 1], cache, live_B).argmax(-1)
        units_BT, counts_B, _ = collapse(ids_BT, last, live_B, blank=TINY.blank)
        for slot in range(slots):
            streamed[slot] += units_BT[slot, : counts_B[slot]].tolist()
            path = reference(decoder, hidden_BMD[slot, : token + 1]).argmax(-1).tolist()  # the released way: O(M^2)
            merged = [s for i, s in enumerate(path) if i == 0 or path[i - 1] != s]
            assert streamed[slot] == [s for s in merged if s != TINY.blank]
    assert all(len(set(units)) > 2 for units in streamed)


@torch.no_grad()
def test_ragged_hidden_states_decode_as_alone():
    decoder, hidden_BMD = make(), torch.randn(2, 4, 12)
    state, live_B = decoder.init_state(2, 8), torch.tensor([True, True])
    decoder(hidden_BMD, state, live_B, torch.tensor([4, 1]))
    got = decoder(hidden_BMD, state, live_B, torch.tensor([1, 4]))
    want = reference(decoder, torch.cat([hidden_BMD[1, :1], hidden_BMD[1]]))
    torch.testing.assert_close(got[1], want[TINY.upsample :], rtol=1e-4, atol=1e-4)


def test_hidden_positions_differ_by_one_step():
    hidden_BTD = torch.arange(20.0).view(2, 10, 1)
    begins_B, counts_B = torch.tensor([4, 7]), torch.tensor([3, 2])
    predicting = answer_states(hidden_BTD, begins_B, counts_B, position="predicting")[..., 0]
    consumed = answer_states(hidden_BTD, begins_B, counts_B, position="consumed")[..., 0]
    assert predicting[0].tolist() == [3, 4, 5] and consumed[0].tolist() == [4, 5, 6]
    assert predicting[1, :2].tolist() == [16, 17] and consumed[1, :2].tolist() == [17, 18]
    with pytest.raises(ShapeError, match="do not lie"):
        answer_states(hidden_BTD, torch.tensor([0, 7]), counts_B, position="predicting")
    with pytest.raises(ShapeError, match="do not lie"):
        answer_states(hidden_BTD, torch.tensor([4, 9]), counts_B, position="consumed")


def test_the_decoder_learns_units_by_ctc():
    decoder, hidden_BMD = make(), torch.randn(2, 4, 12)
    targets_BU, losses = torch.tensor([[0, 3, 3, 1], [5, 2, 6, 0]]), []
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.01)
    for _ in range(30):
        logits = decoder(hidden_BMD, decoder.init_state(2, 4), torch.tensor([True, True]))
        loss = torch.nn.functional.ctc_loss(
            logits.log_softmax(-1).transpose(0, 1), targets_BU, [20, 20], [4, 4], blank=TINY.blank
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10


def test_shapes_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="heads must divide dim"):
        PaperUnitDecoderConfig(dim=10, heads=3)
    with pytest.raises(ConfigError, match="upsample"):
        PaperUnitDecoderConfig(upsample=0)
