"""The `config.json` of released Moshi models, to our configuration and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from duologue.errors import CheckpointError, ConfigError
from duologue.models.moshi.config import ConditionConfig, DepthConfig, MoshiConfig
from duologue.nn.weight_files import read_json
from duologue.nn.window_transformer import WindowConfig

SEVEN_B: dict[str, Any] = {
    "dim": 4096,
    "text_card": 32_000,
    "existing_text_padding_id": 3,
    "n_q": 16,
    "dep_q": 8,
    "card": 2048,
    "num_heads": 32,
    "num_layers": 32,
    "hidden_scale": 4.125,
    "causal": True,
    "layer_scale": None,
    "context": 3000,
    "max_period": 10_000,
    "gating": "silu",
    "norm": "rms_norm_f32",
    "positional_embedding": "rope",
    "depformer_dim": 1024,
    "depformer_dim_feedforward": 4224,
    "depformer_num_heads": 16,
    "depformer_num_layers": 6,
    "depformer_layer_scale": None,
    "depformer_multi_linear": True,
    "depformer_context": 8,
    "depformer_max_period": 10_000,
    "depformer_gating": "silu",
    "depformer_pos_emb": "none",
    "depformer_weights_per_step": True,
    "delays": [0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1],
}
NORMS = {"rms_norm_f32": ("rms", 1e-8), "rms_norm": ("rms", 1e-5), "layer_norm": ("layer", 1e-5)}
NORM_NAMES = {pair: name for name, pair in NORMS.items()}
# Keys that say nothing about the language model's shape: file names, tasks, settings of training and of other parts.
BESIDE = {
    "moshi_name", "mimi_name", "mimi_config_name", "tokenizer_name", "lora_name", "model_type", "model_id",
    "lm_gen_config", "tts_config", "stt_config", "lora", "lora_rank", "lora_scaling", "gradient_checkpointing",
    "quantize", "version", "depformer_causal", "depformer_context", "depformer_max_period",
}  # fmt: skip
# What can only be one way here, and how it must be; absent means so too, unless said otherwise in `from_kyutai`.
FIXED: dict[str, tuple[Any, ...]] = {
    "causal": (True,),
    "layer_scale": (None,),
    "depformer_layer_scale": (None,),
    "gating": ("silu",),
    "depformer_gating": ("silu",),
    "positional_embedding": ("rope",),
    "depformer_pos_emb": ("none",),
    "depformer_weights_per_step": (True,),
    "cross_attention": (False,),
    "norm_emb": (False,),
}
LUT = {"n_bins", "dim", "possible_values", "init_scale"}  # of a condition; the last is for new weights
LUT_FIXED = {"tokenizer": "noop", "force_linear": True, "learn_padding": True, "output_bias": False, "pad_empty": True}
FUSED = "sum"  # the one way in which conditions come in here
FUSED_BESIDE = {"cross_attention_pos_emb", "cross_attention_pos_emb_scale"}  # of the other ways
HIBIKI = {"conditions": "very_good", "against": "very_bad"}  # what `moshi` gives Hibiki as its description
VOICES = ("voices.tgz", "voices")  # of PersonaPlex
READ = {
    "dim", "text_card", "text_card_out", "demux_second_stream", "existing_text_padding_id",
    "existing_text_end_padding_id", "n_q", "dep_q", "card", "num_heads", "num_layers", "hidden_scale", "context",
    "max_period", "norm", "kv_repeat", "bias_proj", "delays", "extra_heads_num_heads", "extra_heads_dim",
    "depformer_dim", "depformer_dim_feedforward", "depformer_num_heads", "depformer_num_layers", "depformer_kv_repeat",
    "depformer_multi_linear", "depformer_weights_per_step_schedule", "depformer_low_rank_embeddings", "depformer_norm",
    "conditioners", "fuser",
}  # fmt: skip


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`, or that of the 7B where there is none, or one without the model's shape.

    A folder without one that holds PersonaPlex's voices is taken for PersonaPlex's.

    Raises:
        CheckpointError: it is not a JSON object.
    """
    path = Path(folder) / "config.json"
    voices = any((Path(folder) / name).exists() for name in VOICES)
    raw = read_json(path) if path.is_file() else {"model_type": "personaplex"} if voices else {}
    if "dim" in raw:
        return raw
    if raw.get("model_type") == "personaplex":
        return {**SEVEN_B, "dep_q": 16, "depformer_context": 16, **raw}
    return {**SEVEN_B, **raw}


