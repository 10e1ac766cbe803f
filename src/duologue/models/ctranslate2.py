"""Reads Whisper weights out of a CTranslate2 `model.bin`, the form in which the package index carries them.

The layout, little-endian: version, specification's name, revision, then of every variable its name, shape, type, bytes.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from duologue.errors import CheckpointError
from duologue.models.whisper import Whisper, WhisperConfig

_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """All variables of a `model.bin`, by name.

    Raises:
        CheckpointError: no such file, or not whole.
    """
    try:
        data = Path(path).read_bytes()
        offset = 4  # version

        def take(form: str) -> int:
            nonlocal offset
            (value,) = struct.unpack_from(form, data, offset)
            offset += struct.calcsize(form)
            return value

        def name() -> str:
            nonlocal offset
            length = take("<H")
            text = data[offset : offset + length].rstrip(b"\0").decode()
            offset += length
            return text

        name()  # specification
        take("<I")  # revision
        variables = {}
        for _ in range(take("<I")):
            key = name()
            shape = [take("<I") for _ in range(take("<B"))]
            kind, size = _TYPES[take("<B")], take("<I")
            variables[key] = np.frombuffer(data, kind, size // np.dtype(kind).itemsize, offset).reshape(shape)
            offset += size
        for _ in range(take("<I")):
            alias, target = name(), name()
            variables[alias] = variables[target]
        return variables
    except (OSError, struct.error, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a whole CTranslate2 model ({error}). Delete it, it is fetched again."
        ) from error


def read_whisper(path: Path) -> Whisper:
    """A Whisper of the file's own size, in float32.

    Raises:
        CheckpointError: not a whole file, or not a Whisper.
    """
    variables = read_variables(path)
    try:
        weights = _weights(variables)
        config = WhisperConfig(
            num_mels=weights["encoder.conv1.weight"].shape[1],
            dim=weights["encoder.norm.weight"].shape[0],
            heads=int(variables["encoder/num_heads"]),
            ffn_dim=weights["encoder.layers.0.up.weight"].shape[0],
            encoder_layers=sum(key.endswith("qkv.weight") and key.startswith("encoder") for key in weights),
            decoder_layers=sum(key.endswith("cross.q.weight") for key in weights),
            max_source=weights["encoder.positions"].shape[0],
            max_target=weights["decoder.positions"].shape[0],
            vocab_size=weights["decoder.embedding.weight"].shape[0],
        )
    except KeyError as error:
        raise CheckpointError(f"{path}: the variable {error} is missing; need a Whisper model") from error
    with torch.device("meta"):
        model = Whisper(config)
    model.load_state_dict(weights, strict=True, assign=True)
    return model.eval()


def _weights(variables: dict[str, np.ndarray]) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}

    def copy(ours: str, theirs: str, kinds: tuple[str, ...] = ("weight", "bias")) -> None:
        for kind in kinds:
            value = variables[f"{theirs}/{kind}"].astype(np.float32)
            if f"{theirs}/{kind}_scale" in variables:
                value = value / variables[f"{theirs}/{kind}_scale"].astype(np.float32)[:, None]
            weights[f"{ours}.{kind}"] = torch.from_numpy(value)

    def norm(ours: str, theirs: str) -> None:
        weights[f"{ours}.weight"] = torch.from_numpy(variables[f"{theirs}/gamma"].astype(np.float32))
        weights[f"{ours}.bias"] = torch.from_numpy(variables[f"{theirs}/beta"].astype(np.float32))

    def feed_forward(ours: str, theirs: str) -> None:
        norm(f"{ours}.ffn_norm", f"{theirs}/ffn/layer_norm")
        copy(f"{ours}.up", f"{theirs}/ffn/linear_0")
        copy(f"{ours}.down", f"{theirs}/ffn/linear_1")

    copy("encoder.conv1", "encoder/conv1")
    copy("encoder.conv2", "encoder/conv2")
    copy("decoder.embedding", "decoder/embeddings", ("weight",))
    for side in ("encoder", "decoder"):
        positions = variables[f"{side}/position_encodings/encodings"].astype(np.float32)
        weights[f"{side}.positions"] = torch.from_numpy(positions)
        norm(f"{side}.norm", f"{side}/layer_norm")
        layer = 0
        while f"{side}/layer_{layer}/ffn/linear_0/weight" in variables:
            ours, theirs = f"{side}.layers.{layer}", f"{side}/layer_{layer}"
            attention = ours if side == "encoder" else f"{ours}.attention"
            norm(f"{ours}.attention_norm", f"{theirs}/self_attention/layer_norm")
            copy(f"{attention}.qkv", f"{theirs}/self_attention/linear_0")
            copy(f"{attention}.out", f"{theirs}/self_attention/linear_1")
            if side == "decoder":
                norm(f"{ours}.cross_norm", f"{theirs}/attention/layer_norm")
                copy(f"{ours}.cross.q", f"{theirs}/attention/linear_0")
                copy(f"{ours}.cross.kv", f"{theirs}/attention/linear_1")
                copy(f"{ours}.cross.out", f"{theirs}/attention/linear_2")
            feed_forward(ours, theirs)
            layer += 1
    return weights
