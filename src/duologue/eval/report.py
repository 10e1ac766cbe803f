"""The report of an evaluation: one HTML page that needs nothing else, a Markdown table, and all raw numbers as JSON."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from duologue.errors import DataError
from duologue.eval.metrics import TRAIN_EXTRA, Interval
from duologue.eval.tasks import Row, Task

SAMPLES = 4  # answers that can be listened to on the page
PASSED, MISSED, ABOVE = "met", "missed", "aim met"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A task and what was found: the JSON that the runner keeps."""

    task: Task
    found: Mapping[str, Any]

    @property
    def lines(self) -> list[Line]:
        """Its rows that have a value."""
        values = self.found.get("values", {})
        return [Line(row=row, value=Interval(**values[row.key])) for row in self.task.rows if row.key in values]

    @property
    def details(self) -> Mapping[str, Any]:
        return self.found.get("details", {})


@dataclass(frozen=True, kw_only=True)
class Line:
    """One measured row."""

    row: Row
    value: Interval

    @property
    def mark(self) -> str:
        """Whether it reaches what it must and should; empty for a row that has no goal."""
        if self.row.must is None and self.row.aim is None:
            return ""
        if self.row.reaches(self.value.value, self.row.must) is False:
            return MISSED
        return ABOVE if self.row.reaches(self.value.value, self.row.aim) else PASSED


def write_report(out: Path, entries: Sequence[Entry], *, title: str, machine: Mapping[str, str]) -> Path:
    """Writes index.html, report.md and raw.json into `out`.

    Returns:
        The HTML page.
    """
    out.mkdir(parents=True, exist_ok=True)
    raw = {"machine": machine, "tasks": {entry.task.name: entry.found for entry in entries}}
    (out / "raw.json").write_text(json.dumps(raw, indent=1), encoding="utf-8")
    (out / "report.md").write_text(markdown(entries, title=title, machine=machine), encoding="utf-8")
    page = out / "index.html"
    page.write_text(_page(entries, title=title, machine=machine, plots=plots(entries), out=out), encoding="utf-8")
    return page


def show(value: float | None, unit: str) -> str:
    """A number as the table prints it."""
    if value is None:
        return ""
    if unit == "%":
        return f"{100 * value:.1f} %"
    digits = 0 if unit in ("ms", "clips") else 2
    text = f"{value:.{digits}f}" if abs(value) >= 0.01 or value == 0 else f"{value:.1e}"
    return f"{text} {unit}".strip()


def goal(row: Row, value: float | None) -> str:
    """A goal with its direction."""
    if value is None:
        return ""
    return f"{'≥' if row.higher else '≤'} {show(value, row.unit)}"


def _cells(line: Line, count: int) -> list[str]:
    row, value = line.row, line.value
    between = f"{show(value.low, row.unit)} to {show(value.high, row.unit)}"
    return [
        row.title,
        goal(row, row.must),
        goal(row, row.aim),
        show(value.value, row.unit),
        between,
        str(count),
        line.mark,
    ]


HEADER = ("measure", "must", "aim", "measured", "95 % interval", "items", "mark")


def markdown(entries: Sequence[Entry], *, title: str, machine: Mapping[str, str]) -> str:
    """The table, the sweep and the machine in Markdown."""
    text = [
        f"# {title}",
        "",
        *_markdown_table(HEADER, [_cells(line, e.found["count"]) for e in entries for line in e.lines]),
    ]
    for entry in entries:
        if "error" in entry.found:
            text += ["", f"**{entry.task.name} failed**: {entry.found['error']}"]
    for name, header, rows in tables(entries):
        text += ["", f"## {name}", "", *_markdown_table(header, rows)]
    text += ["", "## Measured on", "", *(f"- {key}: {value}" for key, value in machine.items()), ""]
    return "\n".join(text)


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]


