"""What matrices of few bits have in common (nn.quant: 8 bits, nn.quant4: 4), and the linear layer over one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class QuantMatrix(nn.Module):
    """A weight [out, in] of few bits. Stands where a module has its `weight`, also as second argument of `F.linear`.

    Its numbers are a buffer that is named like `kind`, and `scale` what they are multiplied by.
    """

    kind: str
    shape: torch.Size
    scale: Tensor
    _product: Callable[[Tensor], Tensor] | None = None  # of a few rows, made from the weights at the first use

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x times the transposed matrix, in the type of x. Gradients reach x."""
        # A step is made of hundreds of these, and each call costs, even one that changes nothing.
        if x.requires_grad and torch.is_grad_enabled():
            product = None
        else:
            product = self._product or self._choose(x.device)
        if product is None:
            return F.linear(x, self.expanded(x.dtype), None if bias is None else bias.to(x.dtype))
        dtype, flat = x.dtype, x.dim() == 2
        y = product(x if flat else x.reshape(-1, self.shape[1]))
        if y.dtype != dtype:
            y = y.to(dtype)
        if not flat:
            y = y.view(*x.shape[:-1], self.shape[0])
        return y if bias is None else y + bias.to(dtype)

    def expanded(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix in a floating type."""
        raise NotImplementedError

    def release(self) -> None:
        """Keeps the weights only as the product wants them, where it wants them otherwise."""
        raise NotImplementedError

    def _choose(self, device: torch.device) -> Callable[[Tensor], Tensor] | None:
        """The way to multiply there, kept for the next time; None: there is none but to expand the matrix."""
        raise NotImplementedError

    def _stored(self) -> Tensor:
        """The numbers as they are in the state dict, also after `release`."""
        raise NotImplementedError

    def _forget(self) -> None:
        """Drops what was made at the first use."""
        setattr(self, self.kind, self._stored())
        self._product = None

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> nn.Module:
        if fn(self.scale[:0]).device != self.scale.device:  # what was made for this one is of no use there
            self._forget()
        return super()._apply(fn, recurse)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Lets `F.linear(x, embedding.weight)`, how tied heads are written, use the kernels."""
        if function is F.linear and len(args) >= 2 and isinstance(args[1], cls) and isinstance(args[0], Tensor):
            return args[1].linear(args[0], *args[2:], **(kwargs or {}))
        return NotImplemented

    def _load_from_state_dict(self, *args: Any) -> None:
        self._forget()
        super()._load_from_state_dict(*args)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + self.kind] = self._stored()

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles make their own of what is made at the first use."""
        return {**self.__dict__, "_product": None, "_buffers": {**self._buffers, self.kind: self._stored()}}


class QuantLinear(nn.Module):
    """`nn.Linear` over a `QuantMatrix`. For speed it has no hooks."""

    weight: QuantMatrix
    bias: Tensor | None

    def __init__(self, weight: QuantMatrix, bias: Tensor | None = None):
        super().__init__()
        self.weight = weight
        self.register_buffer("bias", bias)
        self.out_features, self.in_features = weight.shape

    def forward(self, x: Tensor) -> Tensor:
        # As `self.weight` and `self.bias`, which torch looks for in more places.
        return self._modules["weight"].linear(x, self._buffers["bias"])  # type: ignore[union-attr, operator]

    __call__ = forward  # nn.Module's own looks for hooks, a microsecond each time


def aligned(tensor: Tensor) -> Tensor:
    """The same numbers at an address that is a multiple of 64 bytes, as torch's own allocations are.

    Files that are mapped into memory, and slices, begin anywhere.
    """
    return tensor if tensor.data_ptr() % 64 == 0 and tensor.is_contiguous() else tensor.contiguous().clone()
