"""The published layouts: every key of the 7B, both ways, int8, PersonaPlex, and files that do not fit."""

import json

import pytest
import torch
from moshi.models.lm import LMModel
from moshi.models.loaders import _lm_kwargs, get_moshi_lm
from safetensors.torch import load_file, save_file
from tiny_moshi import TINY, VARIANTS, ours, reference

from duologue.errors import CheckpointError
from duologue.models.moshi.released import (
    load_moshi,
    meta_model,
    quantize_moshi,
    save_moshi,
    stack_steps,
    theirs_wanted,
)
from duologue.models.moshi.released_config import SEVEN_B, from_kyutai, hidden, read_config, to_kyutai, widened
from duologue.nn.quant_matrix import QuantLinear


def shapes(tensors) -> dict[str, tuple[int, ...]]:
    """Without the two empty axes of their norms."""
    return {name: tuple(t.flatten().shape if name.endswith("alpha") else t.shape) for name, t in tensors.items()}


@pytest.mark.parametrize("dep_q", [8, 16], ids=["moshi", "personaplex"])
def test_every_key_of_the_7b_is_there(dep_q):
    assert _lm_kwargs == SEVEN_B
    raw = {**SEVEN_B, "dep_q": dep_q, "model_type": "personaplex" if dep_q == 16 else "moshi"}
    config = from_kyutai(raw)
    theirs = LMModel(**{**_lm_kwargs, "dep_q": dep_q}, device="meta", dtype=torch.bfloat16).state_dict()
    assert shapes(theirs_wanted(config)) == shapes(theirs)
    assert config.own_codebooks == 8 and config.heard_codebooks == 8
    published = stack_steps(theirs_wanted(config))
    assert published["depformer.layers.5.self_attn.in_proj_weight"].shape == (dep_q * 3072, 1024)
    assert published["depformer.layers.5.self_attn.out_proj.weight"].shape == (dep_q * 1024, 1024)
    assert published["transformer.layers.31.self_attn.in_proj_weight"].shape == (12288, 4096)
    assert published["out_norm.alpha"].shape == (1, 1, 4096)


def test_without_a_config_it_is_the_7b(tmp_path):
    assert from_kyutai(read_config(tmp_path)) == from_kyutai(SEVEN_B)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "personaplex", "version": "7b-v1"}))
    config = from_kyutai(read_config(tmp_path))
    assert config.depth_steps == 16 and config.own_codebooks == 8


@pytest.mark.parametrize("variant", VARIANTS)
def test_files_go_both_ways(variant, tmp_path):
    raw = VARIANTS[variant]
    theirs = reference(raw)
    model = ours(raw, theirs)
    save_moshi(model, tmp_path)
    assert from_kyutai(read_config(tmp_path)) == model.config
    again = load_moshi(tmp_path)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    file = tmp_path / "model.safetensors"
    kwargs = {key: value for key, value in read_config(tmp_path).items() if key not in ("model_type", "moshi_name")}
    kwargs.pop("depformer_context")
    back = get_moshi_lm(file, kwargs, dtype=torch.float32).state_dict()  # their own loader
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.state_dict().items())
    assert not any("in_projs" in name for name in load_file(file))


def test_names_of_their_modules_load_too(tmp_path):
    theirs = reference(TINY)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    model = load_moshi(tmp_path / "model.safetensors", dtype=torch.bfloat16)
    assert model.text_head.weight.dtype == torch.bfloat16
    assert torch.equal(model.text_head.weight, theirs.text_linear.weight.bfloat16())


def test_int8_files_go_both_ways(tmp_path):
    theirs = reference(TINY)
    model = ours(TINY, theirs)
    quantize_moshi(model)
    save_moshi(model, tmp_path, name="model.q8.safetensors")
    file = load_file(tmp_path / "model.q8.safetensors")
    weight, scb = (file[f"transformer.layers.0.self_attn.in_proj_weight{end}"] for end in ("", "_scb"))
    want = theirs.state_dict()["transformer.layers.0.self_attn.in_projs.0.weight"]
    assert weight.dtype == torch.int8 and scb.dtype == torch.float32
    torch.testing.assert_close(scb, want.abs().amax(1))
    torch.testing.assert_close(weight * scb[:, None] / 127, want, rtol=0, atol=float(want.abs().max()) / 250)
    assert file["depformer_emb.0.weight"].dtype == torch.float32
    again = load_moshi(tmp_path)
    assert isinstance(again.depth.layers[0].sets[0].qkv, QuantLinear)
    codes_BKT = torch.randint(20, (1, 7, 9))
    with torch.no_grad():
        torch.testing.assert_close(again(codes_BKT).audio_BKTV, model(codes_BKT).audio_BKTV)


