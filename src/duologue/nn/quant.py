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


class Int8Matrix(nn.Module):
    """A weight [out, in] in int8. Stands where a module has its `weight`, also as the second argument of `F.linear`."""

    int8: Tensor
    scale: Tensor

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
        self._half_scale: Tensor | None = None  # these three are made from the weights at the first use
        self._packed: Any = None  # the weights as fbgemm wants them
        self._multiply: Callable[..., Tensor] | None = None

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x times the transposed matrix, in the type of x. Gradients reach x."""
        if (x.requires_grad and torch.is_grad_enabled()) or x.device.type != "cpu":
            return F.linear(x, self.expanded(x.dtype), bias)
        flat = x.reshape(-1, x.shape[-1])
        if self.activations != "bf16" and (self._packed is not None or has_integer_product()):
            y = self._integer_product(flat)
        elif len(flat) >= EXPAND_FROM or self.shape[1] % 16:
            y = F.linear(flat.to(torch.bfloat16), self.expanded(torch.bfloat16))
        else:
            y = self._weight_product(flat)
        y = y.to(x.dtype).reshape(*x.shape[:-1], self.shape[0])
        return y if bias is None else y + bias.to(x.dtype)

    def rows(self, ids: Tensor) -> Tensor:
        """Chosen rows in float32, as an embedding table gives them."""
        return self._rows()[ids] * self.scale[ids][..., None]

    def expanded(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix in a floating type."""
        return from_int8(self._rows(), self.scale, dtype)

    def release(self) -> None:
        """Keeps the weights only as fbgemm wants them, where the integer product is used: half the memory."""
        if self.activations != "bf16" and has_integer_product():
            self._pack()
            self.int8 = self.int8.new_empty(0)

    def _rows(self) -> Tensor:
        """The weights, also after `release`."""
        if self.int8.dim() == 2:
            return self.int8
        return torch.ops.quantized.linear_unpack(self._packed)[0].int_repr()

    def _weight_product(self, x_MD: Tensor) -> Tensor:
        if self._half_scale is None:
            self._half_scale = self.scale.to(torch.bfloat16)
            self.int8 = _aligned(self._rows())
        # The kernel reads its arguments in aligned blocks, and crashes on others.
        return torch._weight_int8pack_mm(_aligned(x_MD.to(torch.bfloat16)), self.int8, self._half_scale)

    def _integer_product(self, x_MD: Tensor) -> Tensor:
        if self._multiply is None:
            self._pack()
        assert self._multiply is not None
        levels = LEVELS if _has_vnni() else LEVELS // 2  # older CPUs add two products in 16 bits
        peak_M1 = x_MD.abs().amax(-1, keepdim=True).float().clamp_min_(1e-20)
        x_MD, step = x_MD / peak_M1, 1 / levels
        if self.activations == "int8":
            return self._multiply(x_MD, step, levels, self._packed).mul_(peak_M1)
        high_MD = torch.fake_quantize_per_tensor_affine(x_MD, step, levels, 0, 2 * levels)
        both = torch.cat([high_MD, (x_MD - high_MD).mul_(2 * levels)])  # what rounding left is at most half a step
        high, low = self._multiply(both, step, levels, self._packed).chunk(2)
        return high.add_(low, alpha=step / 2).mul_(peak_M1)

    def _pack(self) -> None:
        if self._packed is None:
            self._packed = _packed(self.int8, self.scale)
            self._multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32

    def _forget(self) -> None:
        if self.int8.dim() != 2:
            self.int8 = self._rows()
        self._half_scale = self._packed = self._multiply = None

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Lets `F.linear(x, embedding.weight)`, how tied heads are written, use the int8 kernels."""
        if function is F.linear and len(args) >= 2 and isinstance(args[1], cls) and isinstance(args[0], Tensor):
            return args[1].linear(args[0], *args[2:], **(kwargs or {}))
        return NotImplemented

    def _load_from_state_dict(self, *args: Any) -> None:
        self._forget()
        super()._load_from_state_dict(*args)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}int8"] = self._rows()

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles make their own of what is made at the first use."""
        kept = {**self.__dict__, "_half_scale": None, "_packed": None, "_multiply": None}
        return {**kept, "_buffers": {**self._buffers, "int8": self._rows()}}


class Int8Linear(nn.Module):
    """`nn.Linear` over an `Int8Matrix`."""

    bias: Tensor | None

    def __init__(self, weight: Int8Matrix, bias: Tensor | None = None):
        super().__init__()
        self.weight = weight
        self.register_buffer("bias", bias)
        self.out_features, self.in_features = weight.shape

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.linear(x, self.bias)


