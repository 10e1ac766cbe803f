"""Linear layers whose weights lie as a product of a few rows wants them: for inference on a CPU, float32 or bfloat16.

The plain layout costs much where a few rows are multiplied by a matrix that comes from memory: packed for oneDNN, 16
rows took 0.6 of the time, and one row in bfloat16 0.75. One row in float32 took 0.5 to 0.65 with a wide matrix
transposed, 16 rows 1.03 to 1.25 of what they take packed (AVX-512 with bf16; one thread).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_linear_pointwise: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
ROWS = 16  # that oneDNN's layout is made for; others work as well
FEW = 2  # rows up to which a transposed matrix is multiplied as it lies


class PackedLinear(nn.Module):
    """`nn.Linear` that cannot be trained. Its state dict is that of the layer it stands for; for speed, no hooks."""

    def __init__(self, layer: nn.Linear, *, transposed: bool = False):
        """
        Args:
            transposed: lay the matrix out for one row at a time, not for several.
        """
        super().__init__()
        self.in_features, self.out_features, self.transposed = layer.in_features, layer.out_features, transposed
        self._pack(layer.weight.detach(), None if layer.bias is None else layer.bias.detach().clone())

    def _pack(self, weight: Tensor, bias: Tensor | None) -> None:
        lay = torch.ops.mkldnn._reorder_linear_weight
        self._weight = weight.t().contiguous().t() if self.transposed else lay(weight, ROWS)
        self._bias, self.dtype = bias, weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != self.dtype:
            x = x.to(self.dtype)
        if self.transposed and x.numel() <= FEW * self.in_features:
            return F.linear(x, self._weight, self._bias)
        return _linear_pointwise(x, self._weight, self._bias, "none", [], "")

    __call__ = forward  # nn.Module's own looks for hooks, a microsecond each time

    def plain_weight(self) -> Tensor:
        """The matrix as `nn.Linear` has it, a copy."""
        return self._weight.contiguous() if self.transposed else self._weight.to_dense()

    def unpacked(self) -> nn.Linear:
        """The plain layer."""
        layer = nn.Linear(self.in_features, self.out_features, bias=self._bias is not None, device="meta")
        layer.weight = nn.Parameter(self.plain_weight())
        if self._bias is not None:
            layer.bias = nn.Parameter(self._bias.clone())
        return layer

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.plain_weight()
        if self._bias is not None:
            destination[f"{prefix}bias"] = self._bias


def can_pack() -> bool:
    """Whether this torch has what packed layers need."""
    return bool(torch.backends.mkldnn.is_available()) and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def pack_linears(module: nn.Module, *, single: bool = False) -> list[str]:
    """Packs every plain linear layer on the CPU, in place; the weights move, they are not copied. Returns the names.

    Does nothing where torch cannot do it (`can_pack`).

    Args:
        single: mostly one row comes at a time: wide float32 matrices are transposed.
    """
    chosen = []
    for name, layer in list(module.named_modules()) if can_pack() else []:
        kept = type(layer) is nn.Linear and layer.weight.device.type == "cpu"
        if not kept or layer.weight.dtype not in (torch.float32, torch.bfloat16):
            continue
        parent, _, leaf = name.rpartition(".")
        transposed = single and layer.weight.dtype == torch.float32 and layer.out_features > layer.in_features
        setattr(module.get_submodule(parent), leaf, PackedLinear(layer, transposed=transposed))
        chosen.append(name)
    return chosen


def unpack_linears(module: nn.Module) -> None:
    """The reverse of `pack_linears`."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, PackedLinear):
            parent, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, layer.unpacked())
