"""Every streaming module under the contract, and the suite itself against modules that break it."""

from __future__ import annotations

import pytest
import torch
from conformance import Case, check_all
from torch import Tensor
from vocoding import vocoder_case

from duologue.models.llama_omni.ctc_decoder import PaperUnitDecoder, PaperUnitDecoderConfig
from duologue.nn.conv import CausalConv1d
from duologue.nn.ctc import collapse, init_collapse
from duologue.nn.transformer import Blocks, Transformer, TransformerConfig
from duologue.vocoders.spectral import SpectralVocoder, SpectralVocoderConfig
from duologue.vocoders.unit_vocoder import CodeGenerator, CodeGeneratorConfig

TINY = TransformerConfig(vocab_size=20, dim=16, layers=2, heads=4, kv_heads=2, head_dim=4, ffn_dim=24)
DECODER = PaperUnitDecoderConfig(hidden_dim=12, dim=16, layers=2, heads=2, ffn_dim=24, upsample=5, num_units=9)
SPECTRAL = SpectralVocoderConfig(num_units=9, dim=16, unit_hidden=24, step_hidden=24, rank=6)
VOCODER = CodeGeneratorConfig(
    num_units=11,
    embedding_dim=8,
    initial_channels=16,
    upsample_rates=(5, 2),
    upsample_kernels=(11, 4),
    block_kernels=(3, 5),
    block_dilations=((1, 3), (1, 3)),
    duration_dim=8,
)


def convolution() -> Case:
    conv = CausalConv1d(3, 4, kernel=5, stride=2, dilation=2)
    cuts = [[12], [4, 8], [2] * 6]
    return Case(conv.init_state, lambda x, s, live, _: conv(x, s, live), torch.randn(3, 3, 12), cuts, axis=2)


def blocks() -> Case:
    module = Blocks(TINY)
    cuts = [[1] * 12, [6, 6], [5, 1, 6]]
    return Case(
        lambda n: module.init_state(n, 24), lambda x, s, live, _: module(x, s, live), torch.randn(3, 12, 16), cuts
    )


def transformer() -> Case:
    model = Transformer(TINY)

    def call(ids_BT: Tensor, state, live_B: Tensor, _: bool) -> Tensor:
        return model.logits(model(model.embedding(ids_BT), state, live_B))

    return Case(lambda n: model.init_state(n, 24), call, torch.randint(20, (3, 12)), [[1] * 12, [7, 1, 4]])


def decoder() -> Case:
    module = PaperUnitDecoder(DECODER)
    cuts = [[1] * 6, [2, 1, 3]]
    return Case(
        lambda n: module.init_state(n, 12), lambda x, s, live, _: module(x, s, live), torch.randn(3, 6, 12), cuts
    )


def collapsing() -> Case:
    ids_BT = torch.randint(4, (3, 60))
    return Case(
        init_collapse,
        lambda ids, state, live, _: collapse(ids, state, live, blank=3)[:2],
        ids_BT,
        [[1] * 60, [30, 30], [7, 13, 40]],
        exact=True,
    )


def vocoder(lookahead: int | None = None) -> Case:
    module = CodeGenerator(VOCODER, lookahead=lookahead)
    spread(module)
    return vocoder_case(module, torch.randint(11, (3, 40)), [[1] * 40, [40], [20, 20], [3, 17, 9, 11]])


def spectral(prosody_BTP: Tensor | None = None) -> Case:
    module = SpectralVocoder(SPECTRAL).eval()
    module.mean.data.fill_(-3.0)
    module.head.bias.data[SPECTRAL.rank :: SPECTRAL.rank + 2] = 1.0  # most frames voiced
    cuts = [[1] * 23, [2, 21], [10, 10, 3]]
    return vocoder_case(module, torch.randint(9, (3, 23)), cuts, prosody_BTP)


def spectral_with_prosody() -> Case:
    log_f0_BT = torch.where(torch.rand(3, 23) < 0.7, 5.2 + 0.2 * torch.randn(3, 23), 0.0)
    return spectral(torch.stack([2 * torch.rand(3, 23), log_f0_BT, torch.randn(3, 23) - 4], dim=-1))


def spread(module: CodeGenerator) -> None:
    """Makes random weights give lengths of one to six frames and audible differences."""
    module.duration.out.weight.data.normal_(std=0.3)
    module.duration.out.bias.data.fill_(1.2)
    for parameter in module.conv_post.parameters():
        parameter.data.mul_(4)


CASES = [convolution, blocks, transformer, decoder, collapsing, vocoder, spectral, spectral_with_prosody]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_streaming_contract(make):
    torch.manual_seed(0)
    check_all(make())


def test_the_suite_catches_a_module_that_loses_its_context():
    torch.manual_seed(0)
    case = vocoder(lookahead=0)  # gives samples before they are settled
    with pytest.raises(AssertionError):
        check_all(case)


def test_the_suite_catches_an_idle_slot_that_moves():
    conv = CausalConv1d(3, 4, kernel=3)

    def call(x_BCT: Tensor, state, live_B: Tensor, _: bool) -> Tensor:
        return conv(x_BCT, state, torch.ones_like(live_B))

    with pytest.raises(AssertionError, match="idle slot changed"):
        check_all(Case(conv.init_state, call, torch.randn(3, 3, 12), [[4, 8]], axis=2))


def test_the_suite_catches_slots_that_mix():
    conv = CausalConv1d(3, 4, kernel=3)

    def call(x_BCT: Tensor, state, live_B: Tensor, _: bool) -> Tensor:
        return conv(x_BCT - x_BCT[:1] * 0.01, state, live_B)

    with pytest.raises(AssertionError):
        check_all(Case(conv.init_state, call, torch.randn(3, 3, 12), [[4, 8]], axis=2))
