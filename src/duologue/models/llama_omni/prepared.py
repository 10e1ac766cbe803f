"""The language model as it runs, kept beside the artefact that it came from, so that only the first start is slow.

Reading a GGUF, adding the low-rank changes and rounding to int8 takes several seconds; the result is a safetensors file
that opens in a fraction of one. It is named by the contents that it was made of, and made again when it cannot be read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from duologue import config as configs
from duologue.codecs.text import TextCodec
from duologue.errors import CheckpointError, DuologueError
from duologue.models.language_model import read_language_model
from duologue.nn.quant import quantize, shape_like
from duologue.nn.transformer import Transformer, TransformerConfig

logger = logging.getLogger(__name__)
ACTIVATIONS = "int16"  # with "int8" one greedy token in ten changes, for 15 % less time
_VERSION = "1"  # of what is written here; part of the name


def load_llm(gguf: Path, changes: Mapping[str, Tensor], *, where: str, int8: bool) -> tuple[Transformer, TextCodec]:
    """The language model of a GGUF, or of a folder of transformers, with low-rank changes, in int8 or float32.

    Raises:
        CheckpointError: a file that is not whole, or changes that do not fit.
    """
    if not int8:
        return _merged(gguf, changes, where)
    kept = _place(gguf, changes)
    if kept.is_file():
        try:
            return _read(kept)
        except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, DuologueError) as error:
            logger.warning("%s is not readable (%s) and is made again", kept, error)
    llm, codec = _merged(gguf, changes, where)
    quantize(llm, activations=ACTIVATIONS)
    _write(kept, llm, codec)
    return llm, codec


def _merged(gguf: Path, changes: Mapping[str, Tensor], where: str) -> tuple[Transformer, TextCodec]:
    llm, codec = read_language_model(gguf)
    merge(llm, changes, where=where)
    return llm, codec


def merge(llm: Transformer, changes: Mapping[str, Tensor], *, where: str) -> None:
    """Adds low-rank changes (`x.lora_A`, `x.lora_B`, scale within B) to the weights, in place.

    Raises:
        CheckpointError: a change to a layer that is not there, or of another size.
    """
    for name in changes:
        if not name.endswith(".lora_A"):
            continue
        layer = name.removesuffix(".lora_A")
        try:
            weight: nn.Parameter = llm.get_submodule(layer).weight  # type: ignore[assignment]
            weight.data += (changes[f"{layer}.lora_B"].float() @ changes[name].float()).to(weight.dtype)
        except (AttributeError, KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"{where}: the change to {layer!r} does not fit the language model ({error}); "
                "use the model that it was trained for"
            ) from error


def _place(gguf: Path, changes: Mapping[str, Tensor]) -> Path:
    files = sorted(gguf.glob("*.safetensors")) if gguf.is_dir() else [gguf]
    stamps = " ".join(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)
    digest = hashlib.sha256(f"{_VERSION} {stamps}".encode())
    for name in sorted(changes):
        digest.update(name.encode() + changes[name].contiguous().view(torch.uint8).numpy().tobytes())
    return gguf.parent.parent / "prepared" / f"{gguf.stem}-{digest.hexdigest()[:16]}.safetensors"


def _write(path: Path, llm: Transformer, codec: TextCodec) -> None:
    """Writes the file whole or not at all. A cache that cannot be written costs the next start time, nothing else."""
    about = {
        "config": json.dumps(configs.to_dict(llm.config)),
        "tokenizer": codec.tokenizer.to_str(),
        "marks": json.dumps([codec.end_of_text, codec.turn_begin, codec.turn_end]),
    }
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        os.close(handle)
        save_file(llm.state_dict(), temporary, metadata=about)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        logger.warning("%s cannot be written (%s): the next start will be as slow as this one", path, error)
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _read(path: Path) -> tuple[Transformer, TextCodec]:
    with safe_open(str(path), framework="pt") as file:
        about = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    with torch.device("meta"):
        llm = Transformer(configs.from_dict(TransformerConfig, json.loads(about["config"])))
    shape_like(llm, tensors, activations=ACTIVATIONS)
    llm.load_state_dict(tensors, strict=True, assign=True)
    end_of_text, turn_begin, turn_end = json.loads(about["marks"])
    tokenizer = Tokenizer.from_str(about["tokenizer"])
    return llm.eval(), TextCodec(tokenizer, end_of_text=end_of_text, turn_begin=turn_begin, turn_end=turn_end)
