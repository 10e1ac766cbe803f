import json

import pytest
import torch
from safetensors.torch import save_file

from duologue.errors import CheckpointError
from duologue.models.weights import Entry, to_ours, to_theirs, transformer_config
from duologue.nn.weight_files import Shards, fill

TABLE = [Entry("qkv", ("q", "", "v"), (2, 1, 3)), Entry("out", ("o",))]
THEIRS = {"q": torch.ones(2, 2), "v": torch.full((3, 2), 2.0), "o": torch.eye(2)}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 10,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
}


def test_stacks_fill_in_zeros_and_come_apart_again():
    ours = to_ours(TABLE, THEIRS, where="file")
    assert ours["qkv"].tolist() == [[1, 1]] * 2 + [[0, 0]] + [[2, 2]] * 3
    back = to_theirs(TABLE, ours)
    assert back.keys() == THEIRS.keys() and all(torch.equal(back[name], THEIRS[name]) for name in back)


def test_missing_and_unexpected_tensors_are_named():
    with pytest.raises(CheckpointError, match=r"file: 1 tensors missing: v; 1 tensors unexpected: extra"):
        to_ours(TABLE, {"q": THEIRS["q"], "o": THEIRS["o"], "extra": THEIRS["o"]}, where="file")
    assert to_ours(TABLE, THEIRS | {"extra": THEIRS["o"]}, where="file", ignore=["ext.*"]).keys() == {"qkv", "out"}
    with pytest.raises(CheckpointError, match="missing: out"):
        to_theirs(TABLE, {"qkv": torch.ones(6, 2)})


def test_wrong_shapes_are_named():
    with pytest.raises(CheckpointError, match="v has 2 rows, the configuration says 3"):
        to_ours(TABLE, THEIRS | {"v": torch.ones(2, 2)}, where="file")
    with pytest.raises(CheckpointError, match=r"weight has shape \(3, 2\), the configuration says \(2, 2\)"):
        fill(torch.nn.Linear(2, 2, bias=False), {"weight": torch.ones(3, 2)}, where="file")


def test_shards_are_read_by_their_index(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.zeros(2)}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert {name: tensor.tolist() for name, tensor in Shards(tmp_path).items()} == {"a": [1], "b": [0, 0]}
    index["weight_map"]["c"] = "model-2.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="missing: c"):
        Shards(tmp_path)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-2\.safetensors is missing"):
        Shards(tmp_path)


def test_damaged_files_are_named(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(100)}, file)
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        Shards(file)
    with pytest.raises(CheckpointError, match="is missing"):
        Shards(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gemma"}, "'gemma'"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "yarn"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "sliding"),
        ({"model_type": "mistral", "sliding_window": 4096}, "sliding"),
    ],
)
def test_models_that_we_would_get_wrong_are_refused(change, message):
    assert transformer_config(LLAMA).head_dim == 4
    with pytest.raises(CheckpointError, match=message):
        transformer_config(LLAMA | change)


def test_a_missing_key_is_named():
    with pytest.raises(CheckpointError, match="'intermediate_size'"):
        transformer_config({key: value for key, value in LLAMA.items() if key != "intermediate_size"})
