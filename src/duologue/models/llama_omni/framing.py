"""What stands around a question and its answer: the fixed token ids of a conversation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from duologue.codecs.text import Message, TextCodec
from duologue.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Framing:
    """Token ids; what was heard stands between `opening` (later: `next_turn`) and `to_answer`."""

    opening: tuple[int, ...]  # instructions, and the beginning of the first question
    next_turn: tuple[int, ...]  # the end of an answer, and the beginning of the next question
    to_answer: tuple[int, ...]  # the end of a question, and the beginning of its answer
    stops: tuple[int, ...]  # each ends an answer; the first is what the speech decoder is shown as the end
    instruct: Callable[[str], tuple[int, ...]] | None = None  # an `opening` with other instructions
    renew: Callable[[], tuple[int, ...]] | None = None  # the `opening` of today, where it tells the date

    def __post_init__(self):
        if not self.opening or not self.to_answer or not self.stops:
            raise ConfigError("Framing: need ids before the question, ids after it and an id that ends the answer")

    @staticmethod
    def chatml(codec: TextCodec, system: str, *, note: str = "", fill: Callable[[str], str] = str) -> Framing:
        """ChatML, with instructions.

        Args:
            note: what is added to instructions that come in the place of these.
            fill: puts the date into both.
        """
        user = codec.open_turn("user")

        def opening(instructions: str) -> tuple[int, ...]:
            return (*codec.chat([Message("system", instructions)], answer=False), *user)

        def instruct(instructions: str) -> tuple[int, ...]:
            return opening(f"{instructions.strip()}\n{fill(note)}" if note else instructions)

        return Framing(
            opening=opening(fill(system)),
            next_turn=(*codec.close_turn(), *user),
            to_answer=(*codec.close_turn(), *codec.open_turn("assistant")),
            stops=codec.stops(),
            instruct=instruct,
            renew=lambda: opening(fill(system)),
        )
