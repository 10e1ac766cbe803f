"""Mimi's own promises; the reference implementations are in test_mimi_parity.py."""

from dataclasses import replace

import pytest
import torch
from conformance import Case, check_all
from safetensors.torch import save_file
from tiny_mimi import CONFIG, FRAME, speech, spread

from duologue.codecs.mimi import PIECE, Mimi, MimiConfig
from duologue.codecs.mimi_weights import load_mimi, mimi_from_tensors, mimi_to_tensors
from duologue.codecs.rvq import QuantizerConfig
from duologue.codecs.seanet import SeanetConfig
from duologue.config import from_dict, to_dict
from duologue.errors import CheckpointError, ConfigError, ShapeError
from duologue.nn.packed import PackedLinear, can_pack

LIVE = torch.tensor([True])
WIDTH = CONFIG.seanet.dim
CUTS = [[1] * 9, [6, 3]]  # frames; past the transformers' context


@pytest.fixture(scope="module")
def mimi() -> Mimi:
    torch.manual_seed(0)
    codec = Mimi(CONFIG).eval()
    spread(codec)
    with torch.no_grad():
        latents = codec.encoder(speech(24), codec.encoder.init_state(1), LIVE)
        for part in (codec.quantizer.semantic, codec.quantizer.acoustic):
            rest = part.input(latents).flatten(0, 1)
            for book in part.codebooks:
                book.total.copy_(rest[torch.randint(len(rest), (len(book.total),))] + 0.1 * torch.randn(64, 16))
                rest = rest - book.vectors()[0][book.nearest(rest)]
    return codec


def samples(cuts: list[list[int]]) -> list[list[int]]:
    return [[frames * FRAME for frames in cut] for cut in cuts]


def test_the_encoder_keeps_the_contract(mimi):
    check_all(
        Case(
            make_state=mimi.encoder.init_state,
            call=lambda audio, state, live, _: mimi.encoder(audio, state, live),
            inputs=speech(9, rows=3),
            cuts=samples(CUTS),
        )
    )


def test_the_decoder_keeps_the_contract(mimi):
    check_all(
        Case(
            make_state=mimi.decoder.init_state,
            call=lambda x, state, live, _: mimi.decoder(x, state, live),
            inputs=torch.randn(3, 9, WIDTH),
            cuts=CUTS,
        )
    )


def test_codes_keep_the_contract_exactly(mimi):
    check_all(
        Case(
            make_state=mimi.encoder.init_state,
            call=lambda audio, state, live, _: mimi.encode(audio, state, live).mT,
            inputs=speech(9, rows=3),
            cuts=samples([[4, 4, 1]]),
            exact=True,
        )
    )


def test_there_and_back_keeps_the_contract(mimi):
    def call(audio_BN, state, live_B, _):
        return mimi.decode(mimi.encode(audio_BN, state.encoder, live_B), state.decoder, live_B)

    check_all(Case(mimi.init_state, call, speech(5, rows=3), samples([[2, 3]])))


def test_long_audio_is_the_same_in_one_call_and_with_gradients(mimi):
    torch.manual_seed(1)
    audio_BN = speech(20).repeat(1, 2)[:, : (PIECE + 3) * FRAME]
    with torch.no_grad():
        whole = mimi.encoder(audio_BN, mimi.encoder.init_state(1), LIVE)
        heard = mimi.decoder(whole, mimi.decoder.init_state(1), LIVE)
    torch.testing.assert_close(mimi.encoder(audio_BN, mimi.encoder.init_state(1), LIVE), whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mimi.decoder(whole, mimi.decoder.init_state(1), LIVE), heard, rtol=1e-4, atol=1e-4)


def test_gradients_reach_every_weight(mimi):
    mimi.zero_grad()
    latents = mimi.encoder(speech(2), mimi.encoder.init_state(1), LIVE)
    quantized = mimi.quantizer(latents, 7)
    audio = mimi.decoder(quantized.x_BTD, mimi.decoder.init_state(1), LIVE)
    (audio.square().mean() + quantized.commitment).backward()
    silent = [name for name, weight in mimi.named_parameters() if weight.grad is None or not weight.grad.any()]
    mimi.zero_grad()
    assert not silent


def test_a_part_of_a_frame_is_refused_and_the_framer_named(mimi):
    for count in (0, FRAME - 1, FRAME + 80):
        with pytest.raises(ShapeError, match=r"multiple of 1920 .*Framer\(1920\)"):
            mimi.encode(torch.zeros(1, count), mimi.encoder.init_state(1), LIVE)
    with pytest.raises(ShapeError, match="Framer"):
        mimi.encode(torch.zeros(1, 1, FRAME), mimi.encoder.init_state(1), LIVE)


