"""Low-rank adapters on linear layers, read and written in the files of the `peft` package.

Source: LoRA (Hu et al. 2021, arXiv:2106.09685), equation 3. Ours sit on fused layers (query, key and value are one
matrix, gate and up another); `peft` has one adapter for each part. Written out, A is repeated and B is split;
read in, the ranks of the parts are stacked.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from duologue.errors import CheckpointError, ConfigError
from duologue.nn.quant_matrix import QuantLinear

FILE, CONFIG, PREFIX = "adapter_model.safetensors", "adapter_config.json", "base_model.model."


class Named(Protocol):
    """A line of a family's weight table: one of our tensors, and those of theirs that are stacked in it."""

    @property
    def ours(self) -> str: ...
    @property
    def theirs(self) -> tuple[str, ...]: ...
    @property
    def rows(self) -> tuple[int, ...]: ...


class LoraLinear(nn.Module):
    """A frozen linear layer (also an int8 one) plus scale * B A x, where A and B are trained."""

    def __init__(self, base: nn.Module, *, rank: int, alpha: float, dropout: float = 0.0):
        """
        Raises:
            ConfigError: the rank is not at least 1.
        """
        super().__init__()
        if rank < 1:
            raise ConfigError(f"LoraLinear: need a rank of at least 1, got {rank}")
        self.in_features, self.out_features = int(base.in_features), int(base.out_features)  # type: ignore[arg-type]
        weight = base.weight if isinstance(base, nn.Linear) else None
        device = weight.device if weight is not None else None
        self.base = base.requires_grad_(False)
        self.rank, self.scale, self.active = rank, alpha / rank, True
        self.dropout = nn.Dropout(dropout)
        self.lora_a = nn.Parameter(torch.empty(rank, self.in_features, device=device))
        self.lora_b = nn.Parameter(torch.zeros(self.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    @property
    def alpha(self) -> float:
        return self.scale * self.rank

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        if not self.active:
            return y
        down = F.linear(self.dropout(x).to(self.lora_a.dtype), self.lora_a)
        return y + (F.linear(down, self.lora_b) * self.scale).to(y.dtype)

    def delta(self) -> Tensor:
        """What it adds to the layer's weight, float32."""
        return self.scale * (self.lora_b.detach().float() @ self.lora_a.detach().float())


def add_lora(
    module: nn.Module, *, rank: int, alpha: float, targets: Sequence[str] = ("*",), dropout: float = 0.0
) -> list[str]:
    """Puts an adapter on the chosen linear layers and freezes everything else of `module`, in place.

    Args:
        targets: names of layers, whole or their last part, with `*` as in file names: ("qkv", "blocks.layers.2*.out").
    Returns:
        The names of the layers.
    Raises:
        ConfigError: a target fits no linear layer, or a layer has an adapter already.
    """
    layers = {
        name: layer for name, layer in module.named_modules() if name and isinstance(layer, (nn.Linear, QuantLinear))
    }
    if any(True for _ in lora_layers(module)):
        raise ConfigError("add_lora: the module has adapters already. Merge them first (merge_lora).")
    chosen = [name for name in layers if any(_fits(name, target) for target in targets)]
    idle = [target for target in targets if not any(_fits(name, target) for name in layers)]
    if idle or not chosen:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
        raise ConfigError(f"add_lora: {', '.join(idle) or 'no target'} fits no linear layer; there are {known}")
    module.requires_grad_(False)
    for name in chosen:
        _replace(module, name, LoraLinear(layers[name], rank=rank, alpha=alpha, dropout=dropout))
    return chosen


def merge_lora(module: nn.Module) -> list[str]:
    """Adds every adapter to its layer's weight and takes it away, in place. Returns the names of the layers.

    Raises:
        ConfigError: a layer has int8 or int4 weights.
    """
    layers = list(lora_layers(module))
    for name, layer in layers:
        if not isinstance(layer.base, nn.Linear):
            raise ConfigError(
                f"merge_lora: {name} has int8 or int4 weights. Call quant.dequantize on the module first."
            )
    for name, layer in layers:
        weight = layer.base.weight
        assert isinstance(weight, Tensor)
        with torch.no_grad():
            weight.copy_(weight.float() + layer.delta().to(weight.device))
        _replace(module, name, layer.base)
    return [name for name, _ in layers]


@contextmanager
def without_lora(module: nn.Module) -> Iterator[None]:
    """The module is what it was before `add_lora` in this block: a teacher that costs no second copy."""
    layers = [layer for _, layer in lora_layers(module)]
    before = [layer.active for layer in layers]
    for layer in layers:
        layer.active = False
    try:
        yield
    finally:
        for layer, active in zip(layers, before, strict=True):
            layer.active = active


def lora_layers(module: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """Every adapter with the name of its layer."""
    return ((name, layer) for name, layer in module.named_modules() if isinstance(layer, LoraLinear))


def export_peft(module: nn.Module, folder: Path, table: Iterable[Named], *, base: str = "") -> None:
    """Writes the adapters of `module` as `peft` reads them.

    Args:
        table: of the module, in the names of transformers (`models.weights.transformer_table`).
        base: the name of the model that the adapters are for.
    Raises:
        ConfigError: no adapters, or one on a layer that the table lacks.
    """
    entries = _by_layer(table)
    layers = dict(lora_layers(module))
    lost = sorted(set(layers) - set(entries))
    if lost or not layers:
        raise ConfigError(
            f"export_peft: {', '.join(lost) or 'any adapter'} is missing in the weight table or the module"
        )
    tensors, ranks, alphas = {}, {}, {}
    for name, layer in layers.items():
        rows = list(entries[name].rows or (layer.out_features,))
        for theirs, b in zip(entries[name].theirs, layer.lora_b.detach().split(rows), strict=True):
            leaf = theirs.removesuffix(".weight")
            tensors[f"{PREFIX}{leaf}.lora_A.weight"] = layer.lora_a.detach().clone().contiguous()
            tensors[f"{PREFIX}{leaf}.lora_B.weight"] = b.clone().contiguous()
            ranks[leaf], alphas[leaf] = layer.rank, layer.alpha
    rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": next(iter(layers.values())).dropout.p,
        "target_modules": sorted(ranks),
        "rank_pattern": {re.escape(leaf): each for leaf, each in ranks.items() if each != rank},
        "alpha_pattern": {re.escape(leaf): each for leaf, each in alphas.items() if each != alpha},
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / FILE, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def import_peft(module: nn.Module, folder: Path, table: Iterable[Named]) -> list[str]:
    """Puts the adapters of a `peft` folder on `module`, in place; everything else of it is frozen.

    Parts of one of our layers that share their A, as our own files do, give their common rank; else the ranks add up.

    Returns:
        The names of the layers.
    Raises:
        CheckpointError: the files are missing or damaged, of a kind that is not plain LoRA, or do not fit the module.
    """
    config, tensors = _read(folder)
    modules, chosen, used = dict(module.named_modules()), [], set()
    for name, entry in _by_layer(table).items():
        leaves = [theirs.removesuffix(".weight") for theirs in entry.theirs]
        keys = [(f"{PREFIX}{leaf}.lora_A.weight", f"{PREFIX}{leaf}.lora_B.weight") for leaf in leaves]
        if not any(a in tensors for a, _ in keys):
            continue
        layer = modules.get(name)
        if layer is None or isinstance(layer, LoraLinear) or not hasattr(layer, "in_features"):
            raise CheckpointError(
                f"{folder}: has an adapter for {leaves[0]}, but {name} is not a plain linear layer here"
            )
        rows = entry.rows or (int(layer.out_features),)  # type: ignore[arg-type]
        parts: list[tuple[Tensor | None, Tensor]] = []
        for leaf, pair, height in zip(leaves, keys, rows, strict=True):
            if pair[0] in tensors:
                a, b = (_tensor(tensors, key, folder) for key in pair)
                if a.shape != (b.shape[1], layer.in_features) or len(b) != height:
                    raise CheckpointError(
                        f"{folder}: {leaf} has A {tuple(a.shape)} and B {tuple(b.shape)}, need a layer of "
                        f"{layer.in_features} to {height}. It is an adapter of another model."
                    )
                parts.append((a, b * _scale(config, leaf, len(a))))
                used |= set(pair)
            else:
                parts.append((None, torch.zeros(height, 0)))
        _replace(module, name, _stacked(layer, parts))
        chosen.append(name)
    odd = sorted(set(tensors) - used)
    if odd or not chosen:
        raise CheckpointError(
            f"{folder}: {', '.join(odd[:4]) or 'nothing'} fits no layer of this model ({len(odd)} such)"
        )
    for parameter_name, parameter in module.named_parameters():
        parameter.requires_grad_(parameter_name.rpartition(".")[2] in ("lora_a", "lora_b"))
    return chosen


def _stacked(layer: nn.Module, parts: list[tuple[Tensor | None, Tensor]]) -> LoraLinear:
    """One adapter from those of a layer's parts; the scale is in B already."""
    present = [a for a, _ in parts if a is not None]
    if all(a.shape == present[0].shape and torch.equal(a, present[0]) for a in present):
        rank = len(present[0])
        a_all = present[0]
        b_all = torch.cat([b if a is not None else b.new_zeros(len(b), rank) for a, b in parts])
    else:
        a_all, rank = torch.cat(present), sum(len(a) for a in present)
        b_all, column = torch.zeros(sum(len(b) for _, b in parts), rank), 0
        row = 0
        for _, b in parts:
            b_all[row : row + len(b), column : column + b.shape[1]] = b
            row, column = row + len(b), column + b.shape[1]
    adapter = LoraLinear(layer, rank=rank, alpha=rank)
    with torch.no_grad():
        adapter.lora_a.copy_(a_all)
        adapter.lora_b.copy_(b_all)
    return adapter


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: need a whole {CONFIG} and {FILE} ({error})") from error
    odd = [
        key
        for key, plain in (("peft_type", "LORA"), ("use_dora", False), ("bias", "none"), ("fan_in_fan_out", False))
        if config.get(key, plain) != plain
    ]
    if odd:
        raise CheckpointError(f"{folder}: only plain LoRA can be read, but {odd[0]} is {config[odd[0]]!r}")
    return config, {name: tensor.float() for name, tensor in tensors.items()}


def _scale(config: Mapping[str, Any], leaf: str, rank: int) -> float:
    alpha = config.get("lora_alpha", 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", leaf):
            alpha = value
            break
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _tensor(tensors: Mapping[str, Tensor], name: str, folder: Path) -> Tensor:
    if name not in tensors:
        raise CheckpointError(f"{folder}: {name} is missing. The file is not whole.")
    return tensors[name]


def _by_layer(table: Iterable[Named]) -> dict[str, Named]:
    return {entry.ours.removesuffix(".weight"): entry for entry in table if entry.ours.endswith(".weight")}


def _fits(name: str, target: str) -> bool:
    return fnmatchcase(name, target) or fnmatchcase(name.rpartition(".")[2], target)


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, new)
