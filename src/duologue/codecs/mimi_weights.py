"""Mimi's released weights, both layouts: kyutai's file, and that of transformers' `MimiModel`. Strict both ways.

One table says what each of our tensors is called there and how it lies: convolutions are matrices over windows here,
and rotary positions turn neighbouring channels (as kyutai's; transformers' turn the two halves of a head).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from duologue.codecs.mimi import Mimi, MimiConfig
from duologue.errors import CheckpointError
from duologue.nn.weight_files import Shards, refuse

LEGACY = {  # the last part of a codebook's names in older files
    "inited": "_initialized",
    "cluster_size": "cluster_usage",
    "embed_avg": "embedding_sum",
    "embed_sum": "embedding_sum",
}


@dataclass(frozen=True)
class Entry:
    """One of our tensors."""

    ours: str
    kyutai: str
    transformers: tuple[str, ...]  # one, or query, key and value
    form: str = "same"  # how kyutai's lies, see `_to_ours`
    taps: int = 1  # of a convolution


def load_mimi(path: Path, config: MimiConfig | None = None) -> Mimi:
    """A codec from a safetensors file in either layout.

    Args:
        config: None: the released model's.
    Raises:
        CheckpointError: no such file, not whole, or not a Mimi of this config (names the tensors).
    """
    return mimi_from_tensors(Shards(path), config or MimiConfig(), where=str(path))


def save_mimi(mimi: Mimi, path: Path) -> None:
    """Writes the weights in kyutai's layout."""
    save_file(mimi_to_tensors(mimi), path)


