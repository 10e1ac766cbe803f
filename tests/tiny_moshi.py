"""A language model of the Moshi family that is small, as the `moshi` package makes it and as ours."""

from __future__ import annotations

import copy

import torch
from moshi.models.lm import LMModel
from moshi.models.loaders import get_condition_fuser, get_conditioner_provider

from duologue.models.moshi.model import MoshiModel
from duologue.models.moshi.released import load_tensors, meta_model, stack_steps
from duologue.models.moshi.released_config import SEVEN_B, from_kyutai
from duologue.nn.weight_files import fill

TINY = {
    **SEVEN_B,
    "dim": 24,
    "text_card": 40,
    "n_q": 6,
    "dep_q": 3,
    "card": 20,
    "num_heads": 2,
    "num_layers": 2,
    "context": 12,
    "depformer_dim": 16,
    "depformer_dim_feedforward": 66,
    "depformer_num_heads": 2,
    "depformer_num_layers": 2,
    "delays": [0, 0, 1, 2, 0, 1, 2],
}
VARIANTS = {
    "moshi": TINY,
    "schedule": {**TINY, "depformer_weights_per_step_schedule": [0, 1, 1], "depformer_dim_feedforward": [66, 48]},
    "low rank, norms, biases": {
        **TINY,
        "depformer_low_rank_embeddings": 4,
        "depformer_norm": "rms_norm_f32",
        "bias_proj": True,
        "kv_repeat": 2,
    },
    "one input, two text streams": {
        **TINY,
        "depformer_multi_linear": False,
        "demux_second_stream": True,
        "text_card_out": 30,
    },
    "recogniser": {**TINY, "dep_q": 0, "extra_heads_num_heads": 2, "norm": "layer_norm"},
}
CONDITIONED = {
    **TINY,
    "conditioners": {
        "description": {
            "type": "lut",
            "lut": {"n_bins": 6, "dim": 8, "tokenizer": "noop", "possible_values": ["very_bad", "bad", "very_good"]},
        },
        "style": {"type": "lut", "lut": {"n_bins": 5, "dim": 4, "tokenizer": "noop"}},
    },
    "fuser": {"cross_attention_pos_emb": False, "sum": ["style", "description"], "prepend": [], "cross": []},
}


def reference(raw: dict, *, seed: int = 0, device: str = "cpu") -> LMModel:
    """The `moshi` package's model with random weights, such that no token is certain and none is left out."""
    kwargs = {key: value for key, value in raw.items() if key not in ("model_type", "moshi_name", "depformer_context")}
    if "demux_second_stream" in kwargs:
        kwargs["demux_second_text_stream"] = kwargs.pop("demux_second_stream")
    if "conditioners" in kwargs:
        parts = copy.deepcopy(kwargs)  # it is changed
        kwargs["condition_provider"] = get_conditioner_provider(parts["dim"], device, parts)
        kwargs["fuser"] = get_condition_fuser(parts)
        del kwargs["conditioners"]
    torch.manual_seed(seed)
    model = LMModel(**kwargs, device=device, dtype=torch.float32).eval()
    if device == "cpu":
        for name, parameter in model.named_parameters():
            if name.endswith("alpha"):
                torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
            elif name.startswith("condition_provider."):  # what is heard and said is to matter as well
                torch.nn.init.normal_(parameter, std=0.1 if name.endswith("learnt_padding") else 0.25)
            elif parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5 * 0.8)
            else:
                torch.nn.init.normal_(parameter, std=0.3)
    return model


def ours(raw: dict, theirs: LMModel) -> MoshiModel:
    """Our model with the same weights, by way of the published layout."""
    config = from_kyutai(raw)
    model = meta_model(config)
    fill(model, load_tensors(stack_steps(theirs.state_dict()), config, where="test"), where="test")
    return model.eval()
