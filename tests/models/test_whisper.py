"""Our Whisper against transformers', by both names of its weights."""

import pytest
import torch
from transformers import WhisperConfig as HFConfig
from transformers import WhisperForConditionalGeneration

from duologue.errors import CheckpointError, ShapeError
from duologue.models.llama_omni.released import load_whisper, load_whisper_encoder
from duologue.models.weights import to_ours, to_theirs
from duologue.models.whisper import Whisper, WhisperEncoder
from duologue.models.whisper_weights import encoder_table, whisper_config, whisper_ignore, whisper_table
from duologue.nn.weight_files import fill

TINY = {
    "vocab_size": 60,
    "num_mel_bins": 10,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_source_positions": 50,
    "max_target_positions": 20,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "decoder_start_token_id": 0,
    "attn_implementation": "eager",
}
LARGE_V3 = {
    "vocab_size": 51_866,
    "num_mel_bins": 128,
    "d_model": 1280,
    "encoder_layers": 32,
    "decoder_layers": 32,
    "encoder_attention_heads": 20,
    "decoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "decoder_ffn_dim": 5120,
}


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def reference():
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(HFConfig(**TINY)).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm.weight" in name), std=0.15)
    return model


def ours(reference) -> Whisper:
    config = whisper_config(reference.config.to_dict(), "huggingface", where="test")
    model, table = Whisper(config), whisper_table(config, "huggingface")
    tensors = to_ours(table, reference.state_dict(), where="test", ignore=whisper_ignore("huggingface"))
    fill(model, tensors, where="test")
    return model.eval()


def openai_file(model: Whisper) -> dict:
    """What `torch.load("large-v3.pt")` gives."""
    c = model.config
    dims = {"n_mels": c.num_mels, "n_vocab": c.vocab_size, "n_audio_ctx": c.max_source, "n_text_ctx": c.max_target}
    for side, layers in (("audio", c.encoder_layers), ("text", c.decoder_layers)):
        dims |= {f"n_{side}_state": c.dim, f"n_{side}_head": c.heads, f"n_{side}_layer": layers}
    return {"dims": dims, "model_state_dict": to_theirs(whisper_table(c, "openai"), model.state_dict())}