def mimi_from_tensors(tensors: Mapping[str, Tensor], config: MimiConfig, *, where: str) -> Mimi:
    """A codec in eval mode from tensors in either layout; weights are float32.

    Args:
        where: the file, for messages.
    Raises:
        CheckpointError: names the tensors that are missing, unexpected or of another shape.
    """
    with torch.device("meta"):
        mimi = Mimi(config)
    own, table = mimi.state_dict(), mimi_table(config)
    split = any(name.startswith("encoder.layers.") for name in tensors)
    if not split:
        tensors = {_modern(name): tensor for name, tensor in tensors.items()}
    wanted = {name for entry in table for name in (entry.transformers if split else (entry.kyutai,))}
    refuse(wanted - set(tensors), set(tensors) - wanted, where)
    loaded = {}
    for entry in table:
        if split:
            names, shape = entry.transformers, _theirs_shape(entry, own[entry.ours].shape)
            theirs_shape = torch.Size([shape[0] // len(names), *shape[1:]])
        else:
            names, theirs_shape = (entry.kyutai,), _theirs_shape(entry, own[entry.ours].shape)
        pieces = [tensors[name] for name in names]
        for name, piece in zip(names, pieces, strict=True):
            if piece.shape != theirs_shape:
                raise CheckpointError(
                    f"{where}: {name} has shape {tuple(piece.shape)}, the configuration says {tuple(theirs_shape)}"
                )
        if len(pieces) == 3:
            pieces[:2] = [_interleaved(piece, config.transformer.heads) for piece in pieces[:2]]
        loaded[entry.ours] = _to_ours(entry, torch.cat(pieces) if len(pieces) > 1 else pieces[0]).float().contiguous()
    mimi.load_state_dict(loaded, strict=True, assign=True)
    return mimi.eval()


def mimi_to_tensors(mimi: Mimi) -> dict[str, Tensor]:
    """The weights in kyutai's layout."""
    own = mimi.state_dict()
    return {entry.kyutai: _to_theirs(entry, own[entry.ours]).contiguous() for entry in mimi_table(mimi.config)}


def mimi_table(config: MimiConfig) -> list[Entry]:
    """Every tensor of a codec of this shape."""
    return [
        *_seanet(config, "encoder"),
        *_seanet(config, "decoder"),
        *_transformer(config, "encoder"),
        *_transformer(config, "decoder"),
        Entry(
            "encoder.downsample.conv.taps.weight",
            "downsample.conv.conv.conv.weight",
            ("downsample.conv.weight",),
            "conv",
            2 * config.resample,
        ),
        Entry(
            "decoder.upsample.scales",
            "upsample.convtr.convtr.convtr.weight",
            ("upsample.conv.weight",),
            "channelwise",
            2 * config.resample,
        ),
        *_quantizer(config),
    ]


def _seanet(config: MimiConfig, half: str) -> list[Entry]:
    """Their layers stand in one numbered list, as ours do, but activations count."""
    c, table = config.seanet, []
    ours = theirs = 0

    def add(name: str, inner: str, *, taps: int, form: str = "conv") -> None:
        convolution = "convtr.convtr" if form == "transposed" else "conv.conv"
        for kind in ("weight", "bias"):
            table.append(
                Entry(
                    f"{half}.seanet.layers.{ours}.{'' if form == 'transposed' and kind == 'bias' else name}{kind}",
                    f"{half}.model.{theirs}{inner}.{convolution}.{kind}",
                    (f"{half}.layers.{theirs}{inner}.conv.{kind}",),
                    form if kind == "weight" else "same",
                    taps,
                )
            )

    def units() -> None:
        nonlocal ours, theirs
        for _ in range(c.residual_layers):
            ours, theirs = ours + 1, theirs + 1
            add("conv.taps.", ".block.1", taps=c.residual_kernel)
            add("out.", ".block.3", taps=1)

    add("taps.", "", taps=c.kernel)
    for ratio in c.ratios if half == "decoder" else reversed(c.ratios):
        if half == "encoder":
            units()
        ours, theirs = ours + 1, theirs + 2
        add("taps.", "", taps=2 * ratio, form="conv" if half == "encoder" else "transposed")
        if half == "decoder":
            units()
    ours, theirs = ours + 1, theirs + 2
    add("taps.", "", taps=c.last_kernel)
    return table


def _transformer(config: MimiConfig, half: str) -> list[Entry]:
    names = {  # ours, kyutai's, transformers'
        "attention_norm.weight": ("norm1.weight", "input_layernorm.weight"),
        "attention_norm.bias": ("norm1.bias", "input_layernorm.bias"),
        "ffn_norm.weight": ("norm2.weight", "post_attention_layernorm.weight"),
        "ffn_norm.bias": ("norm2.bias", "post_attention_layernorm.bias"),
        "attention.out.weight": ("self_attn.out_proj.weight", "self_attn.o_proj.weight"),
        "attention_scale": ("layer_scale_1.scale", "self_attn_layer_scale.scale"),
        "ffn_scale": ("layer_scale_2.scale", "mlp_layer_scale.scale"),
        "up.weight": ("linear1.weight", "mlp.fc1.weight"),
        "down.weight": ("linear2.weight", "mlp.fc2.weight"),
    }
    table = []
    for layer in range(config.transformer.layers):
        ours = f"{half}.transformer.layers.{layer}."
        kyutai = f"{half}_transformer.transformer.layers.{layer}."
        theirs = f"{half}_transformer.layers.{layer}."
        qkv = tuple(f"{theirs}self_attn.{part}_proj.weight" for part in "qkv")
        table.append(Entry(f"{ours}attention.qkv.weight", f"{kyutai}self_attn.in_proj_weight", qkv))
        table += [Entry(ours + name, kyutai + first, (theirs + second,)) for name, (first, second) in names.items()]
    return table


def _quantizer(config: MimiConfig) -> list[Entry]:
    q, table = config.quantizer, []
    parts = (
        ("semantic", "rvq_first", "semantic_residual_vector_quantizer", q.semantic),
        ("acoustic", "rvq_rest", "acoustic_residual_vector_quantizer", q.codebooks - q.semantic),
    )
    buffers = {
        "initialized": ("_initialized", "initialized"),
        "usage": ("cluster_usage", "cluster_usage"),
        "total": ("embedding_sum", "embed_sum"),
    }
    for name, first, second, count in parts:
        ours, kyutai, theirs = f"quantizer.{name}.", f"quantizer.{first}.", f"quantizer.{second}."
        for side in ("input", "output"):
            weight = f"{side}_proj.weight"
            table.append(Entry(f"{ours}{side}.weight", kyutai + weight, (theirs + weight,), "conv"))
        for book in range(count):
            table += [
                Entry(
                    f"{ours}codebooks.{book}.{buffer}",
                    f"{kyutai}vq.layers.{book}._codebook.{a}",
                    (f"{theirs}layers.{book}.codebook.{b}",),
                )
                for buffer, (a, b) in buffers.items()
            ]
    return table


def _theirs_shape(entry: Entry, shape: torch.Size) -> torch.Size:
    return _to_theirs(entry, torch.empty(shape, device="meta")).shape


def _to_ours(entry: Entry, tensor: Tensor) -> Tensor:
    if entry.form == "conv":  # [out, in, taps] -> [out, taps * in]
        return tensor.transpose(1, 2).flatten(1)
    if entry.form == "transposed":  # [in, out, taps] -> [taps * out, in]
        return tensor.permute(2, 1, 0).flatten(0, 1)
    if entry.form == "channelwise":  # [channels, 1, taps] -> [taps, channels]
        return tensor[:, 0].T
    return tensor


def _to_theirs(entry: Entry, tensor: Tensor) -> Tensor:
    if entry.form == "conv":
        return tensor.unflatten(1, (entry.taps, -1)).transpose(1, 2)
    if entry.form == "transposed":
        return tensor.unflatten(0, (entry.taps, -1)).permute(2, 1, 0)
    if entry.form == "channelwise":
        return tensor.T[:, None]
    return tensor


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows of a query or key matrix: from two halves of a head that turn together to neighbours that do."""
    return weight.view(heads, 2, -1, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)


def _modern(name: str) -> str:
    """Today's name of one of kyutai's tensors."""
    base, dot, last = name.rpartition(".")
    return base + dot + LEGACY.get(last, last) if re.search(r"\._codebook$", base) else name
