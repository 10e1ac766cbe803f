"""Steps of data synthesis that mini's training wants: named in a recipe as "duologue.train.data_steps:dates"."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import json
from pathlib import Path

import numpy as np

from duologue.data.manifest import Turn
from duologue.data.steps.base import Result, Tools, seed_of
from duologue.errors import DataError
from duologue.models.llama_omni.loading import date_words
from duologue.train.rows import any_day

COPIES = 12  # of a row that speaks of today, each on a day of its own
FORMS = (
    "{}, {}, {}, {}, and {}.",
    "I said {}, {}, {}, {}, and {}.",
    "{} or {}? {} and {}, or {}.",
    "The {} is a {} {}, not {} or {}.",
    "It was {}. Then {}, {}, {}, and {}.",
)


def dates(rows: list[Turn], tools: Tools) -> Result:
    """Before the answers: {weekday}, {date}, {month} and {year} become words, the row once for each of several days.

    The day stands behind the row's id (row-12@2027-05-31), so that training tells the model that day.
    """
    result = Result()
    for row in rows:
        if "{" not in row.answer:
            result.rows.append(row)
            continue
        rng = np.random.default_rng(seed_of(row.seed, "dates"))
        for day in dict.fromkeys(any_day(rng) for _ in range(COPIES)):
            try:
                answer = row.answer.format(**date_words(day))
            except (KeyError, IndexError, ValueError):
                result.drop("an unknown placeholder in the answer")
                break
            seed = seed_of(row.seed, day.isoformat())
            result.rows.append(dataclasses.replace(row, id=f"{row.id}@{day.isoformat()}", answer=answer, seed=seed))
    return result


def things_to_say(rows: list[Turn], tools: Tools) -> Result:
    """Answers for the speech decoder alone: of a row with a question, the question itself; of an empty one, a list of
    words, half common, half rare, so that it has said every word. They are those of the teacher's lexicon."""
    for row in rows:
        if row.question:
            row.question, row.answer = "Say it.", tools.spoken.spell_out(row.question)
            continue
        common, rare = _lexicon()
        rng = np.random.default_rng(seed_of(row.seed, "words"))
        words = [str(rng.choice(common if rng.random() < 0.5 else rare)) for _ in range(5)]
        text = str(rng.choice(FORMS)).format(*words)
        row.question, row.answer = "Say some words.", text[0].upper() + text[1:]
    return Result(rows)


@functools.lru_cache(maxsize=1)
def _lexicon() -> tuple[list[str], list[str]]:
    """Short and long words of the teacher's lexicon, each sorted."""
    try:
        import hibari
    except ImportError as error:
        raise DataError(f"word lists need hibari-tts ({error}): pip install duologue[train]") from error
    path = Path(str(hibari.__file__)).parent / "assets" / "lexicon_us_gold.json.gz"
    try:
        words = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: hibari-tts 0.2.1 expected, its lexicon cannot be read ({error})") from error
    plain = sorted(word for word in words if word.isascii() and word.isalpha() and word.islower())
    return [word for word in plain if 3 <= len(word) <= 6], [word for word in plain if 7 <= len(word) <= 14]
