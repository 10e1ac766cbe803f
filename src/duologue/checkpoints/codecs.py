"""Codec folders: as a model's, with the family "mimi", the codec's config and its weights in kyutai's layout.

    config.json  {"format": 1, "family": "mimi", "model": {...}, "files": {"mimi.safetensors": {...}}, ...}

So the weight file alone can be read by whatever reads the released one, given the shape.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from duologue import config
from duologue.checkpoints.folders import CODEC, open_model, save_model
from duologue.codecs.mimi import Mimi, MimiConfig
from duologue.codecs.mimi_weights import mimi_from_tensors, mimi_to_tensors

WEIGHTS = "mimi.safetensors"


def save_codec(mimi: Mimi, folder: str | Path, *, card: str = "", half: bool = False) -> Path:
    """Writes a codec folder, whole or not at all.

    Args:
        half: everything but the codebooks in float16, for half the size.
    Raises:
        CheckpointError: it cannot be written.
    """
    tensors = mimi_to_tensors(mimi)
    if half:
        tensors = halved(tensors)
    return save_model(folder, family=CODEC, model=mimi.config, tensors={WEIGHTS: tensors}, card=card)


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A codec's tensors in float16, but for the codebooks."""
    return {name: tensor if "_codebook." in name else tensor.to(torch.float16) for name, tensor in tensors.items()}


def load_codec(folder: str | Path) -> Mimi:
    """A codec in eval mode, its weights in float32.

    Raises:
        CheckpointError: no codec folder, damaged, or weights that do not fit the config.
        ConfigError: an unknown or missing key.
    """
    found = open_model(folder)
    found.require_family(CODEC)
    shape = config.from_dict(MimiConfig, found.model, where=f"{found.path}/config.json: model")
    return mimi_from_tensors(found.tensors(WEIGHTS), shape, where=str(found.path / WEIGHTS))
