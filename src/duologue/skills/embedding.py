"""Texts as vectors, so that likeness is an inner product. A language model's own embeddings fit the same protocol."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

_MOST_CHARACTERS = 2_000


class Embed(Protocol):
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """One row a text, of length one (all zeros for an empty text)."""
        ...


class CharacterGrams:
    """Hashed counts of three to five letters inside words: forgiving where a recogniser was a letter off."""

    def __init__(self, size: int = 4096):
        self.size = size

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), self.size), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"[a-z0-9]+", text[:_MOST_CHARACTERS].lower()):
                padded = f" {word} "
                for length in (3, 4, 5):
                    for start in range(len(padded) - length + 1):
                        row[zlib.crc32(padded[start : start + length].encode()) % self.size] += 1.0
            np.sqrt(row, out=row)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(norms > 0, norms, 1.0)