def test_wrong_codes_are_refused(mimi):
    state, codes = mimi.decoder.init_state(1), torch.zeros(1, 5, 1, dtype=torch.int64)
    with pytest.raises(ShapeError, match="need 1 to 7 codebooks, got 8"):
        mimi.decode(codes.repeat(1, 2, 1)[:, :8], state, LIVE)
    with pytest.raises(ShapeError, match="need 1 to 7 codebooks, got 9"):
        mimi.encode(speech(1), mimi.encoder.init_state(1), LIVE, num_codebooks=9)
    for wrong in (-1, 64):
        with pytest.raises(ShapeError, match="need codes from 0 to 63"):
            mimi.decode(codes + wrong, state, LIVE)
    assert not any(tensor.any() for _, tensor in state.tensors()), "a refused call left a trace"


def test_wrong_shapes_of_a_config_are_refused():
    with pytest.raises(ConfigError, match="hop of 960"):
        MimiConfig(frame_rate=25.0)
    with pytest.raises(ConfigError, match="one width"):
        MimiConfig(seanet=SeanetConfig(dim=256))
    with pytest.raises(ConfigError, match="num_codebooks must be 1 to 32, got 33"):
        MimiConfig(num_codebooks=33)
    with pytest.raises(ConfigError, match="semantic < codebooks"):
        QuantizerConfig(codebooks=1)


def test_the_config_survives_json():
    assert from_dict(MimiConfig, to_dict(CONFIG)) == CONFIG
    assert MimiConfig().frame_samples == 1920 and MimiConfig().resample == 2


def test_weights_that_do_not_fit_the_config_are_named(mimi, tmp_path):
    tensors = mimi_to_tensors(mimi)
    fewer = replace(CONFIG, quantizer=replace(CONFIG.quantizer, codebooks=6))
    with pytest.raises(CheckpointError, match=r"3 tensors unexpected: quantizer.rvq_rest.vq.layers.5.*another kind"):
        mimi_from_tensors(tensors, fewer, where="file")
    more = replace(CONFIG, quantizer=replace(CONFIG.quantizer, codebooks=8))
    with pytest.raises(CheckpointError, match=r"3 tensors missing: quantizer.rvq_rest.vq.layers.6"):
        mimi_from_tensors(tensors, more, where="file")
    wider = replace(CONFIG, quantizer=replace(CONFIG.quantizer, codebook_size=128))
    with pytest.raises(CheckpointError, match=r"layers.0._codebook.cluster_usage has shape \(64,\), .* says \(128,\)"):
        mimi_from_tensors(tensors, wider, where="file")
    other = replace(CONFIG, seanet=replace(CONFIG.seanet, kernel=5))
    with pytest.raises(
        CheckpointError, match=r"file: encoder.model.0.conv.conv.weight has shape \(4, 1, 7\), .* \(4, 1, 5\)"
    ):
        mimi_from_tensors(tensors, other, where="file")
    with pytest.raises(CheckpointError, match="1 tensors unexpected: extra"):
        mimi_from_tensors({**tensors, "extra": torch.zeros(1)}, CONFIG, where="file")
    with pytest.raises(CheckpointError, match=r"no\.safetensors"):
        load_mimi(tmp_path / "no.safetensors", CONFIG)
    save_file(tensors, tmp_path / "cut.safetensors")
    whole = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_mimi(tmp_path / "cut.safetensors", CONFIG)


@pytest.mark.skipif(not can_pack(), reason="this torch has no such product")
def test_packed_weights_give_the_same(mimi, tmp_path):
    packed = mimi_from_tensors(mimi_to_tensors(mimi), CONFIG, where="copy")
    packed.pack()
    assert sum(isinstance(module, PackedLinear) for module in packed.modules()) > 30
    audio_BN = speech(12)
    with torch.no_grad():
        codes = packed.encode(audio_BN, packed.encoder.init_state(1), LIVE)
        want = mimi.encode(audio_BN, mimi.encoder.init_state(1), LIVE)
        torch.testing.assert_close(codes, want, rtol=0, atol=0)
        audio = packed.decode(codes, packed.decoder.init_state(1), LIVE)
        heard = mimi.decode(codes, mimi.decoder.init_state(1), LIVE)
    torch.testing.assert_close(audio, heard, rtol=1e-4, atol=1e-4)
    for name, tensor in mimi_to_tensors(packed).items():  # and can still be written
        assert torch.equal(tensor, mimi_to_tensors(mimi)[name]), name


@pytest.mark.skipif(not can_pack(), reason="this torch has no such product")
def test_half_precision_where_it_is_chosen(mimi, monkeypatch):
    monkeypatch.setattr("duologue.codecs.mimi.HALVE_FROM", 500)
    half = mimi_from_tensors(mimi_to_tensors(mimi), CONFIG, where="copy")
    half.pack(half_decoder=True)
    audio_BN = speech(8)
    with torch.no_grad():
        codes = half.encode(audio_BN, half.encoder.init_state(1), LIVE)
        torch.testing.assert_close(codes, mimi.encode(audio_BN, mimi.encoder.init_state(1), LIVE), rtol=0, atol=0)
        audio = half.decode(codes, half.decoder.init_state(1), LIVE)
        heard = mimi.decode(codes, mimi.decoder.init_state(1), LIVE)
    assert audio.dtype == torch.float32
    noise = ((audio - heard).square().mean() / heard.square().mean()).item()
    assert 0 < noise < 1e-3  # bfloat16 rounds to one part in 256
