"""Reads a Llama- or Qwen-shaped language model with its tokenizer: a GGUF file, or a folder of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from duologue.codecs.text import TextCodec, load_tokenizer
from duologue.errors import CheckpointError
from duologue.models.gguf import read_llm
from duologue.models.weights import to_ours, transformer_config, transformer_ignore
from duologue.models.weights import transformer_table as table_of
from duologue.nn.transformer import Transformer
from duologue.nn.weight_files import Shards, fill, read_json


def read_language_model(path: Path, *, dtype: torch.dtype = torch.float32) -> tuple[Transformer, TextCodec]:
    """Loads the model in `dtype`, and its tokenizer.

    Turns are framed as ChatML. Where the tokenizer has no tokens for that, the frame is plain text and a turn ends with
    the model's own end token: the model learns it in training.

    Args:
        path: a GGUF file, or a folder with config.json, *.safetensors and tokenizer.json.
    Raises:
        CheckpointError: anything missing, damaged or unexpected, or a model of another shape.
    """
    path = Path(path)
    if not path.is_dir():
        return read_llm(path, dtype=dtype)
    data = read_json(path / "config.json")
    config = transformer_config(data, where=str(path / "config.json"))
    weights = to_ours(table_of(config), Shards(path), where=str(path), ignore=transformer_ignore(config), dtype=dtype)
    with torch.device("meta"):
        model = Transformer(config)
    fill(model, weights, where=str(path))
    return model.eval(), _codec(load_tokenizer(path / "tokenizer.json"), data, path)


def _codec(tokenizer: Tokenizer, data: dict[str, Any], path: Path) -> TextCodec:
    end = data.get("eos_token_id")
    end = end[0] if isinstance(end, list) and end else end
    turn_end, of_text = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    known = [int(token) for token in (turn_end, end, of_text) if isinstance(token, int)]
    if not known:
        raise CheckpointError(
            f"{path}: no token ends a turn; config.json needs eos_token_id, or the tokenizer <|im_end|>"
        )
    return TextCodec(
        tokenizer,
        end_of_text=of_text if of_text is not None else known[-1],
        turn_begin=tokenizer.token_to_id("<|im_start|>"),
        turn_end=known[0],
    )
