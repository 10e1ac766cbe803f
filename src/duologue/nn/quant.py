"""Weights in int8: half the memory traffic of bf16 when decoding on a CPU, a quarter of float32 on disk.

Every row (output channel) has a scale of its own and no offset: weight = int8 * scale. Three ways to multiply:

- `activations="bf16"`: only the weights are int8 (torch's `_weight_int8pack_mm`). Its error is the weights' rounding.
  Fast for a few rows at a time; for many the weights are expanded to bf16 at each call.
- `activations="int8"`: each row of the input is rounded to 8 bits by its own largest value as well (so that slots and
  steps do not influence each other), and the whole product is one of integers (fbgemm with VNNI). The fastest for many
  rows and for large heads; its error grows with outliers in the input. Needs an x86 CPU, else it is as the first way.
- `activations="int16"`: the same with each number of the input as two int8 digits, which are two rows of one product.
  The error is the weights' rounding alone, and a few rows cost hardly more, for it is the weights that take time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.errors import ShapeError
from duologue.nn.quant4 import Int4Matrix, to_int4
from duologue.nn.quant_matrix import QuantLinear, QuantMatrix, aligned

ACTIVATIONS = ("bf16", "int8", "int16")
LEVELS = 127  # steps of an input number on each side of zero
EXPAND_FROM = 24  # rows from which expanding the weights to bf16 is faster than the int8 kernel


def to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rounds a matrix (or any tensor, rows along axis 0) to int8 and the float32 scale of each row."""
    rows = weight.detach().float().flatten(1)
    scale = rows.abs().amax(1).clamp_min(1e-12) / 127
    return (rows / scale[:, None]).round().clamp(-127, 127).to(torch.int8).view(weight.shape), scale


