from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from duologue.skills import SKILLS, Context, answer
from duologue.skills.words import request

BERLIN = ZoneInfo("Europe/Berlin")
RATES = {"EUR": 1.0, "USD": 1.1, "GBP": 0.85, "JPY": 160.0}


@pytest.fixture
def context() -> Context:
    """Wednesday, March 4, 2026, twenty past three in the afternoon, in Berlin."""
    now = datetime(2026, 3, 4, 15, 20, tzinfo=BERLIN)
    return Context(now, rng=random.Random(1), glossary={"jitter": "Uneven delay."}, rates=RATES)


@pytest.fixture
def ask() -> Callable[[str, str, Context], str | None]:
    """Asks one skill by name as a user would; none if it does not feel asked."""

    def say(skill: str, text: str, context: Context) -> str | None:
        match = SKILLS[skill].match(request(text), context)
        return answer(skill, match.arguments, context) if match else None

    return say


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "house_rules.txt").write_text("Quiet hours start at 22:00.\n\nThe wifi password is on the fridge.")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "garden.md").write_text(
        "# Roses\n\nCut them back in March 2026.\n\n# Tomatoes\n\nWater them daily."
    )
    (tmp_path / "picture.png").write_bytes(b"\x89PNG roses roses roses")
    return tmp_path
