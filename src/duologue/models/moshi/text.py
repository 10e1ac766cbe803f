"""The pieces of text that Moshi thinks in: ids to text as it comes, and text to ids for prompts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from duologue.codecs.text import load_tokenizer
from duologue.errors import CheckpointError

SPACE = "▁"  # what SentencePiece writes for a space


class Pieces:
    """Text by its pieces.

    Args:
        pieces: the bytes of each id, a leading space among them.
        encode: text to ids.
        silent: ids that stand for no text: paddings.
    """

    def __init__(self, pieces: Sequence[bytes], encode: Callable[[str], list[int]], *, silent: Sequence[int] = ()):
        self._pieces, self._encode, self._silent = pieces, encode, frozenset(silent)

    def __len__(self) -> int:
        return len(self._pieces)

    def speaks(self, token: int) -> bool:
        """Whether it stands for text."""
        return 0 <= token < len(self._pieces) and token not in self._silent

    def begins(self, token: int) -> bool:
        """Whether a word begins with it."""
        return self.speaks(token) and self._pieces[token].startswith(b" ")

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; nothing is added."""
        return self._encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, as far as it is whole characters."""
        return b"".join(self._pieces[token] for token in ids if self.speaks(token)).decode("utf-8", errors="ignore")


def load_pieces(path: Path, *, silent: Sequence[int] = ()) -> Pieces:
    """Reads a SentencePiece file (`*.model`), or a `tokenizer.json`.

    Args:
        silent: ids that stand for no text.
    Raises:
        CheckpointError: no such file, or not a tokenizer; or `sentencepiece` is not installed.
    """
    path = Path(path)
    return _from_tokenizers(path, silent) if path.suffix == ".json" else _from_sentencepiece(path, silent)


def _from_sentencepiece(path: Path, silent: Sequence[int]) -> Pieces:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise CheckpointError(
            f"{path}: the package `sentencepiece` is needed to read it: pip install sentencepiece"
        ) from error
    try:
        model = SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot read the tokenizer ({error})") from error

    def piece(token: int) -> bytes:
        text = model.id_to_piece(token)
        if model.is_byte(token):  # "<0xE2>"
            return bytes([int(text[3:-1], 16)])
        unspoken = model.is_control(token) or model.is_unknown(token)
        return b"" if unspoken else text.replace(SPACE, " ").encode()

    return Pieces([piece(token) for token in range(model.vocab_size())], model.encode, silent=silent)


def _from_tokenizers(path: Path, silent: Sequence[int]) -> Pieces:
    tokenizer = load_tokenizer(path)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    special = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    pieces = [b""] * (1 + max(vocabulary.values(), default=-1))
    byte_level = "ByteLevel" in type(tokenizer.decoder).__name__
    for text, token in vocabulary.items():
        if token not in special:
            pieces[token] = _byte_level(text) if byte_level else text.replace(SPACE, " ").encode()
    return Pieces(pieces, lambda text: tokenizer.encode(text, add_special_tokens=False).ids, silent=silent)


def _byte_level(text: str) -> bytes:
    return b"".join(bytes([_BYTES[letter]]) if letter in _BYTES else letter.encode() for letter in text)


def _letters() -> dict[str, int]:
    """GPT-2's letters for bytes: those that can be printed stand for themselves, the others follow from 256."""
    printed = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = itertools.count(256)
    return {chr(byte if byte in printed else next(others)): byte for byte in range(256)}


_BYTES = _letters()
