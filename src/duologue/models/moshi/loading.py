"""From a model folder of our own layout to a running `Moshi`, and what is to be written into one.

The folder holds moshi.safetensors (linear layers may be int8 or int4, embeddings int8), mimi.safetensors (kyutai's
layout) and a tokenizer: tokenizer.json, or tokenizer.model of SentencePiece. Published folders: `released_family`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from duologue import config as configs
from duologue.codecs.mimi import Mimi, MimiConfig
from duologue.codecs.mimi_weights import mimi_from_tensors, mimi_to_tensors
from duologue.errors import PartError
from duologue.models.moshi.conditions import Guidance
from duologue.models.moshi.config import MoshiConfig
from duologue.models.moshi.family import Moshi, PromptConfig
from duologue.models.moshi.generation import Sampling
from duologue.models.moshi.model import MoshiModel
from duologue.models.moshi.released import may_round, meta_model, quantize_moshi
from duologue.models.moshi.text import Pieces, load_pieces
from duologue.nn.packed import pack_linears
from duologue.nn.quant import release, shape_like, unpack_int8
from duologue.nn.quant_matrix import QuantMatrix
from duologue.nn.weight_files import fill

MODEL_FILE, CODEC_FILE, TEXT_FILES = "moshi.safetensors", "mimi.safetensors", ("tokenizer.json", "tokenizer.model")
_TABLE = ".table.weight"  # in the names of what `embeddings` looks up
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.bfloat16, "int4": torch.bfloat16}
BITS = {"int8": 8, "int4": 4}
DType = Literal["float32", "bfloat16", "int8", "int4"]


@dataclass(frozen=True, kw_only=True)
class FamilyConfig:
    """config.json's `model` of the family `moshi`."""

    language_model: MoshiConfig = field(default_factory=MoshiConfig)
    mimi: MimiConfig = field(default_factory=MimiConfig)
    sampling: Sampling = field(default_factory=Sampling)
    seed: int | None = None  # of every conversation; None: each has its own
    prompt: PromptConfig | None = None  # how instructions are given; None: it takes none
    conditions: dict[str, str] = field(default_factory=dict)  # a value of each; one that is not named: none
    against: dict[str, str] = field(default_factory=dict)  # what guidance leads away from, likewise
    guidance: float = 1.0  # how strongly (conditions.Guidance); 1: not at all, and at no cost
    dtype: DType = "bfloat16"  # of the language model; int8, int4: its linear layers. The codec is in float32
    device: str = "cpu"


class Folder(Protocol):
    """What this module needs of `checkpoints.ModelFolder`."""

    @property
    def path(self) -> Path: ...
    @property
    def model(self) -> dict[str, Any]: ...
    @property
    def files(self) -> Mapping[str, Any]: ...
    def file(self, name: str) -> Path: ...
    def tensors(self, name: str) -> dict[str, Tensor]: ...


def from_folder(folder: Folder, artefact: Callable[[str], Path], **parts: Any) -> Moshi:
    """Builds the model of a folder.

    Args:
        artefact: not needed, all parts lie in the folder.
    Raises:
        CheckpointError: a file that is missing or does not fit. ConfigError: an unknown key.
        PartError: parts that do not fit each other, or one to be exchanged: there is none.
    """
    refuse_parts(parts)
    config = configs.from_dict(FamilyConfig, folder.model, where=f"{folder.path}/config.json: model")
    text = next((name for name in TEXT_FILES if name in folder.files), TEXT_FILES[0])
    pieces = load_pieces(folder.file(text), silent=silent(config.language_model))
    model, tensors = meta_model(config.language_model), _with_tables(folder.tensors(MODEL_FILE))
    shape_like(model, tensors)
    fill(model, tensors, where=f"{folder.path}/{MODEL_FILE}")
    codec = mimi_from_tensors(folder.tensors(CODEC_FILE), config.mimi, where=f"{folder.path}/{CODEC_FILE}")
    return assemble(model, codec, pieces, config)


def _with_tables(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Embeddings that are int8 in the file as they are looked up: in floating point."""
    tables = {name: tensor for name, tensor in tensors.items() if _TABLE in name}
    return {name: tensor for name, tensor in tensors.items() if name not in tables} | unpack_int8(tables)


def folder_parts(config: FamilyConfig, model: MoshiModel, mimi: Mimi, tokenizer: Path) -> dict[str, Any]:
    """The arguments of `checkpoints.save_model` that write this model; the linear layers must not be packed.

    Args:
        tokenizer: a tokenizer.json, or a SentencePiece file.
    """
    return {
        "family": "moshi",
        "model": config,
        "tensors": {MODEL_FILE: model.state_dict(), CODEC_FILE: mimi_to_tensors(mimi)},
        "files": {TEXT_FILES[0 if Path(tokenizer).suffix == ".json" else 1]: Path(tokenizer)},
    }


def assemble(model: MoshiModel, mimi: Mimi, pieces: Pieces, config: FamilyConfig) -> Moshi:
    """Makes the parts ready for inference, in place, and has them work once."""
    model = _in(model.eval(), DTYPES[config.dtype])
    if config.dtype in BITS and not any(isinstance(part, QuantMatrix) for part in model.modules()):
        quantize_moshi(model, bits=BITS[config.dtype])
    if config.device == "cpu":
        pack_linears(model, single=True)
        release(model)
        mimi.pack()
    moshi = Moshi(
        model.to(config.device),
        mimi.eval().to(config.device),
        pieces,
        sampling=config.sampling,
        seed=config.seed,
        prompt=config.prompt,
        guidance=Guidance(conditions=config.conditions, against=config.against, coefficient=config.guidance),
    )
    with torch.inference_mode():  # what is made at the first call is made now
        state, live_B = moshi.init_state(1), torch.tensor([True])
        for _ in range(2 + model.config.max_delay):
            moshi.listen(state, torch.zeros(1, moshi.spec.input_samples), live_B)
            moshi.speak(state, live_B)
    return moshi


def silent(config: MoshiConfig) -> tuple[int, int]:
    """Text ids that stand for no text."""
    return config.padding_id, config.end_padding_id


def refuse_parts(parts: Mapping[str, Any]) -> None:
    for name in parts:
        raise PartError(f"there is no part {name!r}: no part of a Moshi can be exchanged")


def _in(model: MoshiModel, dtype: torch.dtype) -> MoshiModel:
    """Weights in a type, but for those of int8 and int4 layers and of conditions."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if may_round(name, tensor):
            tensor.data = tensor.data.to(dtype)
    return model