def test_encoder_and_decoder_agree(reference):
    model, features_BMT, ids_BT = ours(reference), torch.randn(2, 10, 100), torch.randint(60, (2, 12))
    want = reference(input_features=features_BMT, decoder_input_ids=ids_BT, output_hidden_states=True)
    encoded_BTD, steps_B = model.encoder(features_BMT, torch.tensor([100, 100]))
    torch.testing.assert_close(encoded_BTD, want.encoder_last_hidden_state, rtol=1e-4, atol=1e-4)
    memory, state = model.decoder.remember(encoded_BTD, steps_B), model.decoder.init_state(2)
    live_B = torch.ones(2, dtype=torch.bool)
    hidden = [model.decoder(piece, state, memory, live_B) for piece in ids_BT.split([4, 1, 7], dim=1)]
    hidden_BTD = torch.cat(hidden, dim=1)
    torch.testing.assert_close(hidden_BTD, want.decoder_hidden_states[-1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.decoder.logits(hidden_BTD), want.logits, rtol=1e-4, atol=1e-4)
    assert want.logits.std() > 0.1


def test_ragged_audio_is_heard_as_alone(reference):
    model, ids_BT = ours(reference), torch.randint(60, (3, 5))
    features_BMT, frames_B = torch.randn(3, 10, 90), torch.tensor([90, 37, 64])
    encoded_BTD, steps_B = model.encoder(features_BMT, frames_B)
    assert steps_B.tolist() == [45, 19, 32]
    live_B = torch.ones(3, dtype=torch.bool)
    got = model.decoder(ids_BT, model.decoder.init_state(3), model.decoder.remember(encoded_BTD, steps_B), live_B)
    for row, frames in enumerate(frames_B.tolist()):
        alone_BTD, count_B = model.encoder(features_BMT[row : row + 1, :, :frames], frames_B[row : row + 1])
        torch.testing.assert_close(encoded_BTD[row, : steps_B[row]], alone_BTD[0], rtol=1e-4, atol=1e-4)
        memory, state = model.decoder.remember(alone_BTD, count_B), model.decoder.init_state(1)
        want = model.decoder(ids_BT[row : row + 1], state, memory, live_B[:1])
        torch.testing.assert_close(got[row], want[0], rtol=1e-4, atol=1e-4)


def test_openai_and_transformers_files_give_the_same_model(reference, tmp_path):
    model = ours(reference)
    torch.save(openai_file(model), tmp_path / "tiny.pt")
    reference.save_pretrained(tmp_path / "folder")
    for path in (tmp_path / "tiny.pt", tmp_path / "folder"):
        loaded, encoder = load_whisper(path), load_whisper_encoder(path)
        assert loaded.config == encoder.config == model.config
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name
        assert all(torch.equal(t, encoder.state_dict()[n]) for n, t in model.encoder.state_dict().items())


def test_openai_names_are_those_of_the_released_file(reference):
    """Written down from the names of `whisper.model`, not from our table."""
    linear = ("query.weight", "query.bias", "key.weight", "value.weight", "value.bias", "out.weight", "out.bias")
    both = ("weight", "bias")
    want = {f"encoder.{name}" for name in ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias")}
    want |= {"encoder.positional_embedding", "decoder.positional_embedding", "decoder.token_embedding.weight"}
    want |= {f"encoder.ln_post.{kind}" for kind in both} | {f"decoder.ln.{kind}" for kind in both}
    for side, layers, attentions in (("encoder", 2, ("attn",)), ("decoder", 3, ("attn", "cross_attn"))):
        for block in (f"{side}.blocks.{index}" for index in range(layers)):
            for attention in attentions:
                want |= {f"{block}.{attention}.{name}" for name in linear}
                want |= {f"{block}.{attention}_ln.{kind}" for kind in both}
            want |= {f"{block}.{name}.{kind}" for name in ("mlp.0", "mlp.2", "mlp_ln") for kind in both}
    assert openai_file(ours(reference))["model_state_dict"].keys() == want


def test_every_key_of_large_v3_is_mapped():
    with torch.device("meta"):
        theirs = WhisperForConditionalGeneration(HFConfig(**LARGE_V3)).state_dict()
        config = whisper_config(HFConfig(**LARGE_V3).to_dict(), "huggingface", where="large-v3")
        model, encoder = Whisper(config), WhisperEncoder(config)
    ignore = whisper_ignore("huggingface")
    fill(
        model, to_ours(whisper_table(config, "huggingface"), theirs, where="large-v3", ignore=ignore), where="large-v3"
    )
    ignore = whisper_ignore("huggingface", encoder_only=True)
    table = encoder_table(config, "huggingface")
    fill(encoder, to_ours(table, theirs, where="large-v3", ignore=ignore), where="large-v3")
    assert sum(parameter.numel() for parameter in model.parameters()) > 1.5e9


def test_files_that_are_no_whisper_are_refused(reference, tmp_path):
    torch.save({"generator": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="need an OpenAI Whisper file"):
        load_whisper(tmp_path / "other.pt")
    data = openai_file(ours(reference))
    del data["model_state_dict"]["decoder.ln.bias"]
    torch.save(data, tmp_path / "short.pt")
    with pytest.raises(CheckpointError, match=r"missing: decoder\.ln\.bias"):
        load_whisper(tmp_path / "short.pt")
    load_whisper_encoder(tmp_path / "short.pt")  # which does not need it


def test_audio_beyond_its_positions_is_refused(reference):
    with pytest.raises(ShapeError, match="at most 50 steps"):
        ours(reference).encoder(torch.randn(1, 10, 102), torch.tensor([102]))
