"""Speed of the language model's step, beside the `moshi` package (where it is installed) on the same weights.

The systems take turns, step by step, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from duologue.models.moshi.config import MoshiConfig
from duologue.models.moshi.generation import MoshiGenerator
from duologue.models.moshi.loading import BITS
from duologue.models.moshi.model import MoshiModel
from duologue.models.moshi.released import load_tensors, meta_model, quantize_moshi, stack_steps
from duologue.models.moshi.released_config import SEVEN_B, from_kyutai
from duologue.nn.packed import pack_linears
from duologue.nn.weight_files import fill

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
KINDS = ("float32", "bfloat16", "int8", "int4")
THEIRS = "moshi"
WARM_UP = 4  # steps of each system that are not counted: the first ones make what is made once


def step_times(
    rows: int,
    *,
    past: int = 250,
    steps: int = 20,
    threads: int = 2,
    beside: bool = True,
    tell: Callable[[int, int], None] = lambda done, count: None,
) -> dict[str, list[float]]:
    """Milliseconds of every step of `rows` conversations, by "KIND" for ours and "KIND moshi" for the package's.

    Theirs is missing where the package is not installed. It has no int8 or int4 on a CPU.

    Args:
        past: steps that each conversation is old.
        beside: also the package's own step.
        tell: called with rounds done and rounds in all.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            theirs = _reference() if beside else None
            weights = _random() if theirs is None else _converted(theirs)
            found: dict[str, list[float]] = {}
            # Many rows have caches of gigabytes: then one kind after the other.
            groups = [KINDS] if rows == 1 else [(kind,) for kind in KINDS]
            for number, kinds in enumerate(groups):
                share = functools.partial(_share, tell, number, len(groups))
                found |= _timed(_systems(kinds, weights, theirs, rows, past), steps, share)
            return found
    finally:
        torch.set_num_threads(before)


def _share(tell: Callable[[int, int], None], number: int, groups: int, done: int, count: int) -> None:
    """Tells the progress of one of several groups as that of all."""
    tell(number * count + done, groups * count)


def _systems(
    kinds: Sequence[str], weights: Mapping[str, torch.Tensor], theirs: Any, rows: int, past: int
) -> dict[str, Callable[[], Any]]:
    config, calls = from_kyutai(SHAPE), {}
    heard_BK = torch.randint(config.codebook_size, (rows, config.heard_codebooks))
    for kind in kinds:
        calls[kind] = _own_step(config, weights, kind, heard_BK, past)
        if theirs is not None and kind not in BITS:
            model = copy.deepcopy(theirs).to(getattr(torch, kind))
            calls[f"{kind} {THEIRS}"] = _their_step(model, heard_BK[..., None], past)
    return calls


def _reference() -> Any:
    """The package's model with random weights; None: it is not installed."""
    try:
        from moshi.models.lm import LMModel
    except ImportError:
        return None
    model = LMModel(**SHAPE, device="meta", dtype=torch.float32).to_empty(device="cpu").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model


def _converted(theirs: Any) -> dict[str, torch.Tensor]:
    return load_tensors(stack_steps(theirs.state_dict()), from_kyutai(SHAPE), where="bench")


def _random() -> dict[str, torch.Tensor]:
    model = MoshiModel(from_kyutai(SHAPE))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model.state_dict()


def _own_step(
    config: MoshiConfig, weights: Mapping[str, torch.Tensor], kind: str, heard_BK: torch.Tensor, past: int
) -> Callable[[], Any]:
    model = meta_model(config)
    fill(model, {name: tensor.clone() for name, tensor in weights.items()}, where="bench")
    model = model.eval().to(torch.float32 if kind == "float32" else torch.bfloat16)
    if kind in BITS:
        quantize_moshi(model, bits=BITS[kind])
    pack_linears(model, single=True)
    generator, rows = MoshiGenerator(model), len(heard_BK)
    state, live_B = generator.init_state(rows), torch.ones(rows, dtype=torch.bool)
    for kept in (state.cache.k_BLHTD, state.cache.v_BLHTD):  # untouched memory would be all one page, and fast
        kept[:, :, :, : past + 100].normal_()
    state.cache.offset_B += past
    return lambda: generator.step(state, heard_BK, live_B)


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
            state.kv_cache.cache[:, :, :, : past + 100].normal_()

    def step() -> None:
        with no_compile():  # on a CPU it compiles a norm alone, for minutes, to no avail
            generator.step(heard_BK1)

    return step


def _timed(
    calls: Mapping[str, Callable[[], Any]], steps: int, tell: Callable[[int, int], None]
) -> dict[str, list[float]]:
    """Milliseconds of each call, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for step in range(steps + WARM_UP):
        tell(step, steps + WARM_UP)
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if step >= WARM_UP:
                times[name].append((time.perf_counter() - begin) * 1000)
    tell(steps + WARM_UP, steps + WARM_UP)
    return times