def tables(entries: Sequence[Entry]) -> list[tuple[str, Sequence[str], list[list[str]]]]:
    """The tables behind the main one: name, header, rows."""
    found: list[tuple[str, Sequence[str], list[list[str]]]] = []
    for entry in entries:
        details = entry.details
        for group in ("by_voice", "by_condition"):
            if group in details:
                header = (group.removeprefix("by_"), "WER", "WER of the judge", "clips")
                rows = [
                    [name, show(each["wer"], "%"), show(each["judge_wer"], "%"), str(each["clips"])]
                    for name, each in details[group].items()
                ]
                found.append((f"{entry.task.name}, {group.replace('_', ' ')}", header, rows))
        if entry.task.name == "sweep" and "table" in details:
            found.append(("Chunk size Omega", SWEEP_HEADER, [_sweep_cells(row) for row in details["table"]]))
    return found


SWEEP_HEADER = ("Omega", "first sound p50", "p90", "ASR-WER", "ASR-CER", "DNSMOS", "lagging words", "real-time factor")


def _sweep_cells(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row["omega"]),
        show(row["first_audio_ms"], "ms"),
        show(row["first_audio_p90_ms"], "ms"),
        show(row["answer_wer"], "%"),
        show(row["answer_cer"], "%"),
        show(row["dnsmos"], ""),
        show(row["lagging_words"], ""),
        show(row["real_time_factor"], ""),
    ]


def plots(entries: Sequence[Entry]) -> dict[str, str]:
    """Plots as inline SVG, by title: the sweep, latency beside the cascade's, errors by condition.

    Raises:
        DataError: matplotlib is missing.
    """
    by_name = {entry.task.name: entry.details for entry in entries}
    found = {}
    if table := by_name.get("sweep", {}).get("table"):
        found["Chunk size: latency against intelligibility and quality"] = _plot_sweep(table)
    if rows := by_name.get("cascade", {}).get("rows"):
        found["First sound: this model beside the cascade"] = _plot_cascade(rows)
    if groups := by_name.get("transcript_synthetic", {}).get("by_condition"):
        found["Transcript WER by condition"] = _plot_groups(groups)
    return found


def new_figure(columns: int = 1) -> tuple[Any, Any]:
    """A matplotlib figure and its axes, side by side.

    Raises:
        DataError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DataError(f"matplotlib is missing; {TRAIN_EXTRA}") from error
    figure = Figure(figsize=(4.6 * columns, 3.2), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def as_svg(figure: Any) -> str:
    """A figure as an SVG element."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def _plot_sweep(table: Sequence[Mapping[str, Any]]) -> str:
    figure, (left, right) = new_figure(2)
    names = [str(row["omega"]) for row in table]
    for axis, key, label, scale in ((left, "answer_wer", "ASR-WER, %", 100), (right, "dnsmos", "DNSMOS OVRL", 1)):
        times = [row["first_audio_ms"] for row in table]
        values = [scale * row[key] for row in table]
        axis.plot(times, values, "o-", color="#2f6f9f")
        for name, time, value in zip(names, times, values, strict=True):
            axis.annotate(name, (time, value), textcoords="offset points", xytext=(5, 5), fontsize=8)
        axis.set_xscale("log")
        axis.set_xlabel("first sound, ms (p50)")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    return as_svg(figure)


def _plot_cascade(rows: Sequence[Mapping[str, Any]]) -> str:
    figure, (axis,) = new_figure()
    left = 0.0
    for key, label, colour in (
        ("recognise_ms", "recognition", "#b5651d"),
        ("think_ms", "first sentence's text", "#d9a05b"),
        ("speak_ms", "first sentence's sound", "#ecd3a8"),
    ):
        width = float(np.median([row[key] for row in rows]))
        axis.barh(["cascade"], [width], left=left, label=label, color=colour)
        left += width
    own = float(np.median([row["own_first_audio_ms"] for row in rows]))
    axis.barh(["this model"], [own], color="#2f6f9f", label="all of it")
    axis.set_xlabel("ms after the question's end (medians)")
    axis.legend(fontsize=7)
    return as_svg(figure)


