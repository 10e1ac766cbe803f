"""Our Mimi against the `moshi` package's and transformers', by both layouts of its weights."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_mimi import CONFIG, FRAME, moshi_config, moshi_mimi, moshi_tensors, speech, transformers_mimi

from duologue.codecs.mimi import Mimi, MimiConfig
from duologue.codecs.mimi_weights import load_mimi, mimi_from_tensors, mimi_table, mimi_to_tensors, save_mimi

FRAMES = 24
LIVE = torch.tensor([True])


@pytest.fixture(scope="module")
def moshi():
    torch.manual_seed(0)
    return moshi_mimi(CONFIG)


@pytest.fixture(scope="module")
def ours(moshi):
    return mimi_from_tensors(moshi_tensors(moshi), CONFIG, where="moshi")


def run(mimi: Mimi, audio_BN, *, pieces: int = FRAMES):
    """Codes and resynthesis, so many frames at a time."""
    state, live_B = mimi.init_state(len(audio_BN)), torch.ones(len(audio_BN), dtype=torch.bool)
    with torch.no_grad():
        codes = [mimi.encode(piece, state.encoder, live_B) for piece in audio_BN.split(pieces * FRAME, 1)]
        audio = [mimi.decode(piece, state.decoder, live_B) for piece in torch.cat(codes, 2).split(pieces, 2)]
    return torch.cat(codes, 2), torch.cat(audio, 1)


@pytest.mark.parametrize("pieces", [FRAMES, 1, 5])
def test_codes_and_audio_of_moshi(moshi, ours, pieces):
    audio_BN = speech(FRAMES)
    codes, audio = run(ours, audio_BN, pieces=pieces)
    with torch.no_grad():
        want = moshi.encode(audio_BN[:, None])
        assert len(want.unique()) > 30, "hardly any code is used: this could not fail"
        torch.testing.assert_close(codes, want, rtol=0, atol=0)
        torch.testing.assert_close(audio, moshi.decode(want)[:, 0], rtol=0, atol=1e-5)


def test_codes_and_audio_of_moshi_as_it_streams(moshi, ours):
    frames = CONFIG.transformer.context // CONFIG.resample  # past that its ring forgets one step too early
    audio_BN = speech(frames)
    codes, audio = run(ours, audio_BN, pieces=1)
    with torch.no_grad(), moshi.streaming(1):
        want = torch.cat([moshi.encode(piece[:, None]) for piece in audio_BN.split(FRAME, 1)], 2)
        heard = torch.cat([moshi.decode(want[..., i : i + 1])[:, 0] for i in range(frames)], 1)
    torch.testing.assert_close(codes, want, rtol=0, atol=0)
    torch.testing.assert_close(audio, heard, rtol=0, atol=1e-5)


def test_codes_and_audio_of_transformers(tmp_path):
    torch.manual_seed(1)
    theirs = transformers_mimi(CONFIG)
    theirs.save_pretrained(tmp_path)
    mimi, audio_BN = load_mimi(tmp_path / "model.safetensors", CONFIG), speech(FRAMES)
    codes, audio = run(mimi, audio_BN, pieces=3)
    with torch.no_grad():
        want = theirs.encode(audio_BN[:, None], num_quantizers=CONFIG.num_codebooks).audio_codes
        assert len(want.unique()) > 30, "hardly any code is used: this could not fail"
        torch.testing.assert_close(codes, want, rtol=0, atol=0)
        torch.testing.assert_close(audio, theirs.decode(want).audio_values[:, 0], rtol=0, atol=1e-5)


def test_any_number_of_codebooks(moshi, ours):
    audio_BN, latent_BTD = speech(6), torch.randn(1, 6, CONFIG.seanet.dim)
    for count in (1, 2, CONFIG.quantizer.codebooks):
        moshi.set_num_codebooks(count)
        with torch.no_grad():
            want = moshi.encode(audio_BN[:, None])
            codes = ours.encode(audio_BN, ours.encoder.init_state(1), LIVE, num_codebooks=count)
            torch.testing.assert_close(codes, want, rtol=0, atol=0)
            audio = ours.decode(codes, ours.decoder.init_state(1), LIVE)
            torch.testing.assert_close(audio, moshi.decode(want)[:, 0], rtol=0, atol=1e-5)
    moshi.set_num_codebooks(CONFIG.num_codebooks)
    assert ours.quantizer.encode(latent_BTD, 1).shape == (1, 1, 6)


def test_more_residual_units_and_other_ratios(moshi):
    config = CONFIG.__class__(
        frame_rate=200.0,
        num_codebooks=3,
        seanet=CONFIG.seanet.__class__(dim=32, filters=2, ratios=(5, 4, 3), residual_layers=3, residual_kernel=5),
        transformer=CONFIG.transformer,
        quantizer=CONFIG.quantizer.__class__(dim=32, code_dim=16, codebook_size=64, codebooks=4, semantic=2),
    )
    torch.manual_seed(2)
    theirs = moshi_mimi(config)
    mimi, audio_BN = mimi_from_tensors(moshi_tensors(theirs), config, where="moshi"), speech(2)
    with torch.no_grad():
        want = theirs.encode(audio_BN[:, None])
        codes = mimi.encode(audio_BN, mimi.encoder.init_state(1), LIVE)
        torch.testing.assert_close(codes, want, rtol=0, atol=0)
        audio = mimi.decode(codes, mimi.decoder.init_state(1), LIVE)
        torch.testing.assert_close(audio, theirs.decode(want)[:, 0], rtol=0, atol=1e-5)


def test_moshi_loads_what_we_write(moshi, ours, tmp_path):
    from moshi.models.loaders import get_mimi

    save_mimi(ours, tmp_path / "mimi.safetensors")
    again = get_mimi(tmp_path / "mimi.safetensors", moshi_config(CONFIG), num_codebooks=CONFIG.num_codebooks)
    want = moshi.state_dict()
    assert again.state_dict().keys() == want.keys()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, want[name]), name


def test_old_names_of_codebooks(moshi, ours, tmp_path):
    old = {"_initialized": "inited", "cluster_usage": "cluster_size", "embedding_sum": "embed_avg"}
    tensors = moshi_tensors(moshi)
    for name in list(tensors):
        base, _, last = name.rpartition(".")
        if last in old:
            tensors[f"{base}.{old[last]}"] = tensors.pop(name)
    save_file(tensors, tmp_path / "old.safetensors")
    mimi = load_mimi(tmp_path / "old.safetensors", CONFIG)
    for name, tensor in mimi.state_dict().items():
        assert torch.equal(tensor, ours.state_dict()[name]), name


def test_every_key_of_the_released_shape():
    from moshi.models.loaders import get_mimi

    with torch.device("meta"):
        want = {name: tensor.shape for name, tensor in moshi_tensors(get_mimi(None, device="meta")).items()}
        got = {name: tensor.shape for name, tensor in mimi_to_tensors(Mimi(MimiConfig())).items()}
    assert got == want


def test_every_key_of_the_released_shape_in_transformers_layout(tmp_path):
    from transformers import MimiConfig as TheirConfig
    from transformers import MimiModel

    with torch.device("meta"):
        theirs = MimiModel(TheirConfig()).state_dict()
    want = set()
    for name in theirs:
        name = name.replace("encoder.encoder_seanet.", "encoder.").replace("decoder.decoder_seanet.", "decoder.")
        for part in ("encoder_transformer.", "downsample.", "decoder_transformer.", "upsample."):
            name = name.replace(f"encoder.{part}", part).replace(f"decoder.{part}", part)
        want.add(name)
    assert {name for entry in mimi_table(MimiConfig()) for name in entry.transformers} == want


def test_transformers_writes_the_layout_that_the_table_names(tmp_path):
    torch.manual_seed(1)
    transformers_mimi(CONFIG).save_pretrained(tmp_path)
    written = set(load_file(tmp_path / "model.safetensors"))
    assert {name for entry in mimi_table(CONFIG) for name in entry.transformers} == written
