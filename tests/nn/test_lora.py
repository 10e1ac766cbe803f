import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from duologue.errors import CheckpointError, ConfigError
from duologue.models.weights import to_ours, transformer_config, transformer_ignore, transformer_table
from duologue.nn.lora import LoraLinear, add_lora, export_peft, import_peft, lora_layers, merge_lora, without_lora
from duologue.nn.quant import quantize
from duologue.nn.transformer import Transformer, TransformerConfig
from duologue.nn.weight_files import fill

SMALL = TransformerConfig(vocab_size=48, dim=32, layers=2, heads=4, kv_heads=2, head_dim=8, ffn_dim=64)
IDS = torch.arange(10).view(2, 5)


def logits(model):
    with torch.no_grad():
        state = model.init_state(*IDS.shape)
        return model.logits(model(model.embedding(IDS), state, torch.ones(2, dtype=torch.bool)))


def stir(model):
    """Adapters begin as nothing: makes them something."""
    torch.manual_seed(5)
    for _, layer in lora_layers(model):
        nn.init.normal_(layer.lora_b, std=0.3)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Transformer(SMALL).eval()


def test_an_adapter_changes_nothing_at_first_then_all_but_the_adapters_stay_frozen(model):
    before = logits(model)
    names = add_lora(model, rank=3, alpha=6, targets=("qkv", "blocks.layers.1.down"))
    assert names == ["blocks.layers.0.attention.qkv", "blocks.layers.1.attention.qkv", "blocks.layers.1.down"]
    assert torch.equal(logits(model), before)
    trained = {name.rpartition(".")[2] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"lora_a", "lora_b"}
    stir(model)
    after = logits(model)
    assert not torch.allclose(after, before)
    with without_lora(model):
        assert torch.equal(logits(model), before)
    assert torch.equal(logits(model), after)


def test_merged_weights_give_the_same_and_leave_no_adapter(model):
    keys = set(model.state_dict())
    add_lora(model, rank=2, alpha=4)
    stir(model)
    after = logits(model)
    assert len(merge_lora(model)) == 4 * SMALL.layers
    assert set(model.state_dict()) == keys
    torch.testing.assert_close(logits(model), after)


def test_int8_layers_take_adapters_but_are_not_merged(model):
    quantize(model, ("*.qkv",))
    before = logits(model)
    add_lora(model, rank=2, alpha=4, targets=("qkv",))
    assert torch.equal(logits(model), before)
    stir(model)
    assert not torch.allclose(logits(model), before)
    with pytest.raises(ConfigError, match="has int8 or int4 weights"):
        merge_lora(model)


def test_wrong_targets_are_refused_by_name(model):
    with pytest.raises(ConfigError, match="q_proj fits no linear layer; there are down, gate_up, out, qkv"):
        add_lora(model, rank=2, alpha=4, targets=("qkv", "q_proj"))
    with pytest.raises(ConfigError, match="rank of at least 1"):
        LoraLinear(nn.Linear(2, 2), rank=0, alpha=1)
    add_lora(model, rank=2, alpha=4)
    with pytest.raises(ConfigError, match="adapters already"):
        add_lora(model, rank=2, alpha=4)


def test_written_and_read_again_it_is_the_same_rank_and_the_same_numbers(model, tmp_path):
    plain = copy.deepcopy(model)
    names = add_lora(model, rank=3, alpha=12, targets=("qkv", "gate_up"))
    stir(model)
    export_peft(model, tmp_path, transformer_table(SMALL))
    assert import_peft(plain, tmp_path, transformer_table(SMALL)) == names
    assert {layer.rank for _, layer in lora_layers(plain)} == {3}
    torch.testing.assert_close(logits(plain), logits(model))


@pytest.fixture(scope="module")
def theirs():
    """A tiny Llama of transformers, and the same weights in ours."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=48,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        tie_word_embeddings=True,
    )
    llama = LlamaForCausalLM(config).eval()
    ours_config = transformer_config(config.to_dict())
    table = transformer_table(ours_config)
    state = {name: tensor.clone() for name, tensor in llama.state_dict().items() if name != "lm_head.weight"}
    ours = Transformer(ours_config).eval()
    fill(ours, to_ours(table, state, where="test", ignore=transformer_ignore(ours_config)), where="test")
    return llama, ours, table


def test_peft_reads_what_we_write(theirs, tmp_path):
    from peft import PeftModel

    llama, ours, table = (copy.deepcopy(part) for part in theirs)
    add_lora(ours, rank=3, alpha=6)
    stir(ours)
    export_peft(ours, tmp_path, table)
    adapted = PeftModel.from_pretrained(llama, tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(adapted(IDS).logits, logits(ours), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("targets", "more"),
    [
        (["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], {}),
        (["q_proj", "v_proj", "up_proj"], {"use_rslora": True}),
        (["q_proj", "k_proj"], {"rank_pattern": {"k_proj": 5}, "alpha_pattern": {"k_proj": 3}}),
    ],
)
def test_we_read_what_peft_writes(theirs, tmp_path, targets, more):
    """Every part has an A of its own there, or none."""
    from peft import LoraConfig, get_peft_model

    llama, ours, table = (copy.deepcopy(part) for part in theirs)
    adapted = get_peft_model(llama, LoraConfig(r=2, lora_alpha=8, target_modules=targets, **more)).eval()
    torch.manual_seed(2)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(tmp_path)
    before = logits(ours)
    import_peft(ours, tmp_path, table)
    with torch.no_grad():
        torch.testing.assert_close(logits(ours), adapted(IDS).logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(ours), before, atol=1e-2)


def test_files_that_do_not_fit_are_refused(model, tmp_path):
    add_lora(model, rank=2, alpha=4, targets=("qkv",))
    export_peft(model, tmp_path, transformer_table(SMALL))
    table, plain = transformer_table(SMALL), Transformer(SMALL)

    def tampered(**changes):
        config = json.loads((tmp_path / "adapter_config.json").read_text())
        (tmp_path / "adapter_config.json").write_text(json.dumps({**config, **changes}))

    tampered(use_dora=True)
    with pytest.raises(CheckpointError, match="only plain LoRA can be read, but use_dora is True"):
        import_peft(plain, tmp_path, table)
    tampered(use_dora=False)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    file = tmp_path / "adapter_model.safetensors"
    save_file({**tensors, "base_model.model.other.lora_A.weight": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match=r"base_model.model.other.lora_A.weight fits no layer"):
        import_peft(copy.deepcopy(plain), tmp_path, table)
    lost = "base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight"
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, file)
    with pytest.raises(CheckpointError, match=r"k_proj.lora_B.weight is missing"):
        import_peft(copy.deepcopy(plain), tmp_path, table)
    file.write_bytes(b"short")
    with pytest.raises(CheckpointError, match=r"need a whole adapter_config.json and adapter_model.safetensors"):
        import_peft(plain, tmp_path, table)
