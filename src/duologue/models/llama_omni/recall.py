"""What users have said of themselves, brought back when they ask about it.

A small language model finds nothing that lies some hundred tokens back, and nothing at all of what has left its context
(docs/log.md has the figures). So what a user states is kept as lines of tokens, the newest few; a question that shares
words with one of them is read with that line before it. Extractive: no line was ever thought up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from snowballstemmer import stemmer
from torch import Tensor

from duologue.codecs.text import TextCodec
from duologue.streaming.state import State

LINES = 48  # that are kept of a conversation
TOKENS = 24  # of a line

_SENTENCE = re.compile(r"[^.!?]+[.!?]*")
_OWN = re.compile(r"\b(?:i|i'm|i've|i'll|i'd|me|my|mine|myself|we|we're|us|our|ours)\b")
_KEEP = re.compile(r"(?:please )?(?:remember|note|keep in mind|do not forget|don't forget)\b")
_ASKING = re.compile(
    r"(?:and |but |so |okay |well |now |please |hey |mini )*"
    r"(?:what|who|whose|whom|which|where|when|why|how|is|are|am|was|were|do|does|did|can|could|will|would|should|shall"
    r"|have|has|had|may|might|tell|say|give|show|remind|explain|let|help|make|set|play|turn|i want to know|i wonder)\b"
)
_TO_ME = re.compile(
    r"\b(?:tell|remind|give|show|help|let|teach|for|with|ask) (?:me|us)\b|\bi (?:want|wonder|told|said)\b"
)
_TOLD = re.compile(r"\b(?:remember|told|tell you|said|say|mentioned)\b")
_FROM = re.compile(r"(?<!how )\bcome from\b|(?:\bi am|\bi'm|\bam i|\bwe are) (?:originally )?from\b")
_IDLE_WORDS = (  # they say nothing about what a sentence is of
    "a an the this that these those it its is are was were be been am do does did doing have has had having i me my "
    "mine myself you your yours we us our ours they them their he she his her of to in on at for with about into over "
    "under and or but if so then than as not no yes what which who whom whose when where why how can could will would "
    "shall should may might must please just there here some any say says said want know need like get got give let "
    "lets s t d ll re ve m up out very really too also now again still ever always never today tell told ask remember "
    "remind mention mentioned think thing things good best way make makes go going one kind sort much many hi hello "
    "hey okay ok well mini"
)
_IDLE = frozenset(_IDLE_WORDS.split())
_ALIKE = (
    "name called call named",
    "work job living occupation profession employed",
    "live home address reside",
    "born birthday birth",
    "old age",
)


@dataclass
class RecallState(State):
    ids_BLT: Tensor  # token ids plus one, 0 behind a line's end; the newest line last


def init_recall(slots: int) -> RecallState:
    return RecallState(torch.zeros(slots, LINES, TOKENS, dtype=torch.int64))


def note(state: RecallState, slot: int, text: str, codec: TextCodec) -> None:
    """Keeps what a user has stated; the oldest lines make room."""
    for statement in statements(text):
        ids = codec.encode(f"{statement} ")[:TOKENS]
        lines_LT = state.ids_BLT[slot]
        lines_LT[:-1] = lines_LT[1:].clone()
        lines_LT[-1] = 0
        lines_LT[-1, : len(ids)] = torch.tensor(ids) + 1


def recall(state: RecallState, slot: int, question: str, codec: TextCodec) -> list[int]:
    """Token ids of the line that answers a question best, to be read before it; none where nothing was said of it."""
    wanted = asked(question)
    if not wanted:
        return []
    best: tuple[float, list[int]] = (0.0, [])
    for row_T in state.ids_BLT[slot].tolist():
        ids = [each - 1 for each in row_T if each]
        words = frozenset(_words(codec.decode(ids)))
        shared = len(wanted & words)
        if 2 * shared < len(wanted):  # it asks mostly of something else
            continue
        score = shared / (len(wanted) * len(words)) ** 0.5
        if score >= best[0]:
            best = score, ids
    return best[1]


def statements(text: str) -> list[str]:
    """The sentences in which a user tells something of themself, or wants it to be remembered."""
    found = []
    for sentence in _sentences(text):
        plain = sentence.lower()
        told = _KEEP.match(plain) or (_OWN.search(plain) and not _ASKING.match(plain))
        if told and not plain.endswith("?") and any(_words(plain)):
            found.append(sentence if sentence[-1] in ".!" else f"{sentence}.")
    return found


def asked(text: str) -> frozenset[str]:
    """What a user asks of themself, as stems; nothing where they ask of something else."""
    found: set[str] = set()
    for sentence in _sentences(text):
        plain = sentence.lower()
        own = _OWN.search(_TO_ME.sub(" ", plain)) or _TOLD.search(plain)
        if own and (plain.endswith("?") or _ASKING.match(plain)):
            found.update(_words(plain))
    return frozenset(found)


def pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids of some rows, [B, T] with zeros behind, and how many of each count."""
    counts_B = torch.tensor([len(row) for row in rows])
    ids_BT = torch.zeros(len(rows), int(counts_B.max()), dtype=torch.int64)
    for padded_T, row in zip(ids_BT, rows, strict=True):
        padded_T[: len(row)] = torch.tensor(row, dtype=torch.int64)
    return ids_BT, counts_B


def _sentences(text: str) -> list[str]:
    return [sentence.strip() for sentence in _SENTENCE.findall(text.replace("’", "'")) if sentence.strip()]


def _words(text: str) -> list[str]:
    text = _FROM.sub(" country ", text.lower())
    words = (word.removesuffix("'s") for word in re.findall(r"[a-z0-9][a-z0-9']*", text))
    return [_stem(word) for word in words if word not in _IDLE and word.partition("'")[0] not in _IDLE]


@lru_cache(maxsize=20_000)
def _stem(word: str) -> str:
    stem = str(_stemmer().stemWord(word))
    return _groups().get(stem, stem)


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    return stemmer("english")


@lru_cache(maxsize=1)
def _groups() -> dict[str, str]:
    """One stem for words that ask for the same."""
    return {_stemmer().stemWord(word): group.split()[0] for group in _ALIKE for word in group.split()}
