"""Text tokenizers: a thin layer over `tokenizers`, built from what a checkpoint carries."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from duologue.errors import CheckpointError

# How GPT-2 (and Whisper, and SmolLM2) cut text before merging bytes.
_GPT2_CUT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: str  # system | user | assistant
    content: str


class TextCodec:
    """Text to token ids and back, and the ChatML frame of a conversation."""

    def __init__(self, tokenizer: Tokenizer, *, end_of_text: int, turn_begin: int | None = None, turn_end: int):
        self.tokenizer = tokenizer
        self.end_of_text, self.turn_begin, self.turn_end = end_of_text, turn_begin, turn_end

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; nothing is added."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def token(self, index: int) -> str:
        """The text of one token, its leading space kept."""
        return self.tokenizer.decode([index], skip_special_tokens=False)

    def stops(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        return (self.turn_end, self.end_of_text)

    def chat(self, messages: Sequence[Message], *, answer: bool = True) -> list[int]:
        """ChatML ids of a conversation, ready for the assistant to answer."""
        ids: list[int] = []
        for message in messages:
            ids += self.open_turn(message.role) + self.encode(message.content) + self.close_turn()
        return ids + self.open_turn("assistant") if answer else ids

    def open_turn(self, role: str) -> list[int]:
        """Ids that begin a turn of `role`."""
        return self.encode(f"<|im_start|>{role}\n")

    def close_turn(self) -> list[int]:
        """Ids that end a turn."""
        return self.encode("<|im_end|>\n")


def byte_level_bpe(
    tokens: Sequence[str], merges: Sequence[str], *, special: Sequence[int] = (), split_digits: bool = False
) -> Tokenizer:
    """A GPT-2-style byte-level BPE tokenizer.

    Args:
        merges: pairs in rank order, each "left right".
        special: ids that are matched whole in the text (control tokens).
        split_digits: every digit is a token of its own (SmolLM2).
    """
    vocab = {token: index for index, token in enumerate(tokens)}
    pairs = [(left, right) for left, right in (merge.split(" ", 1) for merge in merges)]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    cuts: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.Digits(individual_digits=True)] if split_digits else []
    cuts += [
        pre_tokenizers.Split(Regex(_GPT2_CUT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(tokens[index], special=True) for index in special])
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads a `tokenizer.json`.

    Raises:
        CheckpointError: no such file, or not a tokenizer.
    """
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{path}: cannot read the tokenizer ({error})") from error


def shared(sequences: Sequence[Sequence[int]]) -> int:
    """How many items all sequences begin with."""
    return sum(1 for _ in itertools.takewhile(lambda items: len(set(items)) == 1, zip(*sequences, strict=False)))
