"""The unit vocoder against independent references, and its chunks against the whole."""

import pytest
import torch
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig
from vocoding import say

from duologue.errors import ConfigError, PartError, ShapeError
from duologue.vocoders.unit_vocoder import CodeGenerator, CodeGeneratorConfig

TINY = CodeGeneratorConfig(
    num_units=11,
    embedding_dim=8,
    initial_channels=16,
    upsample_rates=(5, 2),
    upsample_kernels=(11, 4),
    block_kernels=(3, 5),
    block_dilations=((1, 3), (1, 3)),
    duration_dim=8,
)
ONE, LAST, MORE = torch.tensor([True]), torch.tensor([True]), torch.tensor([False])


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def make(**options) -> CodeGenerator:
    """Random weights that give lengths of one to six frames and a waveform that fills its range."""
    torch.manual_seed(0)
    vocoder = CodeGenerator(TINY, **options)
    vocoder.duration.out.weight.normal_(std=0.3)
    vocoder.duration.out.bias.fill_(1.2)
    for name, weight in vocoder.named_parameters():
        if name.startswith(("ups", "fusions")) and weight.dim() == 3:
            weight.mul_(2.5)  # so that what is far away can be heard
    vocoder.conv_post.bias.zero_()
    units_BT = torch.randint(11, (1, 50), generator=torch.Generator().manual_seed(1))
    vocoder.conv_post.weight.mul_(0.5 / vocoder.waveform(units_BT).atanh().std())
    return vocoder


def speak(vocoder: CodeGenerator, units_T: torch.Tensor, cut: list[int]) -> torch.Tensor:
    return say(vocoder, units_T[None], cut).audio[0]


def test_generator_agrees_with_transformers_hifigan():
    vocoder = make()
    reference = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=8,
            upsample_initial_channel=16,
            upsample_rates=[5, 2],
            upsample_kernel_sizes=[11, 4],
            resblock_kernel_sizes=[3, 5],
            resblock_dilation_sizes=[[1, 3], [1, 3]],
            normalize_before=False,
        )
    )
    names = {"ups.": "upsampler.", "fusions.0.blocks.": "resblocks.", "fusions.1.blocks.0": "resblocks.2"}
    names["fusions.1.blocks.1"] = "resblocks.3"
    renamed = {}
    for name, tensor in vocoder.state_dict().items():
        if not name.startswith(("embedding", "duration")):
            for ours, theirs in names.items():
                name = name.replace(ours, theirs)
            renamed[name] = tensor
    missing, unexpected = reference.load_state_dict(renamed, strict=False)
    assert set(missing) <= {"mean", "scale"} and not unexpected
    units_BT = torch.randint(11, (2, 30))
    want = reference(vocoder.embedding(units_BT))
    got = vocoder.waveform(units_BT)
    assert got.std() > 0.1
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_lengths_agree_with_a_plain_reference():
    vocoder = make()
    units_T = torch.randint(11, (1, 50))
    d, x = vocoder.duration, vocoder.embedding(units_T)[0]
    for conv, norm in ((d.conv1, d.norm1), (d.conv2, d.norm2)):
        padded = torch.cat([torch.zeros(1, x.shape[1]), x, torch.zeros(1, x.shape[1])])
        x = sum(padded[k : k + len(x)] @ conv.weight[..., k].T for k in range(3)) + conv.bias
        x = x.clamp(min=0)
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        x = x * norm.weight + norm.bias
    want = ((x @ d.out.weight[0] + d.out.bias).exp() - 1).round().clamp(min=1)
    assert vocoder.frames(units_T[0]).tolist() == want.tolist()
    assert len(set(want.tolist())) > 2


