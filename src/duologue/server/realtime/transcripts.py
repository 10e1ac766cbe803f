"""What the listener has written so far, as pieces that never have to be taken back."""

from __future__ import annotations


class Transcript:
    """Gives the words on which two guesses in a row agree; the last word of a guess may still be growing."""

    def __init__(self) -> None:
        self._before: list[str] = []
        self._given: list[str] = []

    def guess(self, text: str) -> str:
        """Takes the next guess at all that was said. Returns what is new and sure."""
        words = text.split()
        agreed = _common(self._before, words[:-1])
        self._before = words
        return self._give(agreed) if agreed[: len(self._given)] == self._given else ""

    def final(self, text: str) -> str:
        """Takes what was said after all. Returns what is left to give; nothing where other words were given before."""
        words = text.split()
        return self._give(words) if words[: len(self._given)] == self._given else ""

    def _give(self, words: list[str]) -> str:
        new = words[len(self._given) :]
        if not new:
            return ""
        space = " " if self._given else ""
        self._given = words
        return space + " ".join(new)


def _common(first: list[str], second: list[str]) -> list[str]:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return second[:count]
