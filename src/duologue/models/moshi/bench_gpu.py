"""How many conversations one GPU holds: whole ticks, codec and language model, of ever more rows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from duologue.codecs.mimi import Mimi, MimiConfig
from duologue.models.moshi.family import Moshi
from duologue.models.moshi.model import MoshiModel
from duologue.models.moshi.released_config import from_kyutai
from duologue.models.moshi.text import Pieces

_WARM_UP = 6  # ticks that are not counted: graphs are captured in the first ones


def tick_times(
    shape: Mapping[str, Any],
    rows: Sequence[int],
    *,
    codec: MimiConfig | None = None,
    device: str = "cuda",
    past: int = 1000,
    ticks: int = 20,
    tell: Callable[[int, int], None] = lambda done, count: None,
) -> dict[int, float]:
    """Median milliseconds of a tick by the number of conversations; those that do not fit in memory are missing.

    Args:
        shape: of the language model, as kyutai's `config.json`; its weights are random, in bfloat16.
        past: ticks that each conversation is old.
        tell: called with numbers of rows done and in all.
    """
    with torch.inference_mode():
        moshi = _family(shape, codec or MimiConfig(), torch.device(device))
        found: dict[int, float] = {}
        for done, count in enumerate(rows):
            tell(done, len(rows))
            try:
                found[count] = statistics.median(_ticks(moshi, count, past, ticks))
            except torch.cuda.OutOfMemoryError:
                break
            finally:
                if device == "cuda":
                    torch.cuda.empty_cache()
        tell(len(rows), len(rows))
        return found


def _family(shape: Mapping[str, Any], codec: MimiConfig, device: torch.device) -> Moshi:
    config, before = from_kyutai(shape), torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # 7B weights in float32 would need twice the memory first
    try:
        with device:
            model = MoshiModel(config).eval()
    finally:
        torch.set_default_dtype(before)
    with device:
        mimi = Mimi(codec).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return Moshi(model, mimi, Pieces([b" a"] * config.text_vocab, lambda text: []), seed=1)


def _ticks(moshi: Moshi, rows: int, past: int, ticks: int) -> list[float]:
    """Milliseconds of each tick."""
    state, live_B = moshi.init_state(rows), torch.ones(rows, dtype=torch.bool)
    cache, audio_BN = state.model.cache, torch.randn(rows, moshi.spec.input_samples) * 0.1
    for kept in (cache.k_BLHTD, cache.v_BLHTD):
        kept[:, :, :, : past + ticks + _WARM_UP].normal_()
    cache.offset_B += past
    times = []
    for tick in range(ticks + _WARM_UP):
        begin = time.perf_counter()
        moshi.listen(state, audio_BN, live_B)
        moshi.speak(state, live_B).audio_BN.cpu()  # waits until all is done
        if tick >= _WARM_UP:
            times.append((time.perf_counter() - begin) * 1000)
    return times
