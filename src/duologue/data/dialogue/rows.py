"""Conversations as training rows of a full-duplex model: stretches of both channels with the assistant's text beside.

for row in duplex_rows(conversation, encode=tokenizer.encode, seconds=100.0):
    codes = codec.encode(row.audio_CN)  # both channels, frame by frame; then `row.text_T` goes on top
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from duologue.data.dialogue.channels import FRAME
from duologue.data.dialogue.clips import RATE
from duologue.data.dialogue.manifest import Conversation
from duologue.data.dialogue.texts import ASSISTANT
from duologue.data.interleave import END_OF_PAD, PAD, UNKNOWN, interleave, window
from duologue.errors import ConfigError


@dataclass(frozen=True)
class DuplexRow:
    """A stretch of a conversation, T frames of 80 ms. Frames from `known` on are past its end: silent, text unknown."""

    text_T: np.ndarray  # int64: the assistant's inner monologue
    audio_CN: np.ndarray  # float32 [2, T * 1920] at 24 kHz: the assistant, the user
    known: int


def duplex_rows(
    conversation: Conversation,
    *,
    encode: Callable[[str], Sequence[int]],
    seconds: float,
    pad: int = PAD,
    end_of_pad: int = END_OF_PAD,
    unknown: int = UNKNOWN,
    ahead: float = 0.0,
    with_text: bool = True,
) -> Iterator[DuplexRow]:
    """A conversation in rows of the same length, one behind the other; the last is filled up.

    Args:
        encode: a word to its tokens.
        seconds: of a row; whole frames.
        ahead: as `interleave.interleave`.
        with_text: False leaves all of the text unknown, to train without it.
    Raises:
        ConfigError: rows that are not whole frames.
        DataError: the sound is damaged.
    """
    frames = round(seconds * RATE / FRAME)
    if frames < 1 or abs(frames * FRAME / RATE - seconds) > 1e-6:
        raise ConfigError(f"duplex_rows: need whole frames of {FRAME / RATE} s, got rows of {seconds} s")
    audio_CN, words = conversation.sound(), conversation.words_of(ASSISTANT)
    for start in range(0, audio_CN.shape[1], frames * FRAME):
        piece_CN = audio_CN[:, start : start + frames * FRAME]
        known = -(-piece_CN.shape[1] // FRAME)
        text = interleave(
            window(words, start=start / RATE, seconds=seconds) if with_text else None,
            encode=encode,
            frames=frames,
            known=known,
            frame_rate=RATE / FRAME,
            pad=pad,
            end_of_pad=end_of_pad,
            unknown=unknown,
            ahead=ahead,
        )
        filled_CN = np.pad(piece_CN, ((0, 0), (0, frames * FRAME - piece_CN.shape[1])))
        yield DuplexRow(np.asarray(text, np.int64), filled_CN, known)