def _plot_groups(groups: Mapping[str, Mapping[str, float]]) -> str:
    figure, (axis,) = new_figure()
    place = np.arange(len(groups))
    axis.bar(place - 0.2, [100 * each["wer"] for each in groups.values()], 0.4, label="this model", color="#2f6f9f")
    axis.bar(place + 0.2, [100 * each["judge_wer"] for each in groups.values()], 0.4, label="judge", color="#b8c4cc")
    axis.set_xticks(place, list(groups), fontsize=8)
    axis.set_ylabel("WER, %")
    axis.legend(fontsize=8)
    return as_svg(figure)


STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0;font-size:14px}
th,td{padding:.3rem .6rem;border-bottom:1px solid #8885;text-align:left;vertical-align:top}
td:nth-child(n+2){font-variant-numeric:tabular-nums}
.met{color:#2a7d3f}.aim{color:#2a7d3f;font-weight:600}.missed{color:#b3261e;font-weight:600}
svg{max-width:100%;height:auto;background:#fff}code{font-size:13px}audio{height:2rem;vertical-align:middle}
"""


def _page(
    entries: Sequence[Entry], *, title: str, machine: Mapping[str, str], plots: Mapping[str, str], out: Path
) -> str:
    parts = [html_table(HEADER, [_cells(line, entry.found["count"]) for entry in entries for line in entry.lines])]
    for entry in entries:
        if "error" in entry.found:
            reason = html.escape(str(entry.found["error"]))
            parts.append(f"<p class='missed'>{html.escape(entry.task.name)} failed: {reason}</p>")
    for name, svg in plots.items():
        parts.append(f"<h2>{html.escape(name)}</h2>{svg}")
    for name, header, rows in tables(entries):
        parts.append(f"<h2>{html.escape(name)}</h2>{html_table(header, rows)}")
    if samples := _samples(out):
        parts.append("<h2>Answers to listen to</h2>" + "".join(samples))
    rows = [[key, value] for key, value in machine.items()]
    parts.append("<h2>Measured on</h2>" + html_table(("what", ""), rows))
    loads = [
        [e.task.name, *(str(e.found.get(key, "")) for key in ("date", "seconds", "load_average"))] for e in entries
    ]
    parts.append(html_table(("task", "when", "seconds", "load average after it"), loads))
    parts.append("<p>All raw numbers: <a href='raw.json'>raw.json</a>.</p>")
    for page in sorted(out.glob("*.html")):
        if page.name != "index.html":
            parts.append(f"<p>More: <a href='{html.escape(page.name)}'>{html.escape(page.name)}</a>.</p>")
    return html_page(title, parts)


def html_page(title: str, parts: Sequence[str]) -> str:
    """A page that needs nothing else, from pieces of its body."""
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{STYLE}</style></head><body>"
        + "\n".join([f"<h1>{html.escape(title)}</h1>", *parts])
        + "</body></html>\n"
    )


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    classes = {PASSED: " class='met'", ABOVE: " class='aim'", MISSED: " class='missed'"}
    return f"<td{classes.get(text, '')}>{html.escape(text)}</td>"


def _samples(out: Path) -> list[str]:
    """A few answers with their sound inside the page."""
    folder = out / "answers" / "default"
    index = folder / "index.json"
    if not index.is_file():
        return []
    found: list[str] = []
    for row in json.loads(index.read_text(encoding="utf-8"))["answers"]:
        sound = folder / row["path"]
        if sound.is_file() and len(found) < SAMPLES:
            question, text = html.escape(row["question"]), html.escape(row["text"])
            found.append(f"<p><i>{question}</i><br>{text}<br><audio controls src='{data_url(sound)}'></audio></p>")
    return found


def data_url(path: Path) -> str:
    """A sound file as an MP3 inside a URL."""
    audio, rate = soundfile.read(path, dtype="float32")
    file = io.BytesIO()
    soundfile.write(file, audio, rate, format="MP3", subtype="MPEG_LAYER_III")
    return "data:audio/mpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
