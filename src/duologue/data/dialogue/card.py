"""The data card of a folder of conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from duologue.data.dialogue.config import DialogueConfig
from duologue.data.dialogue.manifest import Conversation
from duologue.data.dialogue.statistics import SIDES, Statistics, statistics
from duologue.data.manifest import SPLITS, markdown_table, write_text

PACKAGES = ("duologue", "pyarrow", "numpy", "soxr", "soundfile", "hibari-tts")
HUMAN = {"ipu": 51.1, "pause": 6.4, "gap": 4.2, "overlap": 3.3}  # seconds a minute, people on the telephone

Rows = list[tuple[Any, ...]]


def write_dialogue_card(
    folder: Path, config: DialogueConfig | Any, rows: Sequence[Conversation], *, dropped: Counter[str]
) -> Path:
    """Writes README.md, whole or not at all."""
    own = config if isinstance(config, DialogueConfig) else None
    found = statistics(rows, own.timing if own else None)
    splits = [(split, [row for row in rows if row.split == split]) for split in SPLITS]
    hours = [(split, len(each), f"{sum(row.seconds for row in each) / 3600:.2f}") for split, each in splits]
    lines = [f"# Data: {config.name}", "", "Conversations of two channels at 24 kHz: the assistant, the user.", ""]
    lines += markdown_table(("split", "conversations", "hours"), hours)
    lines += ["## Sources", "", *markdown_table(("source", "licence", "conversations"), _sources(own, rows))]
    lines += ["## Voices", "", *markdown_table(("voice", "licence", "conversations"), _voices(own, rows))]
    lines += ["## Left out", "", *markdown_table(("why", "texts"), sorted(dropped.items()))]
    lines += ["## Who speaks when", "", *markdown_table(("measure", "here", "people"), floor_rows(found))]
    if own:
        heading = ("drawn", "stated: middle, 5 % to 95 %", "drawn", "made", "times", "distance", "by chance")
        lines += ["## What was drawn, and what came out", "", *markdown_table(heading, drawn_rows(found))]
        lines += markdown_table(("rate", "stated", "made"), rate_rows(found, own))
    times = Counter(row.word_times for row in rows)
    facts = {"word times of the assistant": ", ".join(f"{name}: {count}" for name, count in sorted(times.items()))}
    facts |= {"seed": str(config.seed)} if isinstance(config, DialogueConfig) else {"read from": config.path}
    facts |= {package: _version(package) for package in PACKAGES}
    lines += ["## How it was made", "", *markdown_table(("what", "value"), list(facts.items()))]
    lines += ["The recipe, resolved, is in config.json. The same recipe and versions give the same bytes.", ""]
    return write_text(folder / "README.md", "\n".join(lines))


def floor_rows(found: Statistics) -> Rows:
    """The measures of Moshi's table 9 and some more; people: its ground truth."""
    rows: Rows = [
        (f"{name}, s a minute", f"{found.a_minute(value):.1f}", HUMAN[name]) for name, value in found.floor.items()
    ]
    for side in SIDES:
        rows.append((f"speech of the {side}, s a minute", f"{found.a_minute(found.speech[side]):.1f}", ""))
        rows.append((f"turns of the {side}, a minute", f"{found.a_minute(found.turns[side]):.1f}", ""))
        rows.append((f"backchannels of the {side}, a minute", f"{found.a_minute(found.backchannels[side]):.2f}", ""))
    return [*rows, ("interruptions, a minute", f"{found.a_minute(found.interruptions):.2f}", "")]


def drawn_rows(found: Statistics) -> Rows:
    """Each quantity: quantiles of what the recipe states, of what was drawn, of what was made."""
    return [
        (
            each.name.replace("_", " "),
            _quantiles(each.stated),
            _quantiles(each.drawn),
            _quantiles(each.made),
            len(each.drawn),
            f"{each.distance:.3f}",
            f"{each.expected:.3f}",
        )
        for each in found.drawn
    ]


def rate_rows(found: Statistics, config: DialogueConfig) -> Rows:
    """How often what happened, where it could."""
    timing, rows = config.timing, []
    for side, stated in zip(SIDES, (timing.assistant_backchannels, timing.user_backchannels), strict=True):
        made = 60 * found.backchannels[side] / found.room[side] if found.room[side] else 0.0
        rows.append((f"backchannels of the {side}, a minute of room", f"{stated:.2f}", f"{made:.2f}"))
    share = found.interruptions / found.interruptible if found.interruptible else 0.0
    return [*rows, ("interrupted, of turns that might be", f"{timing.interruption_chance:.3f}", f"{share:.3f}")]


def _quantiles(values: Sequence[float]) -> str:
    if not values:
        return "none"
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    return f"{middle:.2f}, {low:.2f} to {high:.2f}"


def _sources(config: DialogueConfig | None, rows: Sequence[Conversation]) -> Rows:
    counts = Counter(name for row in rows for name in row.source.split("+"))
    licences = {source.name: source.licence for source in config.sources} if config else {}
    told = [(each.name, each.licence, "") for each in config.sources if each.kind == "statements"] if config else []
    return [(name, licences.get(name, ""), count) for name, count in sorted(counts.items())] + told


def _voices(config: DialogueConfig | None, rows: Sequence[Conversation]) -> Rows:
    if config is None:
        return []
    licences = {voice.name: voice.licence for voice in (*config.voices, config.assistant)}
    counts = Counter(row.user.rpartition(" ")[0] for row in rows) + Counter(row.assistant for row in rows)
    return [(name, licences.get(name, ""), count) for name, count in sorted(counts.items())]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
