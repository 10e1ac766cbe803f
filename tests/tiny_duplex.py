"""A Moshi as a whole that is small and random, but for its codec, which was made to tell sounds apart."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from tiny_mimi import CONFIG, moshi_mimi, moshi_tensors
from tiny_moshi import TINY, ours, reference

from duologue.codecs.mimi import Mimi, MimiConfig
from duologue.codecs.mimi_weights import mimi_from_tensors
from duologue.models.moshi.family import Moshi
from duologue.models.moshi.text import Pieces

RAW = {**TINY, "card": CONFIG.quantizer.codebook_size, "context": 40}
CODEC = replace(CONFIG, num_codebooks=3)
TEXT = "a model that speaks, and hears; spoken words and the words that were heard. café naïve"


@cache
def reference_codec() -> torch.nn.Module:
    torch.manual_seed(1)
    return moshi_mimi(CODEC)


def codec(config: MimiConfig = CODEC) -> Mimi:
    return mimi_from_tensors(moshi_tensors(reference_codec()), config, where="test")


def pieces() -> Pieces:
    """Ids from 5 on are letters."""
    letters = [b""] * 5 + [f" {chr(97 + number)}".encode() for number in range(26)] + [b"x"] * 9
    return Pieces(letters, lambda text: [5 + ord(letter) % 26 for letter in text], silent=(0, 3))


def tiny_duplex(raw: dict | None = None, **options) -> Moshi:
    raw = RAW if raw is None else raw
    return Moshi(ours(raw, reference(raw)), codec(), pieces(), **options)


def sentencepiece_file(folder: Path, *, size: int = 40) -> Path:
    """A tokenizer as the released models have: padding is 3, of 40 pieces."""
    from sentencepiece import SentencePieceTrainer

    path = folder / "tokenizer_spm_32k_3.model"
    SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT] * 4),
        model_prefix=str(path.with_suffix("")),
        vocab_size=size,
        pad_id=3,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return path
