"""What is said in a conversation: given dialogues, or questions and answers strung together as people would."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from duologue.data.dialogue.config import DialogueConfig, DialogueSource
from duologue.data.manifest import SPLITS, read_rows
from duologue.data.prompts import Prompts
from duologue.data.spoken_text import SpokenText, key_of, plain, speakable, tidy, with_fillers
from duologue.data.steps.base import seed_of
from duologue.data.steps.sources import SourceConfig, read_source
from duologue.errors import DataError

ASSISTANT, USER = "assistant", "user"
ROLES = {"assistant": ASSISTANT, "gpt": ASSISTANT, "bot": ASSISTANT, "user": USER, "human": USER, "system": ""}
TURNS = ("turns", "messages", "conversations", "dialogue")
THOUGHT = 0.4  # chance that the beginning of a question is followed by a thought of the user's own
T = TypeVar("T")


class Line(NamedTuple):
    """One turn as text."""

    role: str  # assistant | user
    text: str


@dataclass(frozen=True, kw_only=True)
class Script:
    """A conversation as text."""

    id: str
    split: str
    source: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True)
class Phrases:
    """What is said around the turns (data/prompts/dialogue.json). Exchanges are (user, assistant); "" says nothing."""

    greetings: tuple[tuple[str, str], ...]
    follow_ups: tuple[tuple[str, str], ...]
    closings: tuple[tuple[str, str], ...]
    beginnings: tuple[str, ...]
    thoughts: tuple[str, ...]
    interruptions: tuple[str, ...]
    user_backchannels: tuple[str, ...]
    assistant_backchannels: tuple[str, ...]

    @classmethod
    def read(cls, prompts: Prompts) -> Phrases:
        """Raises DataError if the file does not hold what it should."""
        found = prompts.json("dialogue.json")
        exchanges, words = ("greetings", "follow_ups", "closings"), cls.__annotations__.keys()
        if not isinstance(found, dict) or set(found) != set(words):
            raise DataError(f"prompts/dialogue.json: need the keys {', '.join(words)} and no other")
        for key, value in found.items():
            width = 2 if key in exchanges else 0
            good = isinstance(value, list) and all(
                isinstance(each, list) and len(each) == width and all(isinstance(text, str) for text in each)
                if width
                else isinstance(each, str)
                for each in value
            )
            if not good or not value:
                raise DataError(f"prompts/dialogue.json: {key} needs a list of {'pairs of ' if width else ''}texts")
        kept: dict[str, Any] = {k: tuple(tuple(e) if k in exchanges else e for e in v) for k, v in found.items()}
        return cls(**kept)


class Pair(NamedTuple):
    """A question and its answer."""

    question: str
    answer: str
    split: str
    source: str


class Texts:
    """All the scripts of a recipe, in an order that follows from its seed."""

    def __init__(self, config: DialogueConfig):
        self.config, self.dropped = config, Counter[str]()
        self._prompts = Prompts(config.prompts)
        self._spoken, self.phrases = SpokenText(self._prompts), Phrases.read(self._prompts)
        self._told = dict[str, list[str]]()

    def scripts(self) -> list[Script]:
        """Given dialogues first, then those made of questions and answers.

        Raises:
            DataError: a source is missing or malformed, or nothing is left of them.
        """
        given, pairs = list(self._given()), list(self.pairs())
        self._told = self._statements()
        wanted = self.config.conversations
        if not given and not pairs:
            raise DataError(f"recipe {self.config.name}: no text is left of its sources ({dict(self.dropped)})")
        if not wanted:
            return given + self._composed(pairs, 0)
        if pairs:
            return given[:wanted] + (self._composed(pairs, wanted - len(given)) if wanted > len(given) else [])
        found = []
        for again, place in (divmod(number, len(given)) for number in range(wanted)):
            script = given[place]
            found.append(replace(script, id=f"{script.id}-{again}") if again else script)
        return found

    def _given(self) -> Iterator[Script]:
        seen: set[str] = set()
        for source in self.config.sources:
            rows = read_dialogues(Path(source.path)) if source.kind == "dialogues" else ()
            for number, turns in enumerate(rows):
                if source.limit and number >= source.limit:
                    break
                said = [Line(role, tidy(self._spoken.spell_out(plain(text)))) for role, text in turns]
                lines = tuple(line for line in said if any(map(str.isalpha, line.text)))
                key = " / ".join(key_of(line.text) for line in lines)
                if not lines or key in seen:
                    self.dropped["dialogue already there" if lines else "dialogue without words"] += 1
                    continue
                seen.add(key)
                split = source.split or self._split(key)
                yield Script(id=f"{source.name}-{number:06d}", split=split, source=source.name, lines=lines)

    def _split(self, key: str) -> str:
        draw = seed_of(self.config.seed, "split", key) / 2**63
        return "test" if draw < self.config.test else "dev" if draw < self.config.test + self.config.dev else "train"

    def pairs(self) -> Iterator[Pair]:
        """Questions and answers as they are said, each question once."""
        rules, seen = self._prompts.rules, set[str]()
        low, high = rules["answer_words"]
        for source in self.config.sources:
            for question, answer, split in _read_pairs(source):
                key = key_of(question)
                text = speakable(answer, most_sentences=rules["answer_sentences"], spell=self._spoken.spell_out)
                if "{" in answer:
                    self.dropped["answer with a placeholder"] += 1
                elif not key or not low <= len(text.split()) <= high:
                    self.dropped["question or answer empty or too long"] += 1
                elif source.longest_answer and len(text.split()) > source.longest_answer:
                    self.dropped["longer answer than wanted"] += 1
                elif key in seen:
                    self.dropped["question already there"] += 1
                else:
                    seen.add(key)
                    asked = tidy(self._spoken.spell_out(plain(question)))
                    yield Pair(asked, text, source.split or split or self._split(key), source.name)

    def _statements(self) -> dict[str, list[str]]:
        """What users tell without asking anything, by split."""
        found: dict[str, list[str]] = {split: [] for split in SPLITS}
        for source in self.config.sources:
            for text in _read_texts(source):
                found[source.split or self._split(key_of(text))].append(tidy(self._spoken.spell_out(plain(text))))
        return found

    def _composed(self, pairs: list[Pair], wanted: int) -> list[Script]:
        """Every question once before any is asked again; a conversation keeps to one split."""
        found: list[Script] = []
        config = self.config
        for split in SPLITS[::-1]:  # what rounding leaves goes to train
            own = [pair for pair in pairs if config.closed or pair.split == split]
            share = {"dev": config.dev, "test": config.test}.get(split, 1.0)
            share = share if config.closed else len(own) / max(len(pairs), 1)
            count = round(wanted * share) if split != "train" else wanted - len(found)
            if own and (count or not wanted):
                found += self._composed_of(own, split, max(count, 0))
        return found

    def _composed_of(self, pairs: list[Pair], split: str, wanted: int) -> Iterator[Script]:
        stream, left, number = self._stream(pairs, split), len(pairs), 0
        while number < wanted if wanted else left > 0:
            rng = np.random.default_rng(seed_of(self.config.seed, "compose", split, str(number)))
            count = int(rng.integers(self.config.exchanges[0], self.config.exchanges[1] + 1))
            chosen = [next(stream) for _ in range(count if wanted else min(count, left))]
            left -= len(chosen)
            source = "+".join(sorted({pair.source for pair in chosen}))
            yield Script(id=f"{split}-{number:06d}", split=split, source=source, lines=self._talk(chosen, split, rng))
            number += 1

    def _stream(self, pairs: list[Pair], split: str) -> Iterator[Pair]:
        for again in range(1 << 30):
            rng = np.random.default_rng(seed_of(self.config.seed, "order", split, str(again)))
            for place in rng.permutation(len(pairs)):
                yield pairs[place]

    def _talk(self, pairs: list[Pair], split: str, rng: np.random.Generator) -> tuple[Line, ...]:
        config, phrases, rules = self.config, self.phrases, self._prompts.rules
        exchanges = [_pick(phrases.greetings, rng)] if rng.random() < config.greeting_chance else []
        for pair in pairs:
            exchanges += [(text, "") for text in self._before(split, rng)]
            asked = with_fillers(
                pair.question,
                rng,
                fillers=self._prompts.lines("fillers.txt"),
                chance=rules["filler_chance"],
                endings=rules["endings"],
                ending_chance=rules["ending_chance"],
            )
            exchanges.append((asked, pair.answer))
            if rng.random() < config.follow_up_chance:
                user, assistant = _pick(phrases.follow_ups, rng)
                exchanges.append((user, assistant.replace("{answer}", pair.answer)))
        if rng.random() < config.closing_chance:
            exchanges.append(_pick(phrases.closings, rng))
        lines = [Line(role, text) for pair in exchanges for role, text in zip((USER, ASSISTANT), pair, strict=True)]
        return tuple(line for line in lines if line.text and (config.answered or line.role == USER))

    def _before(self, split: str, rng: np.random.Generator) -> list[str]:
        """What a user says ahead of a question and nobody is to answer."""
        config, phrases, told = self.config, self.phrases, self._told.get(split, [])
        found: list[str] = []
        if told and rng.random() < config.telling_chance:
            found += [_pick(told, rng) for _ in range(rng.integers(config.telling[0], config.telling[1] + 1))]
        if rng.random() < config.beginning_chance:
            found.append(_pick(phrases.beginnings, rng))
            found += [_pick(phrases.thoughts, rng)] if rng.random() < THOUGHT else []
        return found


def _pick(choices: Sequence[T], rng: np.random.Generator) -> T:
    return choices[int(rng.integers(len(choices)))]


def _read_pairs(source: DialogueSource) -> Iterator[tuple[str, str, str]]:
    """(question, answer, split or nothing)."""
    if source.kind == "pairs":
        table = SourceConfig(path=source.path, name=source.name, licence=source.licence, limit=source.limit)
        yield from ((question, answer, "") for question, answer in read_source(table))
    elif source.kind == "synth":
        columns = ("question", "question_spoken", "answer", "split")
        for number, row in enumerate(read_rows(Path(source.path), columns=columns)):
            if source.limit and number >= source.limit:
                return
            yield row.question_spoken or row.question, row.answer, row.split


def _read_texts(source: DialogueSource) -> Iterator[str]:
    if source.kind != "statements":
        return
    for number, row in enumerate(_lines(Path(source.path)), start=1):
        try:
            text = json.loads(row)["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f'{source.path}: line {number}: need {{"text": "..."}}, got {row[:60]!r}') from error
        if source.limit and number > source.limit:
            return
        yield text


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give a JSONL file") from error


def read_dialogues(path: Path) -> Iterator[list[Line]]:
    """The turns of each line of a JSONL file; turns of the same side that follow each other become one.

    Raises:
        DataError: missing, or a line that is no dialogue.
    """
    for number, row in enumerate(_lines(path), start=1):
        if row.strip():
            lines = _turns(row, where=f"{path}: line {number}")
            joined: list[Line] = []
            for line in lines:
                if joined and joined[-1].role == line.role:
                    joined[-1] = Line(line.role, f"{joined[-1].text} {line.text}")
                else:
                    joined.append(line)
            yield joined


def _turns(row: str, *, where: str) -> list[Line]:
    try:
        data = json.loads(row)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error})") from error
    turns = next((data[key] for key in TURNS if key in data), None) if isinstance(data, dict) else None
    if not isinstance(turns, list):
        raise DataError(f'{where}: no dialogue; need {{"turns": [["user", "..."], ["assistant", "..."]]}}')
    lines = []
    for turn in turns:
        role, text = _turn(turn)
        if ROLES.get(role) is None or not isinstance(text, str):
            raise DataError(f"{where}: need turns of a role ({', '.join(ROLES)}) and a text, got {str(turn)[:60]!r}")
        if ROLES[role]:
            lines.append(Line(ROLES[role], text))
    return lines


def _turn(turn: Any) -> tuple[str, Any]:
    if isinstance(turn, list) and len(turn) == 2:
        return str(turn[0]).lower(), turn[1]
    if isinstance(turn, dict):
        role = str(turn.get("role", turn.get("from", turn.get("speaker", "")))).lower()
        return role, turn.get("content", turn.get("value", turn.get("text")))
    return "", None