def from_int8(int8: Tensor, scale: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The reverse of `to_int8`, but for what rounding lost."""
    return (int8.float() * scale.view(-1, *[1] * (int8.dim() - 1))).to(dtype)


class Int8Matrix(QuantMatrix):
    """A weight [out, in] in int8, with a scale a row."""

    kind = "int8"
    int8: Tensor

    def __init__(self, int8: Tensor, scale: Tensor, *, activations: str = "bf16"):
        """
        Raises:
            ShapeError: not a matrix with one scale a row, or an unknown way to multiply.
        """
        super().__init__()
        if int8.dim() != 2 or scale.shape != int8.shape[:1] or activations not in ACTIVATIONS:
            raise ShapeError(
                f"Int8Matrix: need [out, in] with a scale a row and activations of {', '.join(ACTIVATIONS)}, got "
                f"{tuple(int8.shape)}, {tuple(scale.shape)}, {activations!r}"
            )
        self.register_buffer("int8", int8)
        self.register_buffer("scale", scale)
        self.shape, self.activations = int8.shape, activations
        self._packed: Any = None  # the weights as fbgemm wants them

    def rows(self, ids: Tensor) -> Tensor:
        """Chosen rows in float32, as an embedding table gives them."""
        return self._stored()[ids] * self.scale[ids][..., None]

    def expanded(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return from_int8(self._stored(), self.scale, dtype)

    def release(self) -> None:
        """Keeps the weights only as fbgemm wants them, where the integer product is used: half the memory."""
        if self.activations != "bf16" and has_integer_product():
            self._pack()
            self.int8 = self.int8.new_empty(0)

    def _stored(self) -> Tensor:
        if self.int8.dim() == 2:
            return self.int8
        return torch.ops.quantized.linear_unpack(self._packed)[0].int_repr()

    def _forget(self) -> None:
        super()._forget()
        self._packed = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_packed": None}

    def _choose(self, device: torch.device) -> Callable[[Tensor], Tensor] | None:
        if device.type == "cpu":
            integers = self.activations != "bf16" and (self._packed is not None or has_integer_product())
            self._product = self._integer_product() if integers else self._weight_product()
        return self._product

    def _weight_product(self) -> Callable[[Tensor], Tensor]:
        half_scale = self.scale.to(torch.bfloat16)
        int8 = self.int8 = aligned(self._stored())
        inputs, multiply = self.shape[1], torch._weight_int8pack_mm
        few = EXPAND_FROM * inputs if inputs % 16 == 0 else 0  # numbers of the input below which the kernel is used

        def product(x_MD: Tensor) -> Tensor:
            if x_MD.dtype != torch.bfloat16:
                x_MD = x_MD.bfloat16()
            if x_MD.numel() >= few:
                return F.linear(x_MD, self.expanded(torch.bfloat16))
            # The kernel reads its arguments in aligned blocks, and crashes on others.
            return multiply(aligned(x_MD), int8, half_scale)

        return product

    def _integer_product(self) -> Callable[[Tensor], Tensor]:
        packed, multiply = self._pack(), torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        levels = LEVELS if _has_vnni() else LEVELS // 2  # older CPUs add two products in 16 bits
        step = 1 / levels

        def relative(x_MD: Tensor) -> tuple[Tensor, Tensor]:
            peak_M1 = x_MD.abs().amax(-1, keepdim=True).float().clamp_min_(1e-20)
            return x_MD / peak_M1, peak_M1

        def eight_bits(x_MD: Tensor) -> Tensor:
            x_MD, peak_M1 = relative(x_MD)
            return multiply(x_MD, step, levels, packed).mul_(peak_M1)

        def sixteen_bits(x_MD: Tensor) -> Tensor:
            x_MD, peak_M1 = relative(x_MD)
            high_MD = torch.fake_quantize_per_tensor_affine(x_MD, step, levels, 0, 2 * levels)
            both = torch.cat([high_MD, (x_MD - high_MD).mul_(2 * levels)])  # rounding left at most half a step
            high, low = multiply(both, step, levels, packed).chunk(2)
            return high.add_(low, alpha=step / 2).mul_(peak_M1)

        return eight_bits if self.activations == "int8" else sixteen_bits

    def _pack(self) -> Any:
        if self._packed is None:
            self._packed = _packed(self.int8, self.scale)
        return self._packed


class Int8Embedding(nn.Module):
    """`nn.Embedding` over an `Int8Matrix`; gives float32. A head that is tied to it goes on working."""

    def __init__(self, weight: Int8Matrix):
        super().__init__()
        self.weight = weight
        self.num_embeddings, self.embedding_dim = weight.shape

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight.rows(ids)


def quantize(
    module: nn.Module,
    names: Sequence[str] | Callable[[str, nn.Module], bool] = ("*",),
    *,
    bits: int = 8,
    activations: str = "bf16",
) -> list[str]:
    """Replaces linear layers and, by 8 bits, embeddings of `module` by such of few bits, in place.

    Args:
        names: of the layers, with `*` as in file names; or a function of the name and the layer.
        bits: 8, or 4 (nn.quant4).
        activations: how 8 bits multiply, see the top of this file.
    Returns:
        The names that were replaced.
    Raises:
        ShapeError: nothing fits, or other bits.
    """
    if bits not in (4, 8):
        raise ShapeError(f"quantize: need 4 or 8 bits, got {bits}")
    chosen, kinds = [], (nn.Linear, nn.Embedding) if bits == 8 else (nn.Linear,)
    for name, layer in list(module.named_modules()):
        if type(layer) not in kinds or not _fits(names, name, layer):
            continue
        weight: QuantMatrix
        if bits == 8:
            weight = Int8Matrix(*to_int8(layer.weight), activations=activations)
        else:
            weight = Int4Matrix(*to_int4(layer.weight), layer.weight.shape[1])
        _replace(module, name, _like(layer, weight))
        chosen.append(name)
    if not chosen:
        raise ShapeError(f"quantize: no linear layer or embedding fits {names}. Look at module.named_modules().")
    return chosen


def dequantize(module: nn.Module, dtype: torch.dtype = torch.float32) -> list[str]:
    """The reverse of `quantize`, but for what rounding lost. Returns the names that were replaced."""
    kinds = (QuantLinear, Int8Embedding)
    chosen = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, kinds)]
    for name, layer in chosen:
        weight = layer.weight.expanded(dtype)
        plain: nn.Module
        if isinstance(layer, Int8Embedding):
            plain = nn.Embedding.from_pretrained(weight, freeze=False)
        else:
            plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
            plain.weight = nn.Parameter(weight)
            if layer.bias is not None:
                plain.bias = nn.Parameter(layer.bias.to(dtype))
        _replace(module, name, plain)
    return [name for name, _ in chosen]


def set_activations(module: nn.Module, activations: str) -> None:
    """Chooses how every int8 matrix of `module` multiplies from now on.

    Raises:
        ShapeError: an unknown way.
    """
    if activations not in ACTIVATIONS:
        raise ShapeError(f"set_activations: need {', '.join(ACTIVATIONS)}, got {activations!r}")
    for matrix in module.modules():
        if isinstance(matrix, Int8Matrix):
            matrix._forget()
            matrix.activations = activations


def release(module: nn.Module) -> None:
    """Frees what the product does not need of every such linear layer of `module`; embeddings keep their rows.

    The state dict stays whole.
    """
    for layer in module.modules():
        if isinstance(layer, QuantLinear):
            layer.weight.release()


def pack_int8(
    tensors: Mapping[str, Tensor],
    names: Sequence[str] = ("*",),
    *,
    smallest: int = 4096,
    rest: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """A state dict with its large weights as int8 (`x` becomes `x.int8` and `x.scale`), for small files.

    The names are those of the same module after `quantize`.

    Args:
        names: of the tensors to pack, with `*` as in file names.
        smallest: tensors of fewer numbers stay as they are, and so do vectors and integers.
        rest: the floating type of what is not packed; None: unchanged.
    """
    packed = {}
    for name, tensor in tensors.items():
        if tensor.dim() > 1 and tensor.is_floating_point() and tensor.numel() >= smallest and _fits(names, name, None):
            packed[f"{name}.int8"], packed[f"{name}.scale"] = to_int8(tensor)
        else:
            packed[name] = tensor.to(rest) if rest is not None and tensor.is_floating_point() else tensor
    return packed


def unpack_int8(tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The reverse of `pack_int8`: all floating tensors in `dtype`, under their own names.

    Raises:
        ShapeError: an int8 tensor without its scale.
    """
    plain = {}
    for name, tensor in tensors.items():
        base = name.removesuffix(".int8")
        if base != name:
            if f"{base}.scale" not in tensors:
                raise ShapeError(f"unpack_int8: {name} has no {base}.scale beside it. The file is not whole.")
            plain[base] = from_int8(tensor, tensors[f"{base}.scale"], dtype)
        elif not (name.endswith(".scale") and f"{name.removesuffix('.scale')}.int8" in tensors):
            plain[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return plain


def shape_like(module: nn.Module, tensors: Mapping[str, Tensor], *, activations: str = "bf16") -> list[str]:
    """Makes int8 or int4 those layers of `module` that are so in `tensors`, so that it can load them. In place.

    The layers may be on the meta device; what they hold is not kept. Convolutions and the like have no such form:
    `unpack_int8` their weights.

    Returns:
        The names that were replaced.
    Raises:
        ShapeError: such a tensor where `module` has no linear layer or embedding.
    """
    layers = dict(module.named_modules())
    chosen = [tuple(name.split(".weight.")) for name in tensors if name.endswith((".weight.int8", ".weight.int4"))]
    for name, kind in chosen:
        layer = layers.get(name)
        if type(layer) not in (nn.Linear, nn.Embedding) or (kind == "int4" and type(layer) is nn.Embedding):
            found = "nothing" if layer is None else type(layer).__name__
            raise ShapeError(f"shape_like: {name} is {kind} in the file, but here it is {found}. Another model's?")
        like = torch.empty(layer.weight.shape, device="meta")  # type: ignore[union-attr,arg-type]
        few, scale = to_int8(like) if kind == "int8" else to_int4(like)
        few, scale = (torch.empty_like(each, device=layer.weight.device) for each in (few, scale))  # type: ignore[union-attr]
        weight: QuantMatrix
        if kind == "int8":
            weight = Int8Matrix(few, scale, activations=activations)
        else:
            weight = Int4Matrix(few, scale, like.shape[1])
        _replace(module, name, _like(layer, weight))  # type: ignore[arg-type]
    return [name for name, _ in chosen]


def has_integer_product() -> bool:
    """Whether this CPU and this torch can do `activations="int8"` and `"int16"`."""
    return (
        "fbgemm" in torch.backends.quantized.supported_engines
        and hasattr(torch.ops.quantized, "linear_with_input_q_dq_qweight_dq_output_fp32")
        and hasattr(torch, "_make_per_channel_quantized_tensor")
    )


def _has_vnni() -> bool:
    return bool(torch.cpu._is_vnni_supported())


def _packed(int8: Tensor, scale: Tensor) -> Any:
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    with _fbgemm(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*are deprecated and will be removed")  # then the other way is taken
        weight = torch._make_per_channel_quantized_tensor(int8, scale.double(), zeros, 0)
        return torch.ops.quantized.linear_prepack(weight, None)


@contextmanager
def _fbgemm() -> Iterator[None]:
    """The engine that packs is a global choice of torch's, and its default packs for another product."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def _like(layer: nn.Module, weight: QuantMatrix) -> nn.Module:
    if isinstance(layer, nn.Embedding):
        assert isinstance(weight, Int8Matrix)
        return Int8Embedding(weight)
    bias = layer.bias
    return QuantLinear(weight, bias.detach().clone() if isinstance(bias, Tensor) else None)


def _fits(names: Sequence[str] | Callable[[str, nn.Module], bool], name: str, layer: nn.Module | None) -> bool:
    if callable(names):
        return layer is not None and names(name, layer)
    return any(fnmatchcase(name, pattern) for pattern in names)


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, new)
