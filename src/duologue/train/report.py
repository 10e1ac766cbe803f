"""The page that a run leaves: curves, settings, machine, time and memory, in one file without scripts or links."""

from __future__ import annotations

import html
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from duologue.train.progress import read_log, span

WIDTH, HEIGHT, LEFT, BOTTOM = 420, 220, 52, 26  # of a plot, pixels
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto; padding: 0 1rem; color: #1c2430; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p.sub { color: #64707f; margin-top: 0; }
table { border-collapse: collapse; } td, th { padding: 2px 16px 2px 0; text-align: left; vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } tr { border-bottom: 1px solid #e8ebef; }
figure { display: inline-block; margin: 0 12px 12px 0; } figcaption { font-size: 13px; color: #64707f; }
svg { background: #fbfcfd; } svg text { font: 11px system-ui, sans-serif; fill: #64707f; }
"""


def write(folder: Path) -> Path:
    """Writes report.html from the folder's config.json, log.jsonl and, once the run is done, result.json."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    done = folder / "result.json"
    result = json.loads(done.read_text(encoding="utf-8")) if done.exists() else {}
    lines = read_log(folder / "log.jsonl")
    steps = [line for line in lines if "evaluation" not in line]
    page = folder / "report.html"
    page.write_text(_page(config, result, steps, _evaluations(lines)), encoding="utf-8")
    return page


def _evaluations(lines: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    curves = defaultdict(list)
    for line in lines:
        for key, value in line.get("evaluation", {}).items():
            curves[key].append((line["step"], value))
    return curves


def _page(
    config: dict[str, Any],
    result: dict[str, Any],
    steps: list[dict[str, Any]],
    evaluations: dict[str, list[tuple[float, float]]],
) -> str:
    at = steps[-1]["step"] if steps else 0
    facts = {"steps": f"{at} of {config['steps']}"}
    if result:
        facts |= {
            "date": result["date"],
            "machine": result["machine"],
            "processes": result["processes"],
            "time taken": span(result["seconds"]),
            "peak memory": f"{result['peak_memory'] / 2**30:.2f} GiB a process",
            "exported": f"weights of step {result['exported_step']}",
        }
    names = [key for key in (steps[-1] if steps else {}) if key not in ("step", "seconds")]
    training = [_plot(key, [(line["step"], line[key]) for line in steps if key in line], smooth=True) for key in names]
    held_out = [_plot(key, points, smooth=False) for key, points in evaluations.items()]
    parts = [
        f"<h1>{html.escape(config['name'])}</h1><p class=sub>a duologue training run</p>",
        _table(facts),
        "<h2>Final evaluation</h2>" + _table(result["evaluation"]) if result.get("evaluation") else "",
        "<h2>Held-out curves</h2>" + "".join(held_out) if held_out else "",
        "<h2>Training curves</h2>" + "".join(training) if training else "",
        "<h2>Settings</h2>" + _table(flat(config)),
    ]
    title = html.escape(config["name"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
        f"{''.join(parts)}</html>\n"
    )


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested objects as one with dotted keys."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in flat(item, f"{prefix}.{key}" if prefix else key).items()}


def _table(rows: dict[str, Any]) -> str:
    cells = "".join(
        f"<tr><td>{html.escape(str(key))}</td><td class={'n' if isinstance(value, float) else 't'}>"
        f"{html.escape(f'{value:.5g}' if isinstance(value, float) else str(value))}</td></tr>"
        for key, value in rows.items()
    )
    return f"<table>{cells}</table>"


def _plot(title: str, points: list[tuple[float, float]], *, smooth: bool) -> str:
    """One curve as SVG; of a noisy one also a running mean."""
    points = [(x, y) for x, y in points if math.isfinite(y)]
    if not points:
        return ""
    thin = points[:: max(1, len(points) // 1000)]
    low, high = min(y for _, y in thin), max(y for _, y in thin)
    if smooth and len(thin) > 20:  # a few wild first steps must not flatten the rest
        ordered = sorted(y for _, y in thin)
        low, high = ordered[len(ordered) // 200], ordered[-1 - len(ordered) // 50]
    high = high if high > low else low + (abs(low) or 1.0) * 0.1
    first, last = thin[0][0], max(thin[-1][0], thin[0][0] + 1)

    def place(x: float, y: float) -> str:
        across = LEFT + (x - first) / (last - first) * (WIDTH - LEFT - 10)
        up = 10 + (1 - (min(max(y, low), high) - low) / (high - low)) * (HEIGHT - BOTTOM - 20)
        return f"{across:.1f},{up:.1f}"

    def line(data: list[tuple[float, float]], style: str) -> str:
        return f'<polyline fill="none" {style} points="{" ".join(place(x, y) for x, y in data)}"/>'

    marks = "".join(
        f'<text x="{LEFT - 6}" y="{float(place(first, y).split(",")[1]) + 4:.0f}" text-anchor="end">{y:.3g}</text>'
        for y in (low, (low + high) / 2, high)
    ) + "".join(
        f'<text x="{place(x, low).split(",")[0]}" y="{HEIGHT - 6}" text-anchor="{anchor}">{x:.0f}</text>'
        for x, anchor in ((first, "start"), (last, "end"))
    )
    if smooth and len(thin) > 20:
        drawn = line(thin, 'stroke="#b9cbe4"') + line(_running_mean(thin), 'stroke="#1f5fb4" stroke-width="2"')
    else:
        dots = [place(x, y).split(",") for x, y in thin] if len(thin) <= 100 else []
        drawn = line(thin, 'stroke="#1f5fb4" stroke-width="2"')
        drawn += "".join(f'<circle cx="{x}" cy="{y}" r="2.5" fill="#1f5fb4"/>' for x, y in dots)
    return (
        f"<figure><figcaption>{html.escape(title)}: {points[-1][1]:.4g}</figcaption>"
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{html.escape(title)}">{marks}{drawn}</svg>'
        "</figure>"
    )


def _running_mean(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    keep, mean, weight, smoothed = 1 - 1 / max(5.0, len(points) / 30), 0.0, 0.0, []
    for x, y in points:
        mean, weight = keep * mean + (1 - keep) * y, keep * weight + (1 - keep)
        smoothed.append((x, mean / weight))
    return smoothed
