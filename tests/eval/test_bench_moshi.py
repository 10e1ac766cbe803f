"""Every row of the speed table is there beside the packages, and ours alone where they are missing."""

import logging

import pytest
from eval.helpers import make_context
from tiny_mimi import CONFIG

from duologue.codecs.mimi import Mimi
from duologue.eval import bench_mimi, bench_moshi
from duologue.eval.engine_overhead import Overhead
from duologue.eval.runner import EVALUATIONS

TIMES = {
    "float32": [10.0, 12.0, 11.0],
    "float32 moshi": [30.0, 36.0, 33.0],
    "bfloat16": [8.0, 8.0, 8.0],
    "bfloat16 moshi": [12.0, 12.0, 12.0],
    "int8": [4.0, 4.0, 4.0],
    "int4": [2.0, 2.0, 2.0],
}


def overhead(*, rows, ticks):
    return Overhead(rows=rows, ticks=ticks, median=0.5, p95=0.9, longest=1.5)


def steps(rows, *, without=(), **_):
    return {name: [ms * (2 if rows > 1 else 1) for ms in each] for name, each in TIMES.items() if name not in without}


def test_the_step_is_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_moshi, "moshi_step_times", steps)
    context, _ = make_context(tmp_path)
    values = bench_moshi.moshi_step(context).values
    assert {row.key for row in bench_moshi.MOSHI[0].rows} == set(values)
    assert values["faster_float32_1"].value == pytest.approx(3) and values["float32_1"].value == 11
    assert values["faster_bfloat16_16"].value == pytest.approx(1.5)
    assert values["int8_against_bfloat16"].value == 2 and values["batching_int8"].value == 8
    assert values["int4_against_bfloat16"].value == 4


def test_without_the_package_nothing_is_compared_and_it_is_said(tmp_path, monkeypatch, caplog):
    gone = ("float32 moshi", "bfloat16 moshi")
    monkeypatch.setattr(bench_moshi, "moshi_step_times", lambda rows, **_: steps(rows, without=gone))
    context, _ = make_context(tmp_path)
    with caplog.at_level(logging.WARNING):
        values = bench_moshi.moshi_step(context).values
    assert not any("moshi" in key or key.startswith("faster") for key in values) and "float32_16_p95" in values
    assert "the package moshi is not installed" in caplog.text


def test_mimi_is_measured_alone_where_the_packages_are_missing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(bench_moshi, "untrained_mimi", lambda path: Mimi(CONFIG).eval())
    monkeypatch.setattr(bench_mimi, "find_spec", lambda name: None)
    context, _ = make_context(tmp_path)
    with caplog.at_level(logging.WARNING):
        found = bench_moshi.mimi_frame(context)
    assert set(found.values) == {
        *("mimi_ms", "mimi_ms_p95", "mimi_half_ms", "mimi_half_ms_p95", "mimi_encode", "mimi_decode")
    }
    assert "rustymimi is not installed" in caplog.text and len(found.details["rounds"]["ours"]) == found.count


def test_the_engine_is_measured_in_microseconds(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_moshi, "measure", overhead)
    context, _ = make_context(tmp_path)
    found = bench_moshi.engine_tick(context)
    assert found.values["engine"].value == 500 and found.values["engine_p95"].value == 900
    assert EVALUATIONS["bench-moshi"][1].rows[0].must == 2000
