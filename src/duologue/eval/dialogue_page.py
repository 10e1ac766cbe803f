"""The page of a set of conversations: who speaks when, and whether what was drawn is what came out.

duologue data dialogue writes it as report.html beside the data card.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from duologue.config import load
from duologue.data.dialogue import Conversation, DialogueConfig, read_conversations
from duologue.data.dialogue.card import drawn_rows, floor_rows, rate_rows
from duologue.data.dialogue.statistics import SIDES, Drawn, SoundCheck, check_sound, speech_spans, statistics
from duologue.data.dialogue.timeline import BACKCHANNEL
from duologue.data.manifest import write_text
from duologue.errors import ConfigError
from duologue.eval.report import as_svg, html_page, html_table, new_figure

LISTENED = 24  # conversations whose sound is compared with their words
SHOWN = 4  # conversations drawn as timelines
COLOURS = {"assistant": "#2f6f9f", "user": "#b5651d"}
ABOUT = """<p>Speech of a side is one stretch until 0.2 s of silence (an IPU). Silence between stretches of the same
side is a pause, of different sides a gap. People: the ground truth of Moshi's table 9.</p>"""
DRAWN = """<p>The distance is that of Kolmogorov and Smirnov between what the recipe states and what was drawn; one
sample in twenty of this size exceeds the last column by chance. Made differs from drawn where there was no room: a
silence that is longer already stays, and an assistant that is stopped ends with a word.</p>"""


def write_dialogue_page(folder: Path) -> Path:
    """Writes report.html into a folder of conversations.

    Raises:
        DataError: no conversations there, or matplotlib is missing.
    """
    columns = [name for name in Conversation.__annotations__ if name != "audio"]
    rows = list(read_conversations(folder, columns=columns))
    try:
        config = load(DialogueConfig, folder / "config.json")
    except ConfigError:  # imported: nobody knows how it was drawn
        config = None
    found = statistics(rows, config.timing if config else None)
    parts = [f"<p>{found.conversations} conversations, {found.seconds / 3600:.2f} hours.</p>", ABOUT]
    parts.append(_table(("measure", "here", "people"), floor_rows(found)))
    if config:
        heading = ("drawn", "stated: middle, 5 % to 95 %", "drawn", "made", "times", "distance", "by chance")
        parts.append("<h2>What was drawn, and what came out</h2>" + DRAWN + _table(heading, drawn_rows(found)))
        parts.append(_table(("rate", "stated", "made"), rate_rows(found, config)))
        parts.append(_plot_drawn(found.drawn))
    parts.append("<h2>Conversations</h2>" + "".join(map(_plot_timeline, rows[:SHOWN])))
    check = check_sound(list(itertools.islice(read_conversations(folder), LISTENED)))
    parts.append("<h2>The assistant's sound against its words</h2>" + _table(("measure", ""), _check_rows(check)))
    name = config.name if config else folder.name
    return write_text(folder / "report.html", html_page(f"Conversations: {name}", parts))


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return html_table(header, [[str(cell) for cell in row] for row in rows])


def _check_rows(check: SoundCheck) -> list[tuple[str, str]]:
    rows = [
        ("frames of 10 ms", str(check.frames)),
        ("silent inside a word", f"{check.silent_within / max(check.frames, 1):.2%}"),
        ("sound 0.1 s or more from any word", f"{check.sound_outside / max(check.frames, 1):.2%}"),
    ]
    if check.starts:
        low, middle, high = 1000 * np.quantile(check.starts, (0.05, 0.5, 0.95))
        between = f"{middle:.0f} ms, {low:.0f} to {high:.0f} ms"
        rows.append((f"words behind the sound they begin with, {len(check.starts)} onsets", between))
    return rows


def _plot_drawn(drawn: Sequence[Drawn]) -> str:
    plots = [each for each in drawn if each.drawn]
    if not plots:
        return ""
    figure, axes = new_figure(len(plots))
    for axis, each in zip(axes, plots, strict=True):
        edges = np.linspace(min(each.stated), max(each.stated), 31)
        axis.hist(each.stated, edges, density=True, histtype="stepfilled", color="#b8c4cc", label="stated")
        axis.hist(each.drawn, edges, density=True, histtype="step", color="#2f6f9f", label="drawn")
        axis.hist(
            np.clip(each.made, edges[0], edges[-1]), edges, density=True, histtype="step", color="#b5651d", label="made"
        )
        axis.set_xlabel(f"{each.name.replace('_', ' ')}, s")
        axis.legend(fontsize=7)
    return as_svg(figure)


def _plot_timeline(row: Conversation) -> str:
    """Both sides over time; backchannels are lighter, dots mark interruptions."""
    figure, (axis,) = new_figure()
    figure.set_size_inches(11, 1.5)
    for place, side in enumerate(SIDES):
        spans = [(start, end - start) for start, end in speech_spans(row.words_of(side))]
        axis.broken_barh(spans, (place - 0.35, 0.7), color=COLOURS[side])
    for each in row.utterances_made():
        place = SIDES.index(each.role)
        if each.kind == BACKCHANNEL:
            axis.broken_barh([(each.start, each.end - each.start)], (place - 0.35, 0.7), color="#ecd3a8")
        if each.interrupts:
            axis.plot([each.start], [place + 0.45], "v", color="#b3261e", markersize=5)
    axis.set_yticks(range(len(SIDES)), SIDES, fontsize=8)
    axis.set_xlim(0, row.seconds)
    axis.set_xlabel("s", fontsize=8)
    return f"<p>{html.escape(row.id)}: {html.escape(row.user or row.source)}</p>{as_svg(figure)}"