@pytest.mark.parametrize("omega", [1, 3, 10, 39])
def test_no_seam_whatever_the_chunk(omega):
    vocoder, units_T = make(), torch.randint(11, (1, 80))[0]
    whole = vocoder.render(units_T, vocoder.frames(units_T))
    cut = [omega] * (80 // omega) + [80 % omega] * (80 % omega > 0)
    torch.testing.assert_close(speak(vocoder, units_T, cut), whole, rtol=1e-4, atol=1e-4)


def test_the_published_chunks_have_seams_where_ours_have_none():
    units_T = torch.randint(11, (1, 80), generator=torch.Generator().manual_seed(0))[0]
    cut = [10] * 8
    whole = speak(make(), units_T, [80])
    ours, published = speak(make(), units_T, cut), speak(make(independent=True), units_T, cut)
    each = [speak(make(), piece, [10]) for piece in units_T.split(10)]
    torch.testing.assert_close(published, torch.cat(each))
    length = min(len(whole), len(published))
    assert (ours - whole).abs().max() < 1e-4
    assert (published[:length] - whole[:length]).abs().max() > 0.01


def test_reach_is_what_the_network_sees_and_no_more():
    vocoder = make().double()
    units_T, changed = torch.full((81,), 3), torch.full((81,), 3)
    changed[40] = 7
    ones, hop = torch.ones(81, dtype=torch.int64), vocoder.hop
    differs = (vocoder.render(units_T, ones) != vocoder.render(changed, ones)).view(81, hop).any(1)
    touched = differs.nonzero()[:, 0] - 40
    assert touched.min() == -vocoder.reach.after  # a frame sees `after` frames ahead
    assert touched.max() == vocoder.reach.before
    released = CodeGenerator(CodeGeneratorConfig())
    assert (released.reach.before, released.reach.after, released.hop) == (21, 21, 320)


def test_less_look_ahead_speaks_earlier():
    units_BT = torch.randint(11, (1, 12))
    counts = []
    for lookahead in (None, 2):
        vocoder = make(lookahead=lookahead)
        _, samples_B = vocoder(units_BT, torch.tensor([12]), vocoder.init_state(1), ONE, MORE)
        counts.append(int(samples_B))
    assert 0 < counts[0] < counts[1]
    units_T = torch.randint(11, (40,))
    assert len(speak(make(lookahead=2), units_T, [10] * 4)) == len(speak(make(), units_T, [40]))


def test_ragged_rows_speak_as_alone():
    vocoder = make()
    units_BT, counts_B = torch.randint(11, (3, 20)), torch.tensor([20, 7, 0])
    state, all_B = vocoder.init_state(3), torch.ones(3, dtype=torch.bool)
    audio_BN, samples_B = vocoder(units_BT, counts_B, state, all_B, all_B)
    for slot in (0, 1):
        want = speak(vocoder, units_BT[slot, : counts_B[slot]], [int(counts_B[slot])])
        torch.testing.assert_close(audio_BN[slot, : samples_B[slot]], want)
        assert not audio_BN[slot, samples_B[slot] :].any()
    assert samples_B[2] == 0


def test_after_the_end_the_slot_is_fresh():
    vocoder, units_BT = make(), torch.randint(11, (1, 20))
    state = vocoder.init_state(1)
    vocoder(units_BT, torch.tensor([20]), state, ONE, MORE)
    assert any(tensor.any() for _, tensor in state.tensors())
    audio_BN, _ = vocoder(units_BT[:, :0], torch.tensor([0]), state, ONE, LAST)
    assert audio_BN.shape[1] > 0  # what was held back
    assert not any(tensor.any() for _, tensor in state.tensors())


def test_what_cannot_be_spoken_is_refused():
    vocoder = make()
    state = vocoder.init_state(1)
    with pytest.raises(ShapeError, match="units must be 0 to 10, got 11"):
        vocoder(torch.tensor([[3, 11]]), torch.tensor([2]), state, ONE, LAST)
    with pytest.raises(ShapeError, match="exceed the 2 units"):
        vocoder(torch.tensor([[3, 1]]), torch.tensor([3]), state, ONE, LAST)
    with pytest.raises(PartError, match="without prosody"):
        vocoder(torch.tensor([[3, 1]]), torch.tensor([2]), state, ONE, LAST, torch.zeros(1, 2, 3))
    with pytest.raises(ConfigError, match="even number"):
        CodeGeneratorConfig(upsample_kernels=(10, 8, 8, 4, 4))
    with pytest.raises(ConfigError, match="lookahead"):
        CodeGenerator(TINY, lookahead=-1)