def from_kyutai(raw: Mapping[str, Any], *, where: str = "config.json") -> MoshiConfig:
    """Our configuration.

    Raises:
        CheckpointError: a key that is missing, unknown, or of a variant that is not supported; it is named.
    """
    speaks = bool(raw.get("dep_q"))
    for key, values in FIXED.items():
        if key in raw and raw[key] not in values and (speaks or not key.startswith("depformer_")):
            raise CheckpointError(f"{where}: {key} = {raw[key]!r} is not supported, only {values[0]!r}")
    unknown = sorted(set(raw) - READ - BESIDE - set(FIXED))
    if unknown:
        raise CheckpointError(f"{where}: unknown key {unknown[0]!r}. Is it a language model of the Moshi family?")
    required = ["positional_embedding", "gating", *(["depformer_pos_emb", "depformer_weights_per_step"] * speaks)]
    try:
        for key in required:  # absent, the reference takes what is not supported here
            raw[key]
        norm, eps = _norm(raw.get("norm", "layer_norm"), where)
        temporal = WindowConfig(
            dim=raw["dim"],
            layers=raw["num_layers"],
            heads=raw["num_heads"],
            kv_heads=raw["num_heads"] // raw.get("kv_repeat", 1),
            ffn_dim=hidden(raw["dim"], int(raw["hidden_scale"] * raw["dim"])),
            norm=norm,
            norm_eps=eps,
            rope_theta=float(raw.get("max_period", 10_000)),
            context=raw["context"],
        )
        own = raw["dep_q"]
        if raw.get("model_type") == "personaplex" and own == raw["n_q"]:
            own = raw["n_q"] // 2
        return MoshiConfig(
            temporal=temporal,
            depth=_depth(raw, where) if speaks else None,
            codebooks=raw["n_q"],
            own_codebooks=own,
            codebook_size=raw["card"],
            text_vocab=raw["text_card"],
            text_vocab_out=raw.get("text_card_out"),
            second_text_stream=raw.get("demux_second_stream", False),
            delays=tuple(raw["delays"]),
            padding_id=raw.get("existing_text_padding_id", 3),
            end_padding_id=raw.get("existing_text_end_padding_id", 0),
            head_bias=raw.get("bias_proj", False),
            extra_heads=raw.get("extra_heads_num_heads", 0),
            extra_head_dim=raw.get("extra_heads_dim", 6),
            conditions=_conditions(raw, where),
        )
    except KeyError as error:
        raise CheckpointError(f"{where}: the key {error} is missing") from error
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error


def _conditions(raw: Mapping[str, Any], where: str) -> tuple[ConditionConfig, ...]:
    conditioners, fuser = raw.get("conditioners") or {}, raw.get("fuser") or {}
    conditions = tuple(_condition(name, each, f"{where}: conditioners.{name}") for name, each in conditioners.items())
    for kind, names in fuser.items():
        if kind != FUSED and kind not in FUSED_BESIDE and names:
            raise CheckpointError(f"{where}: fuser.{kind} = {names!r} is not supported, only {FUSED!r}")
    fused = fuser.get(FUSED) or []
    if set(fused) != set(conditioners):
        raise CheckpointError(f"{where}: fuser.{FUSED} = {fused!r} must name all conditioners, {sorted(conditioners)}")
    return conditions


def _condition(name: str, raw: object, where: str) -> ConditionConfig:
    kind, lut = (raw.get("type"), raw.get("lut")) if isinstance(raw, Mapping) else (None, None)
    if kind != "lut" or not isinstance(lut, Mapping):
        raise CheckpointError(f"{where}: type = {kind!r} is not supported, only 'lut' with its settings under 'lut'")
    for key, value in lut.items():
        if key not in LUT | set(LUT_FIXED):
            raise CheckpointError(f"{where}.lut: unknown key {key!r}")
        if key in LUT_FIXED and value != LUT_FIXED[key]:
            raise CheckpointError(f"{where}.lut.{key} = {value!r} is not supported, only {LUT_FIXED[key]!r}")
    for key in ("n_bins", "dim", "tokenizer"):
        if key not in lut:
            raise CheckpointError(f"{where}.lut: the key {key!r} is missing")
    values = lut.get("possible_values")
    return ConditionConfig(
        name=name, bins=lut["n_bins"], dim=lut["dim"], values=None if values is None else tuple(values)
    )


def is_hibiki(config: MoshiConfig) -> bool:
    """Whether the model has Hibiki's condition: how alike the translation's voice is."""
    values = {condition.name: condition.values or () for condition in config.conditions}
    return set(HIBIKI.values()) <= set(values.get("description", ()))