def personaplex(sets: int) -> dict:
    streams = {"n_q": 16, "dep_q": sets, "delays": SEVEN_B["delays"], "card": 5, "text_card": 7}
    return {**TINY, **streams, "num_layers": 1, "depformer_num_layers": 1}


def test_steps_that_a_file_lacks_are_copied(tmp_path):
    torch.manual_seed(0)
    tensors = stack_steps(reference(personaplex(8)).state_dict())
    between = torch.randn(6, 16)  # reads Moshi's last codebook: no step of the 8 does
    save_file({**tensors, "depformer_emb.7.weight": between}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**personaplex(16), "model_type": "personaplex"}))
    depth = load_moshi(tmp_path).depth
    for first, second in ((depth.layers[0].sets[3], depth.layers[0].sets[11]), (depth.heads[7], depth.heads[15])):
        for a, b in zip(first.parameters(), second.parameters(), strict=True):
            assert torch.equal(a, b)
    assert torch.equal(depth.embeddings[14].table.weight, depth.embeddings[6].table.weight)
    assert torch.equal(*depth.inputs.weight.chunk(2))
    assert torch.equal(depth.embeddings[7].table.weight, between)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 tensors missing: depformer_emb\.7\.weight"):
        load_moshi(tmp_path)


def test_a_head_for_what_is_heard_has_no_place_in_the_layout(tmp_path):
    model = ours(TINY, reference(TINY))
    model.hear = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match="no head that writes down"):
        save_moshi(model, tmp_path)


def test_adapters_are_merged_as_theirs_are(tmp_path):
    save_moshi(ours(TINY, reference(TINY)), tmp_path)
    raw, file = (
        {**read_config(tmp_path), "lora": True, "lora_rank": 2, "lora_scaling": 1.5},
        tmp_path / "lora.safetensors",
    )
    kwargs = {key: raw[key] for key in raw if key not in ("model_type", "moshi_name", "depformer_context")}
    empty = get_moshi_lm(tmp_path / "model.safetensors", kwargs, dtype=torch.float32).state_dict()
    save_file({name: torch.randn(t.shape) * 0.1 for name, t in empty.items() if "lora_" in name}, file)
    theirs = get_moshi_lm(
        tmp_path / "model.safetensors", kwargs, dtype=torch.float32, lora_weights=file, fuse_lora=True
    )
    (tmp_path / "config.json").write_text(json.dumps({**raw, "lora_name": "lora.safetensors"}))
    got, want = load_moshi(tmp_path).state_dict(), ours(TINY, theirs).state_dict()
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-5, atol=1e-5)
    save_file(dict(list(load_file(file).items())[1:]), file)
    with pytest.raises(CheckpointError, match=r"1 tensors missing: .*lora_A\.weight"):
        load_moshi(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_q": 8, "delays": [0] * 9}, r"2 tensors missing: emb\.6\.weight, emb\.7\.weight"),
        ({"num_layers": 1}, r"tensors unexpected: transformer\.layers\.1\."),
        ({"card": 21}, r"depformer_emb\.0\.weight has shape \(21, 16\), the configuration says \(22, 16\)|emb\.0"),
        ({"depformer_dim": 18}, r"has shape|equal steps"),
        ({"dep_q": 4}, r"has 144 rows, which are not 4 equal steps|missing"),
        ({"cross_attention": True}, "cross_attention = True is not supported"),
        ({"conditioners": {"description": {}}}, r"conditioners\.description: type = None is not supported, only 'lut'"),
        ({"depformer_pos_emb": "sin"}, "depformer_pos_emb = 'sin' is not supported"),
        ({"dimm": 3}, "unknown key 'dimm'"),
    ],
)
def test_config_and_weights_that_disagree_are_named(change, message, tmp_path):
    save_file(stack_steps(reference(TINY).state_dict()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**TINY, **change}))
    with pytest.raises(CheckpointError, match=message):
        load_moshi(tmp_path)


def test_a_missing_key_and_a_missing_file_are_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({key: value for key, value in TINY.items() if key != "card"}))
    with pytest.raises(CheckpointError, match="the key 'card' is missing"):
        load_moshi(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**TINY, "moshi_name": "other.safetensors"}))
    with pytest.raises(CheckpointError, match=r"other\.safetensors is missing"):
        load_moshi(tmp_path)


def test_widths_of_feed_forwards_go_both_ways():
    for dim in (8, 24, 64, 1024):
        for wide in range(dim, 6 * dim, 7):
            assert hidden(dim, widened(dim, hidden(dim, wide))) == hidden(dim, wide)
    assert hidden(4096, int(4.125 * 4096)) == 11_264
    assert to_kyutai(from_kyutai(SEVEN_B)).items() >= SEVEN_B.items()
    assert sum(parameter.numel() for parameter in meta_model(from_kyutai(SEVEN_B)).parameters()) == 7_687_729_152
