"""Reads a Llama-shaped language model and its tokenizer out of a GGUF file.

GGUF keeps Llama's query and key rows in the interleaved rotary order (pairs side by side); ours is the half-split one,
so the rows are put back. Source: the GGUF specification and the tensor names of llama.cpp's `llama` architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from torch import Tensor

from duologue.codecs.text import TextCodec, byte_level_bpe
from duologue.errors import CheckpointError
from duologue.nn.transformer import Transformer, TransformerConfig


def read_llm(path: Path, *, dtype: torch.dtype = torch.float32) -> tuple[Transformer, TextCodec]:
    """Loads the model, dequantised to `dtype`, and its tokenizer.

    Raises:
        CheckpointError: not a GGUF file, truncated, or not a Llama-shaped model.
    """
    try:
        reader = GGUFReader(str(path))
    except Exception as error:  # gguf raises ValueError, IndexError and OSError by turns
        raise CheckpointError(
            f"{path}: not a readable GGUF file ({error}). Delete it; it is fetched again at the next start."
        ) from error
    field = _fields(reader)
    if field("general.architecture") != "llama":
        raise CheckpointError(f"{path}: need a GGUF of architecture 'llama', got {field('general.architecture')!r}")
    config = TransformerConfig(
        vocab_size=len(field("tokenizer.ggml.tokens")),
        dim=field("llama.embedding_length"),
        layers=field("llama.block_count"),
        heads=field("llama.attention.head_count"),
        kv_heads=field("llama.attention.head_count_kv"),
        head_dim=field("llama.rope.dimension_count"),
        ffn_dim=field("llama.feed_forward_length"),
        norm_eps=float(field("llama.attention.layer_norm_rms_epsilon")),
        rope_theta=float(field("llama.rope.freq_base")),
        tied_embeddings=all(tensor.name != "output.weight" for tensor in reader.tensors),
    )
    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict(_weights(reader, config, dtype), strict=True, assign=True)
    return model.eval(), _tokenizer(field)


def _fields(reader: GGUFReader) -> Callable[[str], Any]:
    def field(name: str) -> Any:
        if name not in reader.fields:
            raise CheckpointError(f"GGUF: the field {name!r} is missing; need a Llama-shaped model with its tokenizer")
        return reader.fields[name].contents()

    return field


def _weights(reader: GGUFReader, config: TransformerConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    by_name = {tensor.name: tensor for tensor in reader.tensors}

    def get(name: str) -> Tensor:
        if name not in by_name:
            raise CheckpointError(f"GGUF: the tensor {name!r} is missing; the file is not whole or of another kind")
        tensor = by_name[name]
        return torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)).to(dtype)

    def halves(weight: Tensor, heads: int) -> Tensor:
        """Interleaved rotary rows to half-split ones."""
        rows = weight.view(heads, config.head_dim // 2, 2, -1)
        return rows.transpose(1, 2).reshape(weight.shape)

    weights = {"embedding.weight": get("token_embd.weight"), "norm.weight": get("output_norm.weight")}
    if not config.tied_embeddings:
        weights["head.weight"] = get("output.weight")
    for index in range(config.layers):
        theirs, ours = f"blk.{index}", f"blocks.layers.{index}"
        q = halves(get(f"{theirs}.attn_q.weight"), config.heads)
        k = halves(get(f"{theirs}.attn_k.weight"), config.kv_heads)
        weights |= {
            f"{ours}.attention_norm.weight": get(f"{theirs}.attn_norm.weight"),
            f"{ours}.attention.qkv.weight": torch.cat([q, k, get(f"{theirs}.attn_v.weight")]),
            f"{ours}.attention.out.weight": get(f"{theirs}.attn_output.weight"),
            f"{ours}.ffn_norm.weight": get(f"{theirs}.ffn_norm.weight"),
            f"{ours}.gate_up.weight": torch.cat([get(f"{theirs}.ffn_gate.weight"), get(f"{theirs}.ffn_up.weight")]),
            f"{ours}.down.weight": get(f"{theirs}.ffn_down.weight"),
        }
    return weights


def _tokenizer(field: Callable[[str], Any]) -> TextCodec:
    tokens, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    control = 3  # GGUF's token type of control tokens
    tokenizer = byte_level_bpe(
        tokens,
        field("tokenizer.ggml.merges"),
        special=[index for index, kind in enumerate(kinds) if kind == control],
        split_digits=field("tokenizer.ggml.pre") == "smollm",
    )
    return TextCodec(
        tokenizer,
        end_of_text=tokens.index("<|endoftext|>"),
        turn_begin=tokens.index("<|im_start|>"),
        turn_end=tokens.index("<|im_end|>"),
    )
