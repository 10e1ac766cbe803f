"""Words with times to one text token a frame: the inner monologue of a full-duplex model.

    interleave(words, encode=tokenizer.encode, frames=1250)  # 100 s at 12.5 frames a second

A word's tokens begin in the frame in which the word begins, one a frame. Frames without one hold the padding token; the
padding right before a word is another, which says that one is coming. A word that begins before the one before it is
written out cuts that one off. Where nothing is known of the text, the frame holds no token at all.

Source: Moshi (Defossez et al. 2024, arXiv:2410.00037, section 3.4.4); the layout is that of moshi-finetune.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from duologue.data.word_times import Word
from duologue.errors import ConfigError

FRAME_RATE = 12.5  # frames a second
PAD = 3  # nothing is said, or the word that was begun is still being said
END_OF_PAD = 0  # a word begins in the next frame
UNKNOWN = -1  # embeds to zero
BREAK = 1.0  # seconds of silence between two words, with which something new begins


def interleave(
    words: Sequence[Word] | None,
    *,
    encode: Callable[[str], Sequence[int]],
    frames: int,
    known: int | None = None,
    frame_rate: float = FRAME_RATE,
    pad: int = PAD,
    end_of_pad: int = END_OF_PAD,
    unknown: int = UNKNOWN,
    ahead: float = 0.0,
    queue: bool = False,
    lead: float = 0.0,
) -> list[int]:
    """One text token for each of `frames` frames.

    Args:
        words: of one speaker, times in seconds from the first frame, in any order; those that do not last, or are
            over before the first frame, are left out. None: nothing is known of the text.
        encode: a word to its tokens, without a token for the beginning of a text.
        known: frames that the recording covers; those after it are `unknown`.
        ahead: seconds by which the text is moved before the sound. Below 0 it comes after it, and the first frames,
            which would need words from before the recording, are `unknown`.
        queue: a word waits until the one before it is written out, instead of cutting it off.
        lead: seconds by which a word may come before its sound on top of `ahead`, but not before what it belongs to has
            begun, words without a silence of `BREAK` seconds between them. Needs `queue`.
    Raises:
        ConfigError: fewer than 0 frames, a rate that is not above 0, or a lead below 0 or without a queue.
    """
    if frames < 0 or frame_rate <= 0:
        raise ConfigError(f"interleave: need frames from 0 and a rate above 0, got {frames} and {frame_rate}")
    if lead < 0 or (lead and not queue):
        raise ConfigError(f"interleave: need a lead from 0, and words that wait (queue=True) with it, got {lead}")
    if words is None:
        return [unknown] * frames
    row = [pad] * frames
    lasting = sorted((word for word in words if word.end > max(word.start, ahead)), key=lambda word: word.start)
    starts = _leading(lasting, lead) if lead else [word.start for word in lasting]
    begins = [max(0, math.floor((start - ahead) * frame_rate)) for start in starts]
    written = 0  # the first frame that no word has been written to yet
    for number, word in enumerate(lasting):
        begin = max(begins[number], written) if queue else begins[number]
        limit = begins[number + 1] if number + 1 < len(lasting) and not queue else frames
        tokens = list(encode(word.text))[: max(0, min(limit, frames) - begin)]
        if not tokens:
            continue
        row[begin : begin + len(tokens)] = tokens
        if begin and row[begin - 1] == pad:
            row[begin - 1] = end_of_pad
        written = begin + len(tokens)
    if ahead < 0:
        first = min(frames, math.floor(-ahead * frame_rate))
        row[:first] = [unknown] * first
    if known is not None and known < frames:
        row[max(known, 0) :] = [unknown] * (frames - max(known, 0))
    return row


def _leading(words: Sequence[Word], lead: float) -> list[float]:
    """When words that may come early are due."""
    due, first, end = list[float](), 0.0, -math.inf
    for word in words:
        if word.start - end >= BREAK:
            first = word.start
        due.append(max(first, word.start - lead))
        end = word.end
    return due


def window(words: Sequence[Word], *, start: float, seconds: float) -> list[Word]:
    """The words that begin in a stretch of a recording, with their times from its start."""
    return [word.moved(-start) for word in words if start <= word.start < start + seconds]
