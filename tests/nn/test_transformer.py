"""Our transformer against transformers' Llama, Mistral, Qwen2 and Qwen3 on the same random weights."""

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from duologue.models.weights import to_ours, to_theirs, transformer_config, transformer_ignore, transformer_table
from duologue.nn.transformer import Transformer
from duologue.nn.weight_files import fill

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "attn_implementation": "eager",
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "llama tied": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True)),
    "llama 3.1": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=LLAMA3)),
    "llama wide heads": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, head_dim=16)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=None)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "qwen2 tied": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, tie_word_embeddings=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=16)),
}


@pytest.fixture(params=MODELS)
def reference(request):
    torch.manual_seed(0)
    model = MODELS[request.param]().eval()
    for name, parameter in model.named_parameters():  # biases and norms start as zeros and ones: nothing to see
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.3)
        else:
            torch.nn.init.normal_(parameter, std=0.15)
    return model


def ours(reference) -> Transformer:
    config = transformer_config(reference.config.to_dict())
    model, tensors = Transformer(config), reference.state_dict()
    fill(
        model,
        to_ours(transformer_table(config), tensors, where="test", ignore=transformer_ignore(config)),
        where="test",
    )
    return model


@torch.no_grad()
def test_logits_and_last_states_agree(reference):
    model, ids_BT = ours(reference), torch.randint(50, (2, 40))
    want = reference(ids_BT, output_hidden_states=True)
    state, live_B = model.init_state(2, 40), torch.ones(2, dtype=torch.bool)
    hidden = [model(model.embedding(piece), state, live_B) for piece in ids_BT.split([20, 1, 19], dim=1)]
    hidden_BTD = torch.cat(hidden, dim=1)
    torch.testing.assert_close(hidden_BTD, want.hidden_states[-1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.logits(hidden_BTD), want.logits, rtol=1e-4, atol=1e-4)
    assert want.logits.std() > 0.1


def test_names_go_back_as_they_came(reference):
    config = transformer_config(reference.config.to_dict())
    back = to_theirs(transformer_table(config), ours(reference).state_dict())
    theirs = reference.state_dict()
    if config.tied_embeddings:
        theirs.pop("lm_head.weight")
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in back)
