"""Weights in int4: half the memory of int8. Every 32 inputs of a row (a group) have a scale and an offset of their own.

weight = (number - 8) * scale + offset, with numbers of 0 to 15, two in a byte: 5 bits a weight in all. The input stays
in bf16, so that the error is that of rounding the weights. Torch's kernels multiply where they can; else, and where
gradients are wanted, the matrix is expanded at each call. The CUDA kernel's use follows its description and is
unmeasured: no GPU was there to run it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from duologue.errors import ShapeError
from duologue.nn.quant_matrix import QuantMatrix, aligned

GROUP = 32  # inputs with one scale; torch's kernels know 32, 64, 128 and 256
BLOCK = 16  # outputs that torch's CPU kernel takes at once
CUDA_OUTPUTS, CUDA_TILES, TILE = 8, (8, 4, 2), 16  # its CUDA kernel: outputs at once, and tiles of inputs in a block
EXPAND_FROM = 256  # rows from which expanding the weights is faster than the kernel


def to_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rounds a matrix [out, in].

    Returns:
        Its numbers, uint8 [out, bytes], the even input in a byte's upper half; the last group is filled up. And the
        scales and offsets, bfloat16 [groups, out, 2].
    """
    groups = F.pad(weight.detach().float(), (0, -weight.shape[1] % GROUP)).unflatten(1, (-1, GROUP))
    low, high = groups.amin(-1), groups.amax(-1)
    step = ((high - low) / 15).clamp_min(1e-12)
    scale = torch.stack([step, low + 8 * step], -1).to(torch.bfloat16)
    step, offset = scale.float().unbind(-1)
    numbers = ((groups - offset[..., None]) / step[..., None] + 8).round().clamp(0, 15).to(torch.uint8).flatten(1)
    return _together(numbers), scale.transpose(0, 1).contiguous()


def from_int4(int4: Tensor, scale: Tensor, inputs: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The reverse of `to_int4`, but for what rounding lost."""
    step, offset = scale.float().transpose(0, 1)[..., None].unbind(2)
    return ((_apart(int4).unflatten(1, (-1, GROUP)).float() - 8) * step + offset).flatten(1)[:, :inputs].to(dtype)


class Int4Matrix(QuantMatrix):
    """A weight [out, in] in int4, as `to_int4` gives it."""

    kind = "int4"
    int4: Tensor

    def __init__(self, int4: Tensor, scale: Tensor, inputs: int):
        """
        Args:
            inputs: the matrix's columns; the last group may be filled up with others.
        Raises:
            ShapeError: shapes that do not fit each other.
        """
        super().__init__()
        groups = -(-inputs // GROUP)
        if int4.dim() != 2 or int4.shape[1] * 2 != groups * GROUP or scale.shape != (groups, len(int4), 2):
            raise ShapeError(
                f"Int4Matrix: for {inputs} inputs need [out, {groups * GROUP // 2}] bytes and [{groups}, out, 2] "
                f"scales, got {tuple(int4.shape)} and {tuple(scale.shape)}"
            )
        self.register_buffer("int4", int4)
        self.register_buffer("scale", scale)
        self.shape = torch.Size([len(int4), inputs])
        self._packed: Tensor | None = None  # the numbers as torch's CPU kernel wants them

    def expanded(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return from_int4(self._stored(), self.scale, self.shape[1], dtype)

    def release(self) -> None:
        if self.scale.device.type == "cpu" and has_cpu_kernel():
            self._pack()
            self.int4 = self.int4.new_empty(0)

    def _stored(self) -> Tensor:
        if self.int4.dim() == 2 or self._packed is None:
            return self.int4
        width = self.scale.shape[0] * GROUP  # the kernel's own product is what undoes its packing
        one = torch.ones(self.scale.shape[0], self._packed.shape[0], 2, dtype=torch.bfloat16)
        one[..., 1] = 8
        numbers = torch._weight_int4pack_mm_for_cpu(torch.eye(width).bfloat16(), self._packed, GROUP, one)
        return _together(numbers.t()[: self.shape[0]].to(torch.uint8))

    def _forget(self) -> None:
        super()._forget()
        self._packed = None

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_packed": None}

    def _choose(self, device: torch.device) -> Callable[[Tensor], Tensor] | None:
        if device.type == "cpu" and has_cpu_kernel():
            self._product = self._cpu_product()
        elif device.type == "cuda":
            self._product = self._cuda_product(device)
        return self._product

    def _pack(self) -> Tensor:
        if self._packed is None:
            numbers = F.pad(_apart(self.int4), (0, 0, 0, -self.shape[0] % BLOCK)).to(torch.int32)
            self._packed = torch._convert_weight_to_int4pack_for_cpu(numbers, 1)
        return self._packed

    def _cpu_product(self) -> Callable[[Tensor], Tensor]:
        (outputs, inputs), packed = self.shape, self._pack()
        scale = aligned(F.pad(self.scale.to(torch.bfloat16), (0, 0, 0, len(packed) - outputs)))
        fill = self.scale.shape[0] * GROUP - inputs

        def product(x_MD: Tensor) -> Tensor:
            if len(x_MD) >= EXPAND_FROM:
                return F.linear(x_MD.to(torch.bfloat16), self.expanded(torch.bfloat16))
            x_MD = aligned(x_MD.to(torch.bfloat16))
            x_MD = F.pad(x_MD, (0, fill)) if fill else x_MD
            y_ME = torch._weight_int4pack_mm_for_cpu(x_MD, packed, GROUP, scale)
            return y_ME if len(packed) == outputs else y_ME[:, :outputs].contiguous()

        return product

    def _cuda_product(self, device: torch.device) -> Callable[[Tensor], Tensor] | None:
        (outputs, inputs), width = self.shape, self.scale.shape[0] * GROUP
        tiles = next((tiles for tiles in CUDA_TILES if width % (tiles * TILE) == 0), None)
        able = hasattr(torch, "_weight_int4pack_mm") and torch.cuda.get_device_capability(device) >= (8, 0)
        if tiles is None or outputs % CUDA_OUTPUTS or not able:
            return None
        packed = torch._convert_weight_to_int4pack(self.int4.contiguous(), tiles)
        scale = self.scale.to(torch.bfloat16).contiguous()

        def product(x_MD: Tensor) -> Tensor:
            x_MD = F.pad(x_MD.to(torch.bfloat16), (0, width - inputs)).contiguous()
            return torch._weight_int4pack_mm(x_MD, packed, GROUP, scale)

        return product


def has_cpu_kernel() -> bool:
    """Whether this torch has a product with int4 weights for CPUs."""
    return hasattr(torch, "_weight_int4pack_mm_for_cpu") and hasattr(torch, "_convert_weight_to_int4pack_for_cpu")


def _together(numbers: Tensor) -> Tensor:
    """Two numbers of a row a byte."""
    return (numbers[:, ::2] << 4 | numbers[:, 1::2]).contiguous()


def _apart(int4: Tensor) -> Tensor:
    """The numbers of every byte, one after another."""
    return torch.stack([int4 >> 4, int4 & 15], -1).flatten(1)
