"""Timelines of a full-duplex evaluation that one can look at and listen to: both sides, their words, what is marked."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from duologue.eval.dialogue_page import COLOURS
from duologue.eval.duplex_cases import Case
from duologue.eval.duplex_driver import Take
from duologue.eval.judges import resample
from duologue.eval.report import data_url, html_page

SHOWN, LISTENED = 6, 2  # cases of each kind with a timeline, and with sound
FOLDER, PAGE = "duplex", "duplex.html"
RATE = 24_000  # Hz, of the sound that is kept
_WIDTH, _LEFT = 880, 50  # pixels
_ROWS = {"user": 34, "assistant": 84}  # pixels from the top to the middle of each side's bar

STYLE = """<style>.line{overflow-x:auto}.line svg{background:#fff;max-width:none}svg text{font:11px system-ui;fill:#222}
</style>"""
ABOUT = """<p>Above the user, below the model: bars are speech, the user's from its words, the model's as the voice
detector hears it. Yellow: what is marked (pauses, the interruption). The dashed line is the end of the user's turn, the
red one under it the latency. Green bars are backchannels. Left channel the model, right channel the user.</p>"""


class Gathered:
    """The cases of one task that the page shows. `write` makes the page from those of all tasks."""

    def __init__(self, out: Path, name: str):
        self._out, self._name, self._rows = Path(out), name, list[dict[str, Any]]()

    def add(self, case: Case, take: Take, found: dict[str, Any]) -> None:
        if len(self._rows) >= SHOWN:
            return
        sound = None
        if len(self._rows) < LISTENED:
            folder = self._out / FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            sound = f"{_plain(self._name)}-{_plain(case.name)}.flac"
            soundfile.write(folder / sound, _stereo(case, take), RATE, subtype="PCM_16")
        self._rows.append({**found, "sound": sound})

    def write(self) -> Path:
        """Writes the page."""
        folder = self._out / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        kept = {"name": self._name, "rows": self._rows}
        (folder / f"{_plain(self._name)}.json").write_text(json.dumps(kept), encoding="utf-8")
        parts = [STYLE, ABOUT]
        for path in sorted(folder.glob("*.json")):
            task = json.loads(path.read_text(encoding="utf-8"))
            parts.append(f"<h2>{html.escape(task['name'])}</h2>")
            parts += [part for row in task["rows"] for part in _one(row, folder)]
        page = self._out / PAGE
        page.write_text(html_page("Full duplex: who spoke when", parts), encoding="utf-8")
        return page


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower())


def _stereo(case: Case, take: Take) -> np.ndarray:
    user_N, own_N = resample(*case.sound(), RATE), resample(take.own, take.rate, RATE)
    length = max(len(user_N), len(own_N))
    return np.stack([np.pad(audio, (0, length - len(audio))) for audio in (own_N, user_N)], axis=1)


def _one(row: dict[str, Any], folder: Path) -> list[str]:
    facts = [row["name"], row["voice"]]
    if "over" in row:
        facts.append("took over" if row["over"] else "did not take over")
    facts += [f"{name} {1000 * row[name]:.0f} ms" for name in ("latency", "stop") if row.get(name) is not None]
    facts += [f"{row['a_minute']:.1f} backchannels a minute"] if "a_minute" in row else []
    parts = [f"<p>{html.escape(', '.join(facts))}</p><div class='line'>{timeline(row)}</div>"]
    told = {
        "the model wrote": "".join(text for _, text in row["texts"]).strip(),
        "it heard": " / ".join(row["heard"]),
        "the judge heard of its answer": row.get("answer", ""),
    }
    parts += [f"<p>{what}: <i>{html.escape(text)}</i></p>" for what, text in told.items() if text]
    if row["sound"]:
        parts.append(f"<p><audio controls src='{data_url(folder / row['sound'])}'></audio></p>")
    return parts


def timeline(row: dict[str, Any]) -> str:
    """Both sides of one case as an SVG element."""
    scale = max(_WIDTH / max(row["seconds"], 1.0), 40.0)

    def x(seconds: float) -> float:
        return round(_LEFT + scale * seconds, 1)

    def bar(start: float, end: float, middle: int, colour: str, title: str = "") -> str:
        box = f"x='{x(start)}' y='{middle - 10}' width='{max(1.0, round(scale * (end - start), 1))}' height='20'"
        return (
            f"<rect {box} fill='{colour}'><title>{html.escape(title or f'{start:.2f} to {end:.2f} s')}</title></rect>"
        )

    def text(at: float, y: int, words: str) -> str:
        return f"<text x='{x(at)}' y='{y}'>{html.escape(words)}</text>"

    user, own = _ROWS["user"], _ROWS["assistant"]
    parts = [
        f"<rect x='{x(a)}' y='18' width='{max(2.0, scale * (b - a)):.1f}' height='82' fill='#f6e7a9'/>"
        for a, b in row["marked"]
    ]
    parts += [f"<text x='0' y='{user + 4}'>user</text>", f"<text x='0' y='{own + 4}'>model</text>"]
    for said, start, end in row["user"]:
        parts.append(bar(start, end, user, COLOURS["user"], said))
        parts.append(text(start, user - 14, _fitting(said, scale * (end - start))))
    parts += [bar(start, end, own, COLOURS["assistant"]) for start, end in row["own"]]
    parts += [bar(start, end, own, "#2a7d3f") for start, end in row.get("signs", [])]
    parts += [text(when, own + 24, words) for when, words in _apart(row["texts"], scale)]
    end = row["user_end"]
    parts.append(f"<path d='M{x(end)} 18V100' stroke='#666' stroke-dasharray='3 3'/>")
    if row.get("latency"):
        parts.append(f"<path d='M{x(end)} 60H{x(end + row['latency'])}' stroke='#b3261e' stroke-width='3'/>")
    for second in range(int(row["seconds"]) + 1):
        parts.append(f"<path d='M{x(second)} 116v4' stroke='#888'/>")
        if second % 5 == 0:
            parts.append(text(second, 132, f"{second} s"))
    size = f"width='{x(row['seconds']) + 20}' height='138'"
    return f"<svg xmlns='http://www.w3.org/2000/svg' {size}>{''.join(parts)}</svg>"


def _fitting(words: str, pixels: float) -> str:
    most = max(4, int(pixels / 6))
    return words if len(words) <= most else f"{words[: most - 1]}…"


def _apart(texts: list[list[Any]], scale: float) -> list[tuple[float, str]]:
    """Pieces of text, those joined that would be written over each other."""
    found: list[tuple[float, str]] = []
    for when, piece in texts:
        if found and when < found[-1][0] + 6 * len(found[-1][1]) / scale:
            found[-1] = (found[-1][0], found[-1][1] + piece)
        else:
            found.append((when, piece.lstrip()))
    return [(when, piece if len(piece) < 200 else f"{piece[:199]}…") for when, piece in found]