class Int8Embedding(nn.Module):
    """`nn.Embedding` over an `Int8Matrix`; gives float32. A head that is tied to it goes on working."""

    def __init__(self, weight: Int8Matrix):
        super().__init__()
        self.weight = weight
        self.num_embeddings, self.embedding_dim = weight.shape

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight.rows(ids)


def quantize_int8(
    module: nn.Module, names: Sequence[str] | Callable[[str, nn.Module], bool] = ("*",), *, activations: str = "bf16"
) -> list[str]:
    """Replaces linear layers and embeddings of `module` by int8 ones, in place.

    Args:
        names: of the layers, with `*` as in file names; or a function of the name and the layer.
        activations: see the top of this file.
    Returns:
        The names that were replaced.
    Raises:
        ShapeError: nothing fits.
    """
    chosen = []
    for name, layer in list(module.named_modules()):
        if type(layer) not in (nn.Linear, nn.Embedding) or not _fits(names, name, layer):
            continue
        weight = Int8Matrix(*to_int8(layer.weight), activations=activations)
        _replace(module, name, _like(layer, weight))
        chosen.append(name)
    if not chosen:
        raise ShapeError(f"quantize_int8: no linear layer or embedding fits {names}. Look at module.named_modules().")
    return chosen


def dequantize(module: nn.Module, dtype: torch.dtype = torch.float32) -> list[str]:
    """The reverse of `quantize_int8`, but for what rounding lost. Returns the names that were replaced."""
    chosen = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, (Int8Linear, Int8Embedding))]
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
    """Frees what the integer product does not need of every int8 linear layer of `module`; embeddings keep their rows.

    The state dict stays whole.
    """
    for layer in module.modules():
        if isinstance(layer, Int8Linear):
            layer.weight.release()


def pack_int8(
    tensors: Mapping[str, Tensor],
    names: Sequence[str] = ("*",),
    *,
    smallest: int = 4096,
    rest: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """A state dict with its large weights as int8 (`x` becomes `x.int8` and `x.scale`), for small files.

    The names are those of the same module after `quantize_int8`.

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
    """Makes int8 those layers of `module` that `tensors` has in int8, so that it can load them. In place.

    The layers may be on the meta device; what they hold is not kept. Convolutions and the like have no int8 form:
    `unpack_int8` their weights.

    Returns:
        The names that were replaced.
    Raises:
        ShapeError: an int8 tensor where `module` has no linear layer or embedding.
    """
    layers = dict(module.named_modules())
    chosen = [name.removesuffix(".weight.int8") for name in tensors if name.endswith(".weight.int8")]
    for name in chosen:
        layer = layers.get(name)
        if type(layer) not in (nn.Linear, nn.Embedding):
            found = "nothing" if layer is None else type(layer).__name__
            raise ShapeError(f"shape_like: {name} is int8 in the file, but here it is {found}. Is it another model's?")
        int8 = torch.empty(layer.weight.shape, dtype=torch.int8, device=layer.weight.device)  # type: ignore[union-attr]
        scale = torch.empty(len(int8), device=int8.device)
        _replace(module, name, _like(layer, Int8Matrix(int8, scale, activations=activations)))  # type: ignore[arg-type]
    return chosen


def has_integer_product() -> bool:
    """Whether this CPU and this torch can do `activations="int8"` and `"int16"`."""
    return (
        "fbgemm" in torch.backends.quantized.supported_engines
        and hasattr(torch.ops.quantized, "linear_with_input_q_dq_qweight_dq_output_fp32")
        and hasattr(torch, "_make_per_channel_quantized_tensor")
    )


def _has_vnni() -> bool:
    return bool(torch.cpu._is_vnni_supported())


def _aligned(tensor: Tensor) -> Tensor:
    """The same numbers at an address that is a multiple of 64 bytes, as torch's own allocations are.

    Files that are mapped into memory, and slices, begin anywhere.
    """
    return tensor if tensor.data_ptr() % 64 == 0 and tensor.is_contiguous() else tensor.contiguous().clone()


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


def _like(layer: nn.Module, weight: Int8Matrix) -> nn.Module:
    if isinstance(layer, nn.Embedding):
        return Int8Embedding(weight)
    bias = layer.bias
    return Int8Linear(weight, bias.detach().clone() if isinstance(bias, Tensor) else None)


def _fits(names: Sequence[str] | Callable[[str, nn.Module], bool], name: str, layer: nn.Module | None) -> bool:
    if callable(names):
        return layer is not None and names(name, layer)
    return any(fnmatchcase(name, pattern) for pattern in names)


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, new)
