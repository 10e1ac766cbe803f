"""Foreign weight names to ours and back, strict both ways.

A table says for each of our tensors which of theirs it is made of: one, or several stacked along axis 0 (our query, key
and value are one matrix, and so are gate and up).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from duologue.errors import CheckpointError
from duologue.nn.attention import RopeScaling
from duologue.nn.transformer import TransformerConfig
from duologue.nn.weight_files import refuse


@dataclass(frozen=True)
class Entry:
    """One of our tensors."""

    ours: str
    theirs: tuple[str, ...]  # stacked in this order; "" stands for rows of zeros that they do not store
    rows: tuple[int, ...] = ()  # of each, where there is more than one


Table = list[Entry]


def to_ours(
    table: Table,
    tensors: Mapping[str, Tensor],
    *,
    where: str,
    ignore: Iterable[str] = (),
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """Our state dict from theirs.

    Args:
        where: the file or folder, for messages.
        ignore: regular expressions of whole names that may be there and are not used.
    Raises:
        CheckpointError: names the tensors that are missing, unexpected or of a shape that cannot be stacked.
    """
    wanted = {name for entry in table for name in entry.theirs if name}
    skip = re.compile("|".join(ignore) or r"(?!)")
    refuse(wanted - set(tensors), {name for name in set(tensors) - wanted if not skip.fullmatch(name)}, where)
    ours = {}
    for entry in table:
        pieces = [tensors[name] if name else None for name in entry.theirs]
        first = next(piece for piece in pieces if piece is not None)
        for name, piece, rows in zip(entry.theirs, pieces, entry.rows or [len(first)], strict=True):
            if piece is not None and len(piece) != rows:
                raise CheckpointError(f"{where}: {name} has {len(piece)} rows, the configuration says {rows}")
        filled = [
            first.new_zeros(rows, *first.shape[1:]) if piece is None else piece
            for piece, rows in zip(pieces, entry.rows or [len(first)], strict=True)
        ]
        ours[entry.ours] = (filled[0] if len(filled) == 1 else torch.cat(filled)).to(dtype or first.dtype)
    return ours


def to_theirs(table: Table, tensors: Mapping[str, Tensor], *, where: str = "export") -> dict[str, Tensor]:
    """Their state dict from ours.

    Raises:
        CheckpointError: names the tensors that are missing or unexpected.
    """
    wanted = {entry.ours for entry in table}
    refuse(wanted - set(tensors), set(tensors) - wanted, where)
    theirs = {}
    for entry in table:
        tensor = tensors[entry.ours]
        for name, piece in zip(entry.theirs, tensor.split(list(entry.rows or [len(tensor)])), strict=True):
            if name:
                theirs[name] = piece.contiguous()
    return theirs


def transformer_config(data: Mapping[str, Any], *, where: str = "config.json") -> TransformerConfig:
    """Our config from the `config.json` of a Llama-, Mistral-, Qwen2- or Qwen3-shaped model.

    Raises:
        CheckpointError: another kind of model, or an option that our transformer does not have.
    """
    kind = data.get("model_type")
    if kind not in ("llama", "mistral", "qwen2", "qwen3", "omni_speech2s_llama", "omni_speech_llama"):
        raise CheckpointError(f"{where}: need a Llama-, Mistral-, Qwen2- or Qwen3-shaped model, got {kind!r}")
    sliding = data.get("use_sliding_window") if kind in ("qwen2", "qwen3") else data.get("sliding_window")
    for key, wanted in (("hidden_act", "silu"), ("mlp_bias", False), ("attention_bias", False)):
        if data.get(key, wanted) != wanted:
            raise CheckpointError(f"{where}: {key} = {data[key]!r} is not supported, only {wanted!r}")
    if sliding:
        raise CheckpointError(f"{where}: sliding-window attention is not supported")
    theta, scaling = _rope(data, where)
    try:
        heads = data["num_attention_heads"]
        return TransformerConfig(
            vocab_size=data["vocab_size"],
            dim=data["hidden_size"],
            layers=data["num_hidden_layers"],
            heads=heads,
            kv_heads=data.get("num_key_value_heads") or heads,
            head_dim=data.get("head_dim") or data["hidden_size"] // heads,
            ffn_dim=data["intermediate_size"],
            norm_eps=data.get("rms_norm_eps", 1e-6),
            rope_theta=theta,
            rope_scaling=scaling,
            tied_embeddings=data.get("tie_word_embeddings", False),
            qkv_bias=kind == "qwen2",
            qk_norm=kind == "qwen3",
        )
    except KeyError as error:
        raise CheckpointError(f"{where}: the key {error} is missing") from error


def _rope(data: Mapping[str, Any], where: str) -> tuple[float, RopeScaling | None]:
    """Base and scaling of the rotary positions, from the old keys or from `rope_parameters`."""
    rope = data.get("rope_parameters") or data.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    theta = float(data.get("rope_theta") or rope.get("rope_theta") or 10_000.0)
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise CheckpointError(f"{where}: rope_type {kind!r} is not supported, only 'llama3' and 'default'")
    return theta, RopeScaling(
        factor=float(rope["factor"]),
        low_freq_factor=float(rope["low_freq_factor"]),
        high_freq_factor=float(rope["high_freq_factor"]),
        original_max_position=int(rope["original_max_position_embeddings"]),
    )


def blocks_table(config: TransformerConfig, *, ours: str, theirs: str) -> Table:
    """The layers of a Llama- or Qwen-shaped decoder. `ours` and `theirs` end before the layer's number."""
    c, table = config, []
    qkv_rows = tuple(heads * c.head_dim for heads in (c.heads, c.kv_heads, c.kv_heads))
    for layer in range(c.layers):
        a, b = f"{ours}{layer}.", f"{theirs}{layer}."
        for kind in ("weight", "bias") if c.qkv_bias else ("weight",):
            parts = tuple(f"{b}self_attn.{part}_proj.{kind}" for part in "qkv")
            table.append(Entry(f"{a}attention.qkv.{kind}", parts, qkv_rows))
        gate_up = (f"{b}mlp.gate_proj.weight", f"{b}mlp.up_proj.weight")
        table += [
            Entry(f"{a}attention_norm.weight", (f"{b}input_layernorm.weight",)),
            Entry(f"{a}attention.out.weight", (f"{b}self_attn.o_proj.weight",)),
            Entry(f"{a}ffn_norm.weight", (f"{b}post_attention_layernorm.weight",)),
            Entry(f"{a}gate_up.weight", gate_up, (c.ffn_dim, c.ffn_dim)),
            Entry(f"{a}down.weight", (f"{b}mlp.down_proj.weight",)),
        ]
        if c.qk_norm:
            table += [Entry(f"{a}attention.{n}_norm.weight", (f"{b}self_attn.{n}_norm.weight",)) for n in "qk"]
    return table


def transformer_table(config: TransformerConfig, *, ours: str = "") -> Table:
    """A whole `Transformer` in the names of transformers' Llama, Mistral, Qwen2 and Qwen3."""
    table = [
        Entry(f"{ours}embedding.weight", ("model.embed_tokens.weight",)),
        *blocks_table(config, ours=f"{ours}blocks.layers.", theirs="model.layers."),
        Entry(f"{ours}norm.weight", ("model.norm.weight",)),
    ]
    return table if config.tied_embeddings else [*table, Entry(f"{ours}head.weight", ("lm_head.weight",))]


def transformer_ignore(config: TransformerConfig) -> tuple[str, ...]:
    """Names that some files carry beside the weights: old rotary tables, and a tied head written out again."""
    old = (r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",)
    return (*old, r"lm_head\.weight") if config.tied_embeddings else old
