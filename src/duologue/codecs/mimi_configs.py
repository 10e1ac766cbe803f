"""Mimi's shape from the configuration files of others: kyutai's JSON and transformers' `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from duologue.codecs.mimi import MimiConfig, mimi_transformer
from duologue.codecs.rvq import QuantizerConfig
from duologue.codecs.seanet import SeanetConfig
from duologue.errors import CheckpointError

KYUTAI_ONLY = {  # what our Mimi is, whatever a file says
    "seanet": {
        "channels": 1,
        "causal": True,
        "activation": "ELU",
        "norm": "none",
        "pad_mode": "constant",
        "true_skip": True,
    },
    "transformer": {"causal": True, "gating": "none", "norm": "layer_norm", "positional_embedding": "rope"},
}
TRANSFORMERS_ONLY = {
    "model_type": "mimi",
    "audio_channels": 1,
    "use_causal_conv": True,
    "pad_mode": "constant",
    "trim_right_ratio": 1.0,
    "use_conv_shortcut": False,
    "hidden_act": "gelu",
    "attention_bias": False,
}


def config_from_kyutai(data: Mapping[str, Any], *, num_codebooks: int = 8, where: str = "mimi config") -> MimiConfig:
    """
    Raises:
        CheckpointError: a key is missing, or an option that our Mimi does not have.
    """
    try:
        s, q, t = data["seanet"], data["quantizer"], data["transformer"]
        for part, fixed in KYUTAI_ONLY.items():
            _refuse_others(data[part], fixed, f"{where}: {part}")
        return MimiConfig(
            sample_rate=data["sample_rate"],
            frame_rate=data["frame_rate"],
            num_codebooks=num_codebooks,
            seanet=SeanetConfig(
                dim=s["dimension"],
                filters=s["n_filters"],
                ratios=tuple(s["ratios"]),
                kernel=s["kernel_size"],
                last_kernel=s["last_kernel_size"],
                residual_kernel=s["residual_kernel_size"],
                residual_layers=s["n_residual_layers"],
                dilation_base=s["dilation_base"],
                compress=s["compress"],
            ),
            transformer=replace(
                mimi_transformer(),
                dim=t["d_model"],
                layers=t["num_layers"],
                heads=t["num_heads"],
                ffn_dim=t["dim_feedforward"],
                layer_scale=t["layer_scale"],
                rope_theta=float(t["max_period"]),
                context=t["context"],
            ),
            quantizer=QuantizerConfig(
                dim=q["input_dimension"],
                code_dim=q["dimension"],
                codebook_size=q["bins"],
                semantic=q.get("n_q_semantic", 1),
                codebooks=q["n_q"],
            ),
        )
    except KeyError as error:
        raise CheckpointError(f"{where}: the key {error} is missing") from error


def config_from_transformers(
    data: Mapping[str, Any], *, num_codebooks: int = 8, where: str = "config.json"
) -> MimiConfig:
    """
    Raises:
        CheckpointError: a key is missing, or an option that our Mimi does not have.
    """
    _refuse_others(data, TRANSFORMERS_ONLY, where)
    try:
        dim, ratios = data["hidden_size"], tuple(data["upsampling_ratios"])
        seanet = SeanetConfig(
            dim=dim,
            filters=data["num_filters"],
            ratios=ratios,
            kernel=data["kernel_size"],
            last_kernel=data["last_kernel_size"],
            residual_kernel=data["residual_kernel_size"],
            residual_layers=data["num_residual_layers"],
            dilation_base=data["dilation_growth_rate"],
            compress=data["compress"],
        )
        _refuse_others(data, {"upsample_groups": dim, "num_key_value_heads": data["num_attention_heads"]}, where)
        rope = data.get("rope_parameters") or data
        return MimiConfig(
            sample_rate=data["sampling_rate"],
            frame_rate=data.get("frame_rate") or data["sampling_rate"] / (2 * seanet.hop),
            num_codebooks=num_codebooks,
            seanet=seanet,
            transformer=replace(
                mimi_transformer(),
                dim=dim,
                layers=data["num_hidden_layers"],
                heads=data["num_attention_heads"],
                ffn_dim=data["intermediate_size"],
                norm_eps=data["norm_eps"],
                layer_scale=data["layer_scale_initial_scale"],
                rope_theta=float(rope.get("rope_theta", 10_000.0)),
                context=data["sliding_window"],
            ),
            quantizer=QuantizerConfig(
                dim=dim,
                code_dim=data["codebook_dim"],
                codebook_size=data["codebook_size"],
                semantic=data["num_semantic_quantizers"],
                codebooks=data["num_quantizers"],
            ),
        )
    except KeyError as error:
        raise CheckpointError(f"{where}: the key {error} is missing") from error


def _refuse_others(data: Mapping[str, Any], fixed: Mapping[str, Any], where: str) -> None:
    for key, wanted in fixed.items():
        if data.get(key, wanted) != wanted:
            raise CheckpointError(f"{where}: {key} = {data[key]!r} is not supported, only {wanted!r}")
