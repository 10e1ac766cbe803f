"""What a full-duplex model learns from: conversations as codes with the words of either side, and plain text.

Each channel is coded once, from the conversation's beginning, and its codes are kept on disk: a second is 12.5 frames
of a few codes. Rows are cut out of them, so that a row from the middle has codes that know what came before.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.codecs.mimi import Mimi
from duologue.data.dialogue.manifest import Conversation, decode_stereo, read_conversations
from duologue.data.dialogue.texts import ASSISTANT, USER
from duologue.data.dialogue.timeline import TURN
from duologue.data.interleave import interleave
from duologue.data.manifest import read_table
from duologue.data.word_times import Word
from duologue.errors import DataError
from duologue.models.moshi.config import ZERO, MoshiConfig
from duologue.train.features import Ragged, RowCache, cached_shards
from duologue.train.parts import fingerprint

Streams = Literal["two", "assistant", "mixed"]  # both sides, a stream each; the assistant alone; both in one stream
KEYS = ("question", "answer", "text")  # of a text file's objects
KEPT = 40  # one text of so many of a file is held out
LASTING = 8.0  # seconds of silence, until its codes stand still
SETTLED = 4  # frames of silence that keep the codes which the encoder gave them
HUSH = 0.2  # of the frames in which nobody's words are written, that are kept where there is no sound
EARLY = 0.25  # of a row's length, by which its drawn beginning may lie before the conversation's: it begins there then


def code_folder(folder: str, mimi: Mimi, *, mixed: bool, cache: str = "") -> RowCache:
    """The codes of a folder's conversations, [T, channels * K] each; shards that are not coded yet are coded now.

    Args:
        mixed: one channel, the sum of both, instead of the assistant's and the user's.
        cache: where they are kept; empty: in the data folder.
    """
    count, coding = mimi.config.num_codebooks, nn.ModuleList([mimi.encoder, mimi.quantizer])  # the decoder may change
    name = f"{'mixed' if mixed else 'settled'}-{count}-{fingerprint(coding)}"
    like = {"codes": torch.zeros(0, (1 if mixed else 2) * count, dtype=torch.int16)}
    quiet = functools.cache(lambda: None if mixed else silence(mimi))  # worked out once, if a shard is to be coded
    return cached_shards(folder, name, lambda shard: _code_shard(shard, mimi, mixed, quiet()), like=like, cache=cache)


def _code_shard(path: Path, mimi: Mimi, mixed: bool, silence_K: Tensor | None) -> dict[str, Ragged]:
    found: dict[str, Ragged] = {}
    for row in read_table(path, columns=["id", "audio"]).to_pylist():
        audio_CN = torch.from_numpy(decode_stereo(row["audio"]))
        if silence_K is None:
            codes_TK = code(mimi, audio_CN.sum(0, keepdim=True).clamp(-1, 1))
        elif audio_CN[0].any():
            codes_TK = code(mimi, audio_CN)
            _settle(codes_TK, audio_CN[0], silence_K)
        else:  # nobody answers
            codes_TK = code(mimi, audio_CN[1:])
            codes_TK = torch.cat([silence_K.expand_as(codes_TK), codes_TK], 1)
        found[row["id"]] = {"codes": codes_TK}
    return found


def silence(mimi: Mimi) -> Tensor:
    """The codes [K] of silence that lasts."""
    frames = math.ceil(LASTING * mimi.config.frame_rate)
    return code(mimi, torch.zeros(1, frames * mimi.config.frame_samples))[-1]


def _settle(codes_TK: Tensor, own_N: Tensor, silence_K: Tensor) -> None:
    """Makes all silence of the assistant's channel the same, in place. For seconds after a word the encoder's codes of
    silence still wander; a model that had to say them would learn that before it learns to speak."""
    quiet_T = (F.pad(own_N, (0, -len(own_N) % len(codes_TK))).view(len(codes_TK), -1) == 0).all(1)
    settled_T = F.pad(quiet_T, (SETTLED, 0)).unfold(0, SETTLED + 1, 1).all(1)
    codes_TK[settled_T, : len(silence_K)] = silence_K


@torch.no_grad()
@torch.autocast("cpu", enabled=False)
@torch.autocast("cuda", enabled=False)
def code(mimi: Mimi, audio_CN: Tensor) -> Tensor:
    """Channels to codes from a stream's beginning, int16 [T, C * K]; the end is filled up with silence."""
    frame, device = mimi.config.frame_samples, next(mimi.encoder.parameters()).device
    audio_CN = F.pad(audio_CN, (0, -audio_CN.shape[1] % frame)).to(device)
    live_C = torch.ones(len(audio_CN), dtype=torch.bool, device=device)
    codes_CKT = mimi.encode(audio_CN, mimi.encoder.init_state(len(audio_CN)), live_C)
    return codes_CKT.flatten(0, 1).T.to(torch.int16).cpu()


