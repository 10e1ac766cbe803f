"""Where questions come from: JSONL and Parquet in the usual shapes, plain sentences, and WordNet's definitions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from duologue.data.manifest import SPLITS, arrow
from duologue.errors import ConfigError, DataError

QUESTIONS = ("question", "instruction", "prompt", "query", "text")  # "text": a sentence to be heard or said, no more
ANSWERS = ("answer", "output", "response", "completion")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One source of questions and, perhaps, answers."""

    path: str  # .jsonl, .json, .parquet; for WordNet its folder, such as /usr/share/wordnet
    name: str
    licence: str
    kind: str = "table"  # table | wordnet | wordnet-examples
    split: str = ""  # train | dev | test; "": shared out by the question's hash
    limit: int = 0  # most rows; 0: all

    def __post_init__(self) -> None:
        if self.kind not in _READERS:
            raise ConfigError(f"SourceConfig.kind: need one of {', '.join(_READERS)}, got {self.kind!r}")
        if self.split and self.split not in SPLITS:
            raise ConfigError(f"SourceConfig.split: need one of {', '.join(SPLITS)} or nothing, got {self.split!r}")


def read_source(source: SourceConfig) -> Iterator[tuple[str, str]]:
    """(question, answer) pairs; the answer may be empty.

    Raises:
        DataError: missing, unreadable, or without questions.
    """
    path, count = Path(source.path), 0
    if not path.exists():
        raise DataError(f"{path}: there is no such source; correct the path of {source.name!r} in the recipe")
    for question, answer in _READERS[source.kind](path):
        if source.limit and count >= source.limit:
            return
        count += 1
        yield question, answer
    if not count:
        raise DataError(f"{path}: no questions in it; need lines with one of the keys {', '.join(QUESTIONS)}")


def _table(path: Path) -> Iterator[tuple[str, str]]:
    for number, row in enumerate(_rows(path), start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number} is not an object with keys, but {str(row)[:60]!r}")
        pair = _pair(row)
        if pair is None:
            raise DataError(f"{path}: row {number} has none of the keys {', '.join((*QUESTIONS, 'messages'))}")
        if pair[0]:
            yield pair


def _rows(path: Path) -> Iterator[Any]:
    if path.suffix == ".parquet":
        pa = arrow()
        try:
            for batch in pa.parquet.ParquetFile(path).iter_batches():
                yield from batch.to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: not a readable Parquet file ({error})") from error
        return
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            yield from json.loads(text)
            return
    except (OSError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}: line {number} is not JSON ({error})") from error


def _pair(row: dict[str, Any]) -> tuple[str, str] | None:
    """A row of the Alpaca shape (instruction, input, output), of chat messages, or of plain question and answer."""
    messages = row.get("messages") or row.get("conversations")
    if messages:
        said = [(m.get("role", m.get("from", "")), m.get("content", m.get("value", ""))) for m in messages]
        asked = next((text for role, text in said if role in ("user", "human")), "")
        told = next((text for role, text in said if role in ("assistant", "gpt")), "")
        return str(asked), str(told)
    key = next((key for key in QUESTIONS if key in row), None)
    if key is None:
        return None
    question = " ".join(str(row.get(part) or "").strip() for part in (key, "input")).strip()
    answer = next((row[name] for name in ANSWERS if row.get(name)), None)
    if answer is None and isinstance(row.get("answers"), list | tuple | np.ndarray) and len(row["answers"]):
        answer = row["answers"][0]
    return question, str(answer or "")


def _wordnet(folder: Path) -> Iterator[tuple[str, str]]:
    """What common nouns mean, in the first sense, most used first (WordNet 3.0, Princeton)."""
    counts, index = (_of_wordnet(folder, name).decode() for name in ("cntlist.rev", "index.noun"))
    data = _of_wordnet(folder, "data.noun")
    used: dict[str, int] = {}
    for line in counts.splitlines():
        key, _, times = line.split()
        lemma, _, rest = key.partition("%")
        if rest.startswith("1:"):
            used[lemma] = used.get(lemma, 0) + int(times)
    first: dict[str, int] = {}
    for line in index.splitlines():
        if not line.startswith(" "):
            parts = line.split()
            first[parts[0]] = int(parts[-int(parts[2])])
    for lemma in sorted((lemma for lemma in first if lemma in used), key=lambda word: (-used[word], word)):
        start = first[lemma]
        line = data[start : data.index(b"\n", start)].decode("utf-8", "replace")
        gloss = re.sub(r"\([^)]*\)", "", line.partition("|")[2].split(";")[0]).strip()
        word = lemma.replace("_", " ")
        if re.fullmatch(r"[a-z ]{3,24}", word) and 3 <= len(gloss.split()) <= 20 and word not in gloss:
            yield f"What does the word {word} mean?", f"It means {gloss}."


def _wordnet_examples(folder: Path) -> Iterator[tuple[str, str]]:
    """How words are used: the examples of all senses, sentences and pieces of sentences, in a mixed order."""
    found: dict[str, None] = {}
    for name in ("data.noun", "data.verb", "data.adj", "data.adv"):
        for line in _of_wordnet(folder, name).decode("utf-8", "replace").splitlines():
            for example in re.findall(r'"([^"]+)"', line.partition(" | ")[2]):
                text = example.replace("`", "'").strip(" ;'")
                if re.fullmatch(r"[A-Za-z][A-Za-z',;:.?! -]*", text) and 3 <= len(text.split()) <= 22:
                    found.setdefault(text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else "."))
    examples = list(found)
    for place in np.random.default_rng(0).permutation(len(examples)):
        yield examples[place], ""


def _of_wordnet(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise DataError(f"{folder}: not WordNet's database ({error}); apt-get install wordnet-base") from error


_READERS = {"table": _table, "wordnet": _wordnet, "wordnet-examples": _wordnet_examples}
