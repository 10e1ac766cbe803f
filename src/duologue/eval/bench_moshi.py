"""`duologue bench mimi` and `duologue bench moshi`: ours beside the published packages, on the same random weights.

Every run measures all systems in turn, step by step. Where a package is not installed, ours is measured alone: the rows
that compare are then missing, and the log says what to install.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from duologue.checkpoints.untrained import moshi_step_times, seven_b_tick_times, untrained_mimi
from duologue.eval import bench_mimi
from duologue.eval.context import Context
from duologue.eval.engine_overhead import measure
from duologue.eval.metrics import Interval, bootstrap, percentile
from duologue.eval.tasks import Outcome, Row, Task

ROUNDS, FEW_ROUNDS = 60, 4  # of a full and of a quick run
MANY = 16  # conversations at once
ROWS = 32  # of the engine alone
GPU_ROWS = (1, 8, 16, 32, 48, 64, 96)
TICK_MS = 80.0
_log = logging.getLogger(__name__)


def mimi_frame(context: Context) -> Outcome:
    """80 ms coded and decoded."""
    rivals = bench_mimi.installed()
    for name in bench_mimi.RIVALS:
        if name not in rivals:
            _missing(name)
    context.out.mkdir(parents=True, exist_ok=True)
    weights = context.out / "mimi.safetensors"
    try:
        codecs = {name: untrained_mimi(weights) for name in ("ours", "bf16 decoder")}
        codecs["ours"].pack()
        codecs["bf16 decoder"].pack(half_decoder=True)
        found = bench_mimi.compare(
            codecs, weights, rivals=rivals, threads=context.threads, rounds=_rounds(context), tell=context.tell
        )
    finally:
        weights.unlink(missing_ok=True)  # 300 MB of random numbers
    values: dict[str, Interval] = {}
    for key, name in (("mimi", "ours"), ("mimi_half", "bf16 decoder"), *((rival, rival) for rival in rivals)):
        values |= _spread(f"{key}_ms", found.both[name])
    for way in ("encode", "decode"):
        for key, name in (("mimi", "ours"), *((rival, rival) for rival in rivals)):
            ms = getattr(found.speeds[name], way)
            values[f"{key}_{way}"] = Interval(ms, ms, ms)
    for rival in rivals:
        values[f"faster_{rival}"] = _ratio(found.both[rival], found.both["ours"])
    speeds = {name: asdict(speed) for name, speed in found.speeds.items()}
    return Outcome(values=values, count=_rounds(context), details={"rounds": found.both, "speeds": speeds})


def moshi_step(context: Context) -> Outcome:
    """One step of the language model: 12 layers of 576, a depth transformer of 4 layers of 256, 8 codebooks."""
    rounds, details = _rounds(context), {}
    values: dict[str, Interval] = {}
    times: dict[int, dict[str, list[float]]] = {}
    for rows in (1, MANY):
        times[rows] = moshi_step_times(rows, steps=rounds, threads=context.threads, tell=context.tell)
        details[f"rows {rows}"] = times[rows]
        for name, each in times[rows].items():
            values |= _spread(f"{name.replace(' ', '_')}_{rows}", each)
        for kind in ("float32", "bfloat16"):
            if theirs := times[rows].get(f"{kind} moshi"):
                values[f"faster_{kind}_{rows}"] = _ratio(theirs, times[rows][kind])
    if "float32 moshi" not in times[1]:
        _missing("moshi")
    for kind in ("int8", "int4"):
        values[f"{kind}_against_bfloat16"] = _ratio(times[1]["bfloat16"], times[1][kind])
    for kind in times[1]:
        one, many = times[1][kind], times[MANY][kind]
        values[f"batching_{kind.replace(' ', '_')}"] = _ratio([MANY * ms for ms in one], many)
    return Outcome(values=values, count=rounds, details=details)


def moshi_gpu(context: Context) -> Outcome:
    """How many conversations of the released shape one GPU ticks in time, codec and language model."""
    if not torch.cuda.is_available():
        _log.warning("there is no GPU, so that conversations of the released shape are not measured")
        return Outcome(values={}, count=0, details={})
    times = seven_b_tick_times(GPU_ROWS[:1] if context.quick else GPU_ROWS, tell=context.tell)
    good = float(max((rows for rows, ms in times.items() if ms < TICK_MS), default=0))
    values = {"gpu_rows": Interval(good, good, good)}
    values |= {f"gpu_ms_{rows}": Interval(ms, ms, ms) for rows, ms in times.items()}
    return Outcome(values=values, count=len(times), details={"times": times})


def engine_tick(context: Context) -> Outcome:
    """What the engine adds to a tick of many duplex conversations."""
    found = measure(rows=ROWS, ticks=20 if context.quick else 500)
    values = {
        "engine": Interval(1000 * found.median, 1000 * found.median, 1000 * found.p95),
        "engine_p95": Interval(1000 * found.p95, 1000 * found.p95, 1000 * found.longest),
    }
    return Outcome(values=values, count=found.ticks, details=asdict(found))


def _rounds(context: Context) -> int:
    return FEW_ROUNDS if context.quick else ROUNDS


def _missing(name: str) -> None:
    _log.warning(
        "the package %s is not installed, so nothing is compared with it; pip install --no-deps %s", name, name
    )


def _spread(key: str, times: Sequence[float]) -> dict[str, Interval]:
    return {
        key: bootstrap(list(times), lambda each: percentile(each, 50)),
        f"{key}_p95": bootstrap(list(times), lambda each: percentile(each, 95)),
    }


def _ratio(theirs: Sequence[float], ours: Sequence[float]) -> Interval:
    """How many times faster ours is: the ratio of the medians, over rounds that are drawn together."""
    pairs = list(zip(theirs, ours, strict=True))

    def ratio(drawn: list[tuple[float, float]]) -> float:
        table = np.array(drawn)
        return float(np.median(table[:, 0]) / np.median(table[:, 1]))

    return bootstrap(pairs, ratio)


def _times(key: str, title: str, **goals: Any) -> tuple[Row, Row]:
    return (
        Row(key=key, title=f"{title}, p50", unit="ms", **goals),
        Row(key=f"{key}_p95", title=f"{title}, p95", unit="ms"),
    )


_FRAME = "Mimi, 80 ms coded and decoded"
_KINDS = (("float32", "float32"), ("bfloat16", "bfloat16"), ("int8", "int8 weights"), ("int4", "int4 weights"))

MIMI: tuple[Task, ...] = (
    Task(
        name="mimi_frame",
        run=mimi_frame,
        rows=(
            *_times("mimi_ms", f"{_FRAME}: ours", must=80, aim=27),
            Row(key="mimi_encode", title=f"{_FRAME}: ours, coding, p50", unit="ms"),
            Row(key="mimi_decode", title=f"{_FRAME}: ours, decoding, p50", unit="ms"),
            *_times("mimi_half_ms", f"{_FRAME}: ours, decoder in bfloat16"),
            Row(key="faster_moshi", title=f"{_FRAME}: times faster than moshi", higher=True, must=1.5, aim=4),
            Row(key="faster_rustymimi", title=f"{_FRAME}: times faster than rustymimi", higher=True, must=0.8, aim=1.2),
            *(
                row
                for rival in bench_mimi.RIVALS
                for row in (
                    *_times(f"{rival}_ms", f"{_FRAME}: {rival}"),
                    Row(key=f"{rival}_encode", title=f"{_FRAME}: {rival}, coding, p50", unit="ms"),
                    Row(key=f"{rival}_decode", title=f"{_FRAME}: {rival}, decoding, p50", unit="ms"),
                )
            ),
        ),
    ),
)

MOSHI: tuple[Task, ...] = (
    Task(
        name="moshi_step",
        run=moshi_step,
        rows=(
            *(
                Row(
                    key=f"faster_{kind}_1",
                    title=f"step, 1 row, {kind}: times faster than moshi",
                    higher=True,
                    must=1.5,
                    aim=3,
                )
                for kind in ("float32", "bfloat16")
            ),
            *(
                Row(
                    key=f"faster_{kind}_{MANY}",
                    title=f"step, {MANY} rows, {kind}: times faster than moshi",
                    higher=True,
                )
                for kind in ("float32", "bfloat16")
            ),
            Row(
                key="int8_against_bfloat16",
                title="step, 1 row, int8 weights: times faster than own bfloat16",
                higher=True,
                must=1.4,
                aim=2,
            ),
            Row(
                key="int4_against_bfloat16",
                title="step, 1 row, int4 weights: times faster than own bfloat16",
                higher=True,
            ),
            *(
                Row(
                    key=f"batching_{kind}",
                    title=f"conversations a core, {MANY} at once against one at a time, {name}",
                    higher=True,
                    must=None if kind == "int4" else 4,
                    aim=None if kind == "int4" else 8,
                )
                for kind, name in _KINDS
            ),
            *(
                Row(key=f"batching_{kind}_moshi", title=f"the same of moshi, {kind}", higher=True)
                for kind in ("float32", "bfloat16")
            ),
            *(
                row
                for rows in (1, MANY)
                for kind, name in _KINDS
                for row in (
                    *_times(f"{kind}_{rows}", f"step, rows: {rows}, {name}: ours"),
                    *(
                        ()
                        if kind in ("int8", "int4")
                        else _times(f"{kind}_moshi_{rows}", f"step, rows: {rows}, {name}: moshi")
                    ),
                )
            ),
        ),
    ),
    Task(
        name="engine_tick",
        run=engine_tick,
        rows=(
            Row(
                key="engine",
                title=f"engine outside the model, a tick of {ROWS} rows, p50",
                unit="µs",
                must=2000,
                aim=500,
            ),
            Row(key="engine_p95", title=f"engine outside the model, a tick of {ROWS} rows, p95", unit="µs"),
        ),
    ),
    Task(
        name="moshi_gpu",
        run=moshi_gpu,
        rows=(
            Row(
                key="gpu_rows",
                title="conversations of the 7B shape in a tick of 80 ms on this GPU, bfloat16, codec included",
                higher=True,
                must=32,
                aim=64,
            ),
            *(Row(key=f"gpu_ms_{rows}", title=f"a tick of {rows} of them, p50", unit="ms") for rows in GPU_ROWS),
        ),
    ),
)