@dataclass(frozen=True)
class Talk:
    """One conversation."""

    id: str
    cache: RowCache
    words: dict[str, list[Word]]  # of either role

    @property
    def frames(self) -> int:
        return self.cache.count(self.id)


def read_talks(folders: Sequence[str], caches: Sequence[RowCache], split: str) -> list[Talk]:
    """A split's conversations.

    Raises:
        DataError: there are none.
    """
    found = [
        Talk(row.id, cache, {role: row.words_of(role) for role in (ASSISTANT, USER)})
        for folder, cache in zip(folders, caches, strict=True)
        for row in read_conversations(Path(folder), split=split, columns=("words",))
        if row.id in cache and cache.count(row.id)
    ]
    if not found:
        raise DataError(f"{', '.join(folders)}: no conversation of the split {split!r}; make more of them")
    return found


class Rows:
    """Cuts rows of streams out of conversations.

    Args:
        encode: a word to its pieces.
        queue: a word that is begun is written out, and the next one waits; else the next one cuts it off.
    """

    def __init__(
        self,
        config: MoshiConfig,
        *,
        streams: Streams,
        encode: Callable[[str], Sequence[int]],
        frame_rate: float,
        queue: bool = False,
    ):
        self.config, self.streams, self.frame_rate, self.queue = config, streams, frame_rate, queue
        self.encode = functools.lru_cache(maxsize=1 << 16)(encode)

    def row(
        self,
        talk: Talk,
        begin: int,
        frames: int,
        *,
        ahead: float = 0.0,
        with_text: bool = True,
        side: str = "",
    ) -> Tensor:
        """Text, own and heard codes [1 + codebooks, frames], not delayed; ZERO where nothing is known or heard.

        Args:
            ahead: seconds by which the text comes before the sound.
            with_text: False: nothing is known of the text.
            side: "assistant" or "user": the only one that is there, in its own place; "": both. Of the user alone no
                text is known: what the user says is for `heard_words`.
        """
        c, roles = self.config, (ASSISTANT, USER) if self.streams == "mixed" else (ASSISTANT,)
        words = [word for role in roles for word in talk.words[role]]
        text = interleave(
            words if with_text and side != USER else None,
            encode=self.encode,
            frames=talk.frames,
            frame_rate=self.frame_rate,
            pad=c.padding_id,
            end_of_pad=c.end_padding_id,
            unknown=ZERO,
            ahead=ahead,
            queue=self.queue or bool(c.text_lead),
            lead=c.text_lead / self.frame_rate,
        )
        codes_TK = talk.cache[talk.id]["codes"][begin : begin + frames]
        first = c.own_codebooks if side == USER else 0
        last = c.codebooks if self.streams == "two" and side != ASSISTANT else c.own_codebooks
        row_KT = torch.full((1 + c.codebooks, frames), ZERO)
        row_KT[0, : len(codes_TK)] = torch.tensor(text[begin : begin + frames])
        row_KT[1 + first : 1 + last, : len(codes_TK)] = codes_TK[:, first:last].T
        return row_KT

    def heard_words(self, talk: Talk, begin: int, frames: int, *, side: str = "") -> Tensor:
        """What `MoshiModel.score_heard` is to write in a row's frames, [frames]; ZERO where nothing is known or heard.

        Args:
            side: as `row`.
        """
        delay, text_T = self.config.hear_delay, torch.full((frames,), ZERO)
        if delay is None or self.streams != "two" or side == ASSISTANT:
            return text_T
        text = interleave(
            talk.words[USER],
            encode=self.encode,
            frames=talk.frames,
            frame_rate=self.frame_rate,
            pad=self.config.padding_id,
            end_of_pad=self.config.end_padding_id,
            unknown=ZERO,
            ahead=-delay / self.frame_rate,
            queue=True,
        )
        text_T[: max(0, talk.frames - begin)] = torch.tensor(text[begin : begin + frames])
        return text_T

    def of_words(
        self, talks: Sequence[Talk], odds: np.ndarray, frames: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """What both sides of drawn conversations say, without sound and most of the silence: a row, with what is heard
        in it, as `row` and `heard_words`. Many questions and answers in little room."""
        row_KT, heard_T = torch.full((1 + self.config.codebooks, frames), ZERO), torch.full((frames,), ZERO)
        paddings, filled = torch.tensor([self.config.padding_id, ZERO]), 0
        while filled < frames:
            talk = _any(talks, odds, rng)
            text_2T = torch.stack([self.row(talk, 0, talk.frames)[0], self.heard_words(talk, 0, talk.frames)])
            kept_T = ~torch.isin(text_2T, paddings).all(0) | torch.from_numpy(rng.random(talk.frames) < HUSH)
            text_2T = text_2T[:, kept_T][:, : frames - filled]
            end = filled + text_2T.shape[1]
            row_KT[0, filled:end], heard_T[filled:end] = text_2T
            filled = end
        return row_KT, heard_T

    def draw(
        self, talks: Sequence[Talk], odds: np.ndarray, frames: int, rng: np.random.Generator
    ) -> tuple[Talk, int, int]:
        """A row from anywhere, as the first arguments of `row`; `odds` as `odds_of`."""
        talk = _any(talks, odds, rng)
        return talk, max(0, int(rng.integers(-int(EARLY * frames), max(1, talk.frames - frames + 1)))), frames

    def all(self, talks: Sequence[Talk], frames: int) -> Iterator[tuple[Talk, int, int]]:
        """Every row of every conversation, one after the other, likewise."""
        for talk in talks:
            for begin in range(0, talk.frames, frames):
                yield talk, begin, frames

    def of_text(self, ids: Sequence[Sequence[int]], frames: int, rng: np.random.Generator) -> Tensor:
        """A row of drawn texts without sound: one piece a frame, the padding that announces a word before each text."""
        row_KT, found = torch.full((1 + self.config.codebooks, frames), ZERO), list[int]()
        while len(found) < frames:
            found += [self.config.end_padding_id, *ids[int(rng.integers(len(ids)))]]
        row_KT[0] = torch.tensor(found[:frames])
        return row_KT


def _any(talks: Sequence[Talk], odds: np.ndarray, rng: np.random.Generator) -> Talk:
    return talks[int(np.searchsorted(odds, rng.random()))]


def odds_of(talks: Sequence[Talk]) -> np.ndarray:
    """Sums of the conversations' shares of all frames."""
    counts = np.cumsum([talk.frames for talk in talks])
    return counts / counts[-1]


def read_texts(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts to train on, and to judge by.

    Args:
        paths: folders of conversations, whose turns are one text each, of their splits train and dev; and JSONL files:
            what an object has under question, answer and text, in this order, every `KEPT`-th of them to judge by.
    Raises:
        DataError: a file that cannot be read, or nothing in one of the two.
    """
    found: tuple[dict[str, None], dict[str, None]] = {}, {}
    for path in map(Path, paths):
        if path.is_dir():
            for split, texts in zip(("train", "dev"), found, strict=True):
                talks = read_conversations(path, split=split, columns=("utterances",))
                texts |= dict.fromkeys(_turns(talk) for talk in talks)
        else:
            for number, text in enumerate(_lines(path)):
                found[number % KEPT == 0].setdefault(text)
    train, dev = ([text for text in texts if text] for texts in found)
    if not train or not dev:
        raise DataError(f"{', '.join(paths) or 'no file'}: there is no text in it, or none to judge by")
    return train, dev


def _turns(talk: Conversation) -> str:
    return " ".join(each.text for each in talk.utterances_made() if each.kind == TURN)


def _lines(path: Path) -> list[str]:
    try:
        objects = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as lines of JSON ({error})") from error
    joined = (" ".join(str(each[key]).strip() for key in KEYS if each.get(key)) for each in objects)
    return [text for text in joined if text and "{" not in text]
