"""A folder of text files that can be asked: BM25 over passages, the source named."""

from __future__ import annotations

import re
from pathlib import Path

import bm25s
import numpy as np

from duologue.errors import ConfigError
from duologue.skills.base import Passage
from duologue.skills.text_words import content

ENDINGS = (".txt", ".md", ".rst")
MOST_FILES, MOST_BYTES, MOST_PASSAGES = 5_000, 2_000_000, 50_000
_WORDS = 90  # of a passage


class Knowledge:
    """Every text under a folder, cut into passages and indexed. Read once; files that change later are not seen.

    Raises:
        ConfigError: no such folder, no text in it, or too much.
    """

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise ConfigError(f"knowledge: need a folder of text files, got {folder}")
        root = folder.resolve()
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
        files = [path for path in files if path.resolve().is_relative_to(root)]
        if len(files) > MOST_FILES:
            raise ConfigError(f"knowledge: at most {MOST_FILES} files, got {len(files)} in {folder}; split the folder")
        self._passages: list[tuple[str, str]] = []
        for path in files:
            self._passages += [(text, source_name(path)) for text in passages(_read(path))]
        if not 0 < len(self._passages) <= MOST_PASSAGES:
            raise ConfigError(
                f"knowledge: need 1 to {MOST_PASSAGES} passages in {', '.join(ENDINGS)} files, "
                f"got {len(self._passages)} in {folder}"
            )
        tokens = [content(f"{source} {text}") for text, source in self._passages]
        tokens = [words or [""] for words in tokens]
        self._index = bm25s.BM25()
        self._index.index(tokens, show_progress=False)
        self._sets = [frozenset(words) for words in tokens]
        self._count: dict[str, int] = {}
        for words in self._sets:
            for word in words:
                self._count[word] = self._count.get(word, 0) + 1

    def find(self, question: str) -> Passage | None:
        """The passage that answers best, or none if no word of the question stands in any."""
        words = list(dict.fromkeys(content(question[:1000])))[:60]
        known = [word for word in words if word in self._count]
        if not known:
            return None
        best = int(np.argmax(self._index.get_scores(known)))
        weights = {word: self._weight(word) for word in words}
        covered = sum(weight for word, weight in weights.items() if word in self._sets[best])
        text, source = self._passages[best]
        return Passage(_sentences(text, frozenset(words)), source, covered / sum(weights.values()))

    def _weight(self, word: str) -> float:
        return float(np.log1p(len(self._passages) / (self._count.get(word, 0) + 0.5)))


def source_name(path: Path) -> str:
    """garden_notes.txt -> garden notes."""
    return re.sub(r"[_\-.]+", " ", path.stem).strip()


def passages(text: str) -> list[str]:
    """Paragraphs; a heading goes with what follows it, a long paragraph is cut between sentences."""
    found, heading = [], ""
    for block in re.split(r"\n\s*\n", text):
        block = block.strip()
        if not block:
            continue
        first, _, rest = block.partition("\n")
        if re.match(r"#{1,6} ", first) or re.fullmatch(r"[=\-~^]{3,}", rest.strip()):
            heading = re.sub(r"^#+ ", "", first).strip()
            block = "" if re.fullmatch(r"[=\-~^]{3,}", rest.strip()) else rest.strip()
        part: list[str] = []
        for sentence in re.split(r"(?<=[.?!])\s+", block):
            for words in _cut(sentence.split(), 2 * _WORDS):
                if part and sum(len(one.split()) for one in part) + len(words) > _WORDS:
                    found.append(_with(heading, part))
                    part = []
                part.append(" ".join(words))
        if any(part):
            found.append(_with(heading, part))
    return found


def _cut(words: list[str], most: int) -> list[list[str]]:
    return [words[start : start + most] for start in range(0, len(words), most)] or [[]]


def _with(heading: str, part: list[str]) -> str:
    return f"{heading}. {' '.join(part)}" if heading else " ".join(part)


def _sentences(text: str, words: frozenset[str]) -> str:
    """From the sentence that shares most with the question, two sentences."""
    parts = re.split(r"(?<=[.?!])\s+", text)
    shared = [len(words & set(content(part))) for part in parts]
    best = shared.index(max(shared))
    return " ".join(parts[best : best + 2])


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", errors="replace").replace("\x00", " ")
    except OSError as error:
        raise ConfigError(f"knowledge: cannot read {path}: {error}") from error
