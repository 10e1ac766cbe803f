"""Text from ids that come one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_MOST_IDS, _KEPT_IDS = 64, 16  # ids of a text without an end that are written out together, and that are kept


class Writing:
    """The text of ids, as they come.

    Args:
        decode: ids to text.
        endless: whether it goes on for as long as a conversation, so that what is old has to be let go.
    """

    def __init__(self, decode: Callable[[list[int]], str], *, endless: bool = False):
        self._decode, self._endless = decode, endless
        self._ids: list[int] = []
        self._text = ""

    def add(self, ids: Sequence[int]) -> str:
        """What these add to the text."""
        before, self._ids = self._text, [*self._ids, *ids]
        self._text = self._decode(self._ids)
        more = self._text[len(before) :]
        if self._endless and len(self._ids) > _MOST_IDS:
            del self._ids[:-_KEPT_IDS]
            self._text = self._decode(self._ids)
        return more
