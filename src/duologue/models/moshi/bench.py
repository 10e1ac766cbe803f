"""Speed of the language model's step, beside the `moshi` package (where it is installed) on the same weights.

Theirs and ours take turns, step by step, so that what else the machine does falls on both.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from duologue.errors import PartError
from duologue.models.moshi.generation import MoshiGenerator
from duologue.models.moshi.released import load_tensors, meta_model, quantize_moshi, stack_steps
from duologue.models.moshi.released_config import SEVEN_B, from_kyutai
from duologue.models.weights import fill
from duologue.nn.packed import pack_linears

SHAPE: dict[str, Any] = {
    **SEVEN_B,
    "dim": 576,
    "num_heads": 9,
    "num_layers": 12,
    "depformer_dim": 256,
    "depformer_dim_feedforward": 1056,
    "depformer_num_heads": 4,
    "depformer_num_layers": 4,
}


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Milliseconds of one step of all rows, median."""

    rows: int
    weights: str
    ours: float
    theirs: float | None  # in the type that ours computes in; None: not measured


def step_times(
    *,
    rows: tuple[int, ...] = (1, 16),
    weights: tuple[str, ...] = ("float32", "bfloat16", "int8"),
    past: int = 250,
    steps: int = 20,
    threads: int = 2,
    beside: bool = True,
    activations: str = "bf16",
) -> list[StepTime]:
    """Times the step for each number of rows and each kind of weights.

    Args:
        past: steps that each conversation is old.
        beside: also the package's own step.
        activations: how int8 weights multiply (nn.quant).
    Raises:
        PartError: the package, whose random weights both use, is not installed.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            theirs = _reference()
            return [
                _pair(theirs, count, kind, past=past, steps=steps, beside=beside, activations=activations)
                for kind in weights
                for count in rows
            ]
    finally:
        torch.set_num_threads(before)


def _reference() -> Any:
    try:
        from moshi.models.lm import LMModel
    except ImportError as error:
        raise PartError("bench moshi: the package `moshi` is needed for the comparison: pip install moshi") from error
    model = LMModel(**SHAPE, device="meta", dtype=torch.float32).to_empty(device="cpu").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model


def _pair(theirs: Any, rows: int, kind: str, *, past: int, steps: int, beside: bool, activations: str) -> StepTime:
    dtype = torch.float32 if kind == "float32" else torch.bfloat16
    model, config = meta_model(from_kyutai(SHAPE)), from_kyutai(SHAPE)
    fill(model, load_tensors(stack_steps(theirs.state_dict()), config, where="bench"), where="bench")
    model = model.eval().to(dtype)
    if kind == "int8":
        quantize_moshi(model, activations=activations)
    pack_linears(model)
    generator, heard_BK = MoshiGenerator(model), torch.randint(config.codebook_size, (rows, config.heard_codebooks))
    state, live_B = generator.init_state(rows), torch.ones(rows, dtype=torch.bool)
    state.cache.offset_B += past
    calls = [lambda: generator.step(state, heard_BK, live_B)]
    if beside and kind != "int8":
        calls.append(_their_step(copy.deepcopy(theirs).to(dtype), heard_BK[..., None], past))
    ours, *their_times = _timed(calls, steps)
    return StepTime(rows=rows, weights=kind, ours=ours, theirs=their_times[0] if their_times else None)


def _their_step(theirs: Any, heard_BK1: torch.Tensor, past: int) -> Callable[[], Any]:
    from moshi.models.lm import LMGen
    from moshi.utils.compile import no_compile

    generator = LMGen(theirs)
    generator.streaming_forever(len(heard_BK1))
    for module in [generator, *theirs.transformer.modules()]:
        state: Any = getattr(module, "_streaming_state", None)
        for name in ("offset", "offsets"):
            if hasattr(state, name):
                getattr(state, name).add_(past)
        if hasattr(state, "kv_cache"):
            state.kv_cache.end_offset += past

    def step() -> None:
        with no_compile():  # on a CPU it compiles a norm alone, for minutes, to no avail
            generator.step(heard_BK1)

    return step


def _timed(calls: list[Callable[[], Any]], steps: int) -> list[float]:
    """Milliseconds of each call, median, taking turns."""
    times: list[list[float]] = [[] for _ in calls]
    for step in range(steps + 3):
        for call, taken in zip(calls, times, strict=True):
            begin = time.perf_counter()
            call()
            if step >= 3:  # the first ones make what is made once
                taken.append((time.perf_counter() - begin) * 1000)
    return [median(taken) for taken in times]