def _depth(raw: Mapping[str, Any], where: str) -> DepthConfig:
    schedule = raw.get("depformer_weights_per_step_schedule")
    sets = raw["dep_q"] if schedule is None else max(schedule) + 1
    dim, wide = raw["depformer_dim"], raw.get("depformer_dim_feedforward")
    wide = int(raw["hidden_scale"] * dim) if wide is None else wide
    norm, eps = _norm(raw.get("norm", "layer_norm"), where)
    head = raw.get("depformer_norm")
    head_norm, head_eps = (norm, eps) if head is None else _norm(head, where)
    if head_norm != norm:
        raise CheckpointError(f"{where}: depformer_norm = {head!r} beside norm = {raw['norm']!r} is not supported")
    heads = raw.get("depformer_num_heads", raw["num_heads"])
    return DepthConfig(
        steps=raw["dep_q"],
        dim=dim,
        layers=raw.get("depformer_num_layers", raw["num_layers"]),
        heads=heads,
        kv_heads=heads // raw.get("depformer_kv_repeat", raw.get("kv_repeat", 1)),
        ffn_dims=tuple(hidden(dim, each) for each in (wide if isinstance(wide, list) else [wide] * sets)),
        schedule=None if schedule is None else tuple(schedule),
        inputs_per_step=raw.get("depformer_multi_linear", False),
        low_rank=raw.get("depformer_low_rank_embeddings"),
        norm=norm,
        norm_eps=eps,
        head_norm=head is not None,
        head_norm_eps=head_eps,
    )


def _norm(name: str, where: str) -> tuple[str, float]:
    if name not in NORMS:
        raise CheckpointError(f"{where}: norm {name!r} is not supported, only {', '.join(NORMS)}")
    return NORMS[name]


def hidden(dim: int, wide: int) -> int:
    """The inner width of a gated feed-forward that `moshi` calls `wide`: about as many weights as a plain one."""
    return 21 * dim // 8 if wide == 4 * dim else 2 * wide // 3


def widened(dim: int, inner: int) -> int:
    """The reverse of `hidden`."""
    wide = (3 * inner + 1) // 2
    if hidden(dim, wide) != inner:
        wide = 4 * dim if 21 * dim // 8 == inner else wide + 1
    if hidden(dim, wide) != inner:
        raise CheckpointError(f"a gated feed-forward of {inner} beside a width of {dim} cannot be said in config.json")
    return wide


def to_kyutai(config: MoshiConfig) -> dict[str, Any]:
    """The `config.json` for our configuration.

    Raises:
        CheckpointError: it has something that the format cannot say.
    """
    c, t = config, config.temporal
    if (t.norm, t.norm_eps) not in NORM_NAMES or t.ffn != "silu_gated" or t.layer_scale is not None or not t.rope_theta:
        raise CheckpointError(f"to_kyutai: need a gated feed-forward, rotary positions and a known norm, got {t}")
    wide = widened(t.dim, t.ffn_dim)
    scale = next(s for s in (wide / t.dim, (wide + 0.5) / t.dim) if int(s * t.dim) == wide)
    raw = {
        **SEVEN_B,
        "model_type": _model_type(c),
        "dim": t.dim,
        "text_card": c.text_vocab,
        "text_card_out": c.text_vocab_out,
        "demux_second_stream": c.second_text_stream,
        "existing_text_padding_id": c.padding_id,
        "existing_text_end_padding_id": c.end_padding_id,
        "n_q": c.codebooks,
        "dep_q": c.depth_steps,
        "card": c.codebook_size,
        "num_heads": t.heads,
        "num_layers": t.layers,
        "hidden_scale": scale,
        "context": t.context,
        "max_period": t.rope_theta,
        "norm": NORM_NAMES[t.norm, t.norm_eps],
        "kv_repeat": t.heads // t.key_heads,
        "bias_proj": c.head_bias,
        "delays": list(c.delays),
        "extra_heads_num_heads": c.extra_heads,
        "extra_heads_dim": c.extra_head_dim,
    }
    if c.conditions:
        raw["conditioners"] = {condition.name: _to_lut(condition) for condition in c.conditions}
        raw["fuser"] = {FUSED: [condition.name for condition in c.conditions]}
    return raw if c.depth is None else {**raw, **_to_kyutai_depth(c.depth)}


def _model_type(config: MoshiConfig) -> str:
    if config.depth_steps > config.own_codebooks:
        return "personaplex"
    return "hibiki" if is_hibiki(config) else "moshi"


def _to_lut(condition: ConditionConfig) -> dict[str, Any]:
    lut: dict[str, Any] = {"n_bins": condition.bins, "dim": condition.dim, "tokenizer": LUT_FIXED["tokenizer"]}
    if condition.values is not None:
        lut["possible_values"] = list(condition.values)
    return {"type": "lut", "lut": lut}


def _to_kyutai_depth(depth: DepthConfig) -> dict[str, Any]:
    d, wide = depth, [widened(depth.dim, inner) for inner in depth.ffn_dims]
    return {
        "depformer_dim": d.dim,
        "depformer_dim_feedforward": wide[0] if len(set(wide)) == 1 else wide,
        "depformer_num_heads": d.heads,
        "depformer_num_layers": d.layers,
        "depformer_kv_repeat": d.heads // d.key_heads,
        "depformer_multi_linear": d.inputs_per_step,
        "depformer_context": d.steps,
        "depformer_weights_per_step_schedule": None if d.schedule is None else list(d.schedule),
        "depformer_low_rank_embeddings": d.low_rank,
        "depformer_norm": NORM_NAMES[d.norm, d.head_norm_eps] if d.head_norm else None,
    }
