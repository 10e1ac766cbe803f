"""The quantiser as it learns; as it encodes it is held against the reference in test_mimi_parity.py."""

import pytest
import torch

from duologue.codecs.rvq import Codebook, QuantizerConfig, SplitQuantizer
from duologue.errors import ConfigError, ShapeError

CONFIG = QuantizerConfig(dim=4, code_dim=4, codebook_size=8, codebooks=3, decay=0.9)


def corners(count: int) -> torch.Tensor:
    """Points close to the eight corners of a cube, the fourth number 0."""
    corner = torch.randint(2, (count, 3)) * 2.0 - 1
    return torch.cat([corner + 0.05 * torch.randn(count, 3), torch.zeros(count, 1)], dim=1)


def plain(config: QuantizerConfig = CONFIG) -> SplitQuantizer:
    """A quantiser whose projections change nothing."""
    quantizer = SplitQuantizer(config)
    for part in (quantizer.semantic, quantizer.acoustic):
        part.input.weight.data.copy_(torch.eye(4))
        part.output.weight.data.copy_(torch.eye(4))
    return quantizer


def buffers(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def test_a_codebook_learns_where_its_vectors_lie():
    torch.manual_seed(0)
    book = Codebook(16, 4, decay=0.9)
    book.begin(corners(64) + 5)  # and now they lie elsewhere
    for _ in range(200):
        x_ND = corners(64)
        book.learn(x_ND, book.nearest(x_ND))
    x_ND = corners(400)
    away_N = (book.vectors()[0][book.nearest(x_ND)] - x_ND).square().sum(1)
    assert away_N.mean() < 0.3 < 2.9 < x_ND.var(0).sum(), "two corners may share a code, but not more"


def test_k_means_alone_finds_the_corners():
    torch.manual_seed(0)
    book = Codebook(8, 4)
    book.begin(corners(400))
    assert len(book.vectors()[0][:, :3].sign().unique(dim=0)) >= 6
    assert book.initialized.item() == 1
    assert book.usage.sum().item() == pytest.approx(400, abs=8)


def test_dead_codes_are_revived_from_the_batch():
    torch.manual_seed(0)
    book, x_ND = Codebook(8, 4), corners(64)
    book.begin(x_ND)
    book.total[2:5] = 1e6 * book.usage[2:5, None]  # far from everything
    book.usage[2:5] *= 1e-3
    book.total[2:5] *= 1e-3
    assert not torch.isin(book.nearest(x_ND), torch.arange(2, 5)).any()
    assert book.learn(x_ND, book.nearest(x_ND)) == 3
    assert book.vectors()[0].abs().max() < 2
    assert torch.isin(book.nearest(x_ND), torch.arange(2, 5)).any()
    assert book.learn(x_ND, book.nearest(x_ND)) == 0, "revived codes get time to be used"


def test_the_vectors_follow_buffers_that_others_change():
    book = Codebook(8, 4)
    before = book.vectors()[0]
    book.total.normal_()
    assert not torch.equal(book.vectors()[0], before)
    assert book.vectors()[0] is book.vectors()[0], "worked out again for nothing"
    book.load_state_dict(Codebook(8, 4).state_dict())
    assert torch.equal(book.vectors()[0], before)


def test_codebooks_begin_one_a_step_and_leave_less_and_less():
    torch.manual_seed(0)
    quantizer = plain(QuantizerConfig(dim=4, code_dim=4, codebook_size=8, codebooks=4, quantize_rate=1.0)).train()
    for step in range(3):
        quantizer(torch.randn(4, 50, 4), 4)
        assert [int(book.initialized) for book in quantizer.acoustic.codebooks] == [1] * (step + 1) + [0] * (2 - step)
    for _ in range(20):
        quantizer(torch.randn(4, 50, 4), 4)
    quantizer.eval()
    x_BTD = torch.randn(4, 50, 4)
    errors = []
    for count in (1, 2, 3):
        codes = quantizer.acoustic.encode(x_BTD, count)
        errors.append((quantizer.acoustic.decode(codes) - x_BTD).square().mean().item())
    assert errors[0] > 1.5 * errors[1] > 2.2 * errors[2], errors


def test_eval_mode_changes_no_buffer_and_quantises_all():
    torch.manual_seed(0)
    quantizer = plain().train()
    for _ in range(5):
        quantizer(torch.randn(4, 50, 4), 3)
    before = buffers(quantizer.eval())
    x_BTD = torch.randn(4, 50, 4)
    quantized = quantizer(x_BTD, 3)
    for name, buffer in buffers(quantizer).items():
        assert torch.equal(buffer, before[name]), name
    torch.testing.assert_close(quantized.codes_BKT, quantizer.encode(x_BTD, 3))
    torch.testing.assert_close(quantized.x_BTD, quantizer.decode(quantized.codes_BKT))
    quantizer.train()(x_BTD, 3)
    assert any(not torch.equal(buffer, before[name]) for name, buffer in buffers(quantizer).items())


def test_half_of_the_batch_passes_as_it_is():
    torch.manual_seed(0)
    quantizer = plain().train()
    quantizer(torch.randn(64, 10, 4), 3)
    x_BTD = torch.randn(64, 10, 4)
    quantized = quantizer(x_BTD, 3, generator=torch.Generator().manual_seed(1)).x_BTD
    passed_B = (quantized - 2 * x_BTD).abs().amax((1, 2)) < 1e-5  # both parts give x
    assert 20 <= int(passed_B.sum()) <= 44
    again = quantizer.train()(x_BTD, 3, generator=torch.Generator().manual_seed(1)).x_BTD
    assert torch.equal((again - 2 * x_BTD).abs().amax((1, 2)) < 1e-5, passed_B)


def test_gradients_pass_straight_through_and_commit():
    torch.manual_seed(0)
    quantizer = plain(QuantizerConfig(dim=4, code_dim=4, codebook_size=8, codebooks=3, quantize_rate=1.0)).train()
    for _ in range(3):
        quantizer(torch.randn(4, 50, 4), 3)
    x_BTD = torch.randn(4, 50, 4, requires_grad=True)
    quantized = quantizer(x_BTD, 3)
    quantized.x_BTD.sum().backward()
    torch.testing.assert_close(x_BTD.grad, torch.full_like(x_BTD, 2.0))  # of either part, 1
    x_BTD.grad = None
    quantizer(x_BTD, 3).commitment.backward()
    moved_BTD = (x_BTD - 20 * x_BTD.grad).detach()
    assert quantizer.eval()(moved_BTD, 3).commitment < quantizer(x_BTD.detach(), 3).commitment


def test_what_is_refused():
    quantizer = plain()
    with pytest.raises(ShapeError, match="need 1 to 3 codebooks, got 0"):
        quantizer.encode(torch.randn(1, 2, 4), 0)
    with pytest.raises(ShapeError, match="need 1 to 3 codebooks, got 4"):
        quantizer(torch.randn(1, 2, 4), 4)
    for wrong in ({"quantize_rate": 1.5}, {"decay": 1.0}, {"semantic": 32}):
        with pytest.raises(ConfigError, match="QuantizerConfig"):
            QuantizerConfig(**wrong)


def test_all_codebooks_begin_from_many_vectors_and_give_way_like_a_step():
    torch.manual_seed(0)
    quantizer, x_BTD = plain(), corners(400).view(4, 100, 4)
    assert quantizer.begun(3) == [False] * 3
    unquantized = quantizer.unquantized(x_BTD)
    torch.testing.assert_close(unquantized.x_BTD, 2 * x_BTD)  # both parts pass all of it on
    torch.testing.assert_close(unquantized.semantic_BTD, x_BTD)
    assert unquantized.codes_BKT.shape == (4, 3, 100) and not unquantized.codes_BKT.any()
    quantizer.begin(x_BTD, 3, step=16)
    assert quantizer.begun(3) == [True] * 3
    books = [quantizer.semantic.codebooks[0], *quantizer.acoustic.codebooks]
    assert [float(book.usage.sum()) for book in books] == pytest.approx([16] * 3)
    rest = [
        x_BTD - part.decode(part.encode(x_BTD, n)) for part, n in ((quantizer.acoustic, 1), (quantizer.acoustic, 2))
    ]
    assert rest[1].square().mean() < rest[0].square().mean() < 0.2 * x_BTD.square().mean()
