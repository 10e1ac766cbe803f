"""Trains a full-duplex model of the family `moshi`: two-channel conversations, one channel, or text alone.

The same task is every stage: text (`text_share=1`), a single stream (`streams="mixed"` or "assistant"), both sides
(`streams="two"`), and the fine-tuning after that; each starts from the model folder that the one before exported.

Source: Defossez et al. 2024, arXiv:2410.00037, sections 3.4 and 4. Not as there: text shares the batches of speech
instead of having its own, and one optimizer; 30 % of text masked is taken to mean that so many rows have no text.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from duologue.checkpoints import save_model
from duologue.codecs.mimi import Mimi
from duologue.data.dialogue.texts import ASSISTANT, USER
from duologue.errors import ConfigError
from duologue.models.moshi.config import ZERO, MoshiConfig
from duologue.models.moshi.generation import Sampling
from duologue.models.moshi.loading import FamilyConfig, folder_parts
from duologue.models.moshi.model import MoshiModel
from duologue.nn.lora import add_lora, lora_layers, merge_lora
from duologue.train import duplex_data
from duologue.train.distributed import to_device
from duologue.train.duplex_data import Rows, Streams, Talk, odds_of
from duologue.train.duplex_losses import LossWeights, Measures, combine, tell
from duologue.train.duplex_start import Beginning, NewModel, begin
from duologue.train.features import to_card
from duologue.train.parts import DTYPES


@dataclass(frozen=True, kw_only=True)
class DuplexTask:
    """Conversations, as codes of both sides and the assistant's words, and texts."""

    data: tuple[str, ...] = ()  # folders of `duologue data dialogue`; may be empty where text_share is 1
    streams: Streams = "two"
    start: str = ""  # a model folder, such as the stage before exported, or a published one; empty: `new`
    new: NewModel = field(default_factory=NewModel)
    codec: str = ""  # a codec folder; empty: that of `start`
    cache: str = ""  # where codes are kept; empty: in the data folders
    hear_delay: int | None = None  # frames; not None: the model also learns to write down what it hears (MoshiConfig)
    heard_drop: float = 0.0  # of the rows, whose heard codebooks from a drawn one on are missing
    unheard: float = 0.0  # of the rows, that lack all of the user's sound: only what the head wrote of it is there
    text_lead: int | None = None  # frames; see MoshiConfig; None: as it was, or 0
    unread: float = 0.2  # of the pieces that the head wrote and the model reads again: so many are missing; 1: all
    misread: float = 0.2  # and so many are wrong
    misspoken: float = 0.0  # of the frames, whose own codes from a drawn one on the model is told to be those of others
    unspoken: float = 0.0  # of the rows, in which it is told nothing of its own sound
    acoustic_delay: int | None = None  # frames between a side's first codebook and the others; None: as it was, or 1
    rows: int = 8  # in a micro-batch
    seconds: float = 30.0  # of a row
    texts: tuple[str, ...] = ()  # folders of conversations, JSONL files; see duplex_data.read_texts
    apart: float = 0.0  # of the rows of two streams, that have one side alone in its place
    text_share: float = 0.0  # of the rows, that are text without sound
    words_share: float = 0.0  # of the rows, that are what both sides of conversations say, without sound
    text_mask: float = 0.0  # of the rows with sound, that have no text
    ahead: tuple[float, float] = (0.0, 0.0)  # seconds of the text before the sound, drawn evenly for each row
    queue: bool = False  # a word waits until the one before it is written out, instead of cutting it off
    depth_share: float = 1.0  # of the frames, drawn, that the depth transformer learns from
    still_share: float = 1.0  # of those of them whose own codes are the same as in the frame before, as in silence
    weights: LossWeights = field(default_factory=LossWeights)
    rank: int = 0  # of low-rank changes to all linear layers, everything else frozen; 0: all weights learn
    alpha: float = 0.0  # of those; 0: twice the rank
    dtype: str = "fp32"  # or bf16, of what is frozen beside them
    sampling: Sampling = field(default_factory=Sampling)  # of the exported model
    held_out: int = 40  # rows of the split dev

    def __post_init__(self):
        shares = [self.apart, self.heard_drop, self.text_share, self.words_share, self.text_mask, self.still_share]
        shares += [self.unheard, self.unread, self.misread, self.misspoken, self.unspoken]
        shares += [self.unread + self.misread, self.text_share + self.words_share]
        if not all(0 <= share <= 1 for share in shares) or not 0 < self.depth_share <= 1:
            raise ConfigError(f"DuplexTask: need shares from 0 to 1, and of depth above 0, got {self}")
        for name in ("apart", "words_share"):
            if getattr(self, name) and self.streams != "two":
                raise ConfigError(f'DuplexTask: {name} is for streams="two", got {self.streams!r}')
        if self.text_share and not self.texts:
            raise ConfigError("DuplexTask: text_share needs texts")
        if self.rows > self.text_rows and not self.data:
            raise ConfigError("DuplexTask: need data; make some with: duologue data dialogue")
        if self.rank and not self.start:
            raise ConfigError("DuplexTask: low-rank changes are for a model that is there; set start, or rank=0")
        if self.dtype not in DTYPES:
            raise ConfigError(f"DuplexTask: dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.ahead[0] > self.ahead[1] or self.rows < 1:
            raise ConfigError(
                f"DuplexTask: need rows from 1, and ahead as (low, high), got {self.rows} and {self.ahead}"
            )

    @property
    def text_rows(self) -> int:
        """Rows of a batch that are text."""
        return round(self.rows * self.text_share)

    @property
    def word_rows(self) -> int:
        """Rows of a batch that are conversations without sound."""
        return round(self.rows * self.words_share)

    def make(self) -> _Conversing:
        """The task."""
        return _Conversing(self)


@dataclass(frozen=True)
class DuplexBatch:
    codes_BKT: Tensor  # text, own, heard; not delayed; ZERO where nothing is known
    heard_BT: Tensor  # what the head for it is to write; ZERO likewise
    written_BT: Tensor  # what of that it reads again
    given_BKT: Tensor  # the codes that it takes to have been said
    read_B: Tensor  # bool: text without sound


@dataclass(frozen=True)
class _Sides:
    """What is kept of `Beginning` beside the model that is trained."""

    config: MoshiConfig
    mimi: Mimi
    tokenizer: bytes
    tokenizer_name: str
    encode: Callable[[str], list[int]]
    family: FamilyConfig


class _Conversing:
    """`DuplexTask` at work."""

    def __init__(self, config: DuplexTask):
        self.config = config
        self._kept: _Sides | None = None

    def _begin(self) -> Beginning:
        c = self.config
        dtype = DTYPES[c.dtype] if c.rank else torch.float32
        made = begin(
            c.new,
            start=c.start,
            codec=c.codec,
            acoustic_delay=c.acoustic_delay,
            hear_delay=c.hear_delay,
            text_lead=c.text_lead,
            dtype=dtype,
        )
        self._kept = _Sides(made.model.config, made.mimi, made.tokenizer, made.tokenizer_name, made.encode, made.family)
        return made

    @property
    def sides(self) -> _Sides:
        if self._kept is None:
            self._begin()
        assert self._kept is not None
        return self._kept

    def build(self) -> nn.Module:
        c, model = self.config, self._begin().model
        if c.rank:
            targets = ("transformer.*", *(["depth.*"] if model.depth is not None else []))
            add_lora(model, rank=c.rank, alpha=c.alpha or 2 * c.rank, targets=targets)
        return model

    @property
    def frames(self) -> int:
        """Of a row."""
        frames = self.config.seconds * self.sides.mimi.config.frame_rate
        if frames < 2 or abs(frames - round(frames)) > 1e-6:
            raise ConfigError(
                f"DuplexTask: need rows of whole frames of {1 / self.sides.mimi.config.frame_rate} s, two or more, "
                f"got {self.config.seconds} s"
            )
        return round(frames)

    @functools.cached_property
    def _rows(self) -> Rows:
        sides = self.sides
        return Rows(
            sides.config,
            streams=self.config.streams,
            encode=sides.encode,
            frame_rate=sides.mimi.config.frame_rate,
            queue=self.config.queue,
        )

    @functools.cached_property
    def _talks(self) -> dict[str, list[Talk]]:
        c = self.config
        mimi = to_card(copy.deepcopy(self.sides.mimi))
        caches = [
            duplex_data.code_folder(
                folder, mimi, mixed=c.streams == "mixed", cache=str(Path(c.cache) / str(number)) if c.cache else ""
            )
            for number, folder in enumerate(c.data)
        ]
        return {split: duplex_data.read_talks(c.data, caches, split) for split in ("train", "dev")}

    @functools.cached_property
    def _odds(self) -> np.ndarray:
        return odds_of(self._talks["train"])

    @functools.cached_property
    def _texts(self) -> tuple[list[list[int]], list[list[int]]]:
        """Pieces of texts to train on and to judge by."""
        sides = self.sides
        train, dev = duplex_data.read_texts(self.config.texts)
        return [sides.encode(text) for text in train], [sides.encode(text) for text in dev]

    def prepare(self) -> None:
        c = self.config
        _ = self.frames
        if c.words_share and self.sides.config.hear_delay is None:
            raise ConfigError("DuplexTask: words_share needs a head for what is heard; set hear_delay")
        if c.data:
            _ = self._talks
        if c.texts:
            _ = self._texts

    def batches(self, seed: int, position: int) -> Iterator[Callable[[], DuplexBatch]]:
        while True:
            yield functools.partial(self._batch, seed, position)
            position += 1

    def _batch(self, seed: int, number: int) -> DuplexBatch:
        c, rng, frames = self.config, np.random.default_rng((seed, 6, number)), self.frames
        rows = [self._rows.of_text(self._texts[0], frames, rng) for _ in range(c.text_rows)]
        heard = [torch.full((frames,), ZERO) for _ in rows]
        for _ in range(c.word_rows):
            row_KT, heard_T = self._rows.of_words(self._talks["train"], self._odds, frames, rng)
            rows.append(row_KT)
            heard.append(heard_T)
        for _ in range(c.rows - len(rows)):
            options: dict[str, Any] = {"ahead": rng.uniform(*c.ahead), "with_text": rng.random() >= c.text_mask}
            place = self._rows.draw(self._talks["train"], self._odds, frames, rng)
            side = str(rng.choice(self._alone(place[0]))) if c.apart and rng.random() < c.apart else ""
            rows.append(self._rows.row(*place, side=side, **options))
            heard.append(self._rows.heard_words(*place, side=side))
            first = 1 + self.sides.config.own_codebooks
            if c.heard_drop and side != ASSISTANT and rng.random() < c.heard_drop:
                rows[-1][first + int(rng.integers(1, self.sides.config.heard_codebooks)) :] = ZERO
            if c.unheard and not side and rng.random() < c.unheard:
                rows[-1][first:] = ZERO
        codes_BKT, heard_BT = torch.stack(rows), torch.stack(heard)
        written_BT = self._misread(heard_BT, rng)
        heard_BT[(codes_BKT[:, 1 + self.sides.config.own_codebooks :] == ZERO).all(1)] = ZERO  # there is no sound of it
        read_B = torch.arange(c.rows) < c.text_rows
        return DuplexBatch(codes_BKT, heard_BT, written_BT, self._misspeak(codes_BKT, rng), read_B)

    def _misspeak(self, codes_BKT: Tensor, rng: np.random.Generator) -> Tensor:
        """Own sound as a model might say it that makes mistakes."""
        c = self.config
        if not (c.misspoken or c.unspoken):
            return codes_BKT
        own, (B, _, T) = self.sides.config.own_codebooks, codes_BKT.shape
        first_BT = np.where(rng.random((B, T)) < c.misspoken, rng.integers(0, own, (B, T)), own)
        wrong_BKT = torch.from_numpy(np.arange(own)[:, None] >= first_BT[:, None])
        codes_BKT, own_BKT = codes_BKT.clone(), codes_BKT[:, 1 : 1 + own]
        own_BKT = torch.where(wrong_BKT, own_BKT[..., torch.from_numpy(rng.permutation(T))], own_BKT)
        own_BKT[torch.from_numpy(rng.random(B) < c.unspoken)] = ZERO
        codes_BKT[:, 1 : 1 + own] = own_BKT
        return codes_BKT

    def _misread(self, heard_BT: Tensor, rng: np.random.Generator) -> Tensor:
        """What is heard, as a head might write it that makes mistakes."""
        c, config = self.config, self.sides.config
        silent_BT = (heard_BT == config.padding_id) | (heard_BT == config.end_padding_id)
        written_BT = torch.where(silent_BT, ZERO, heard_BT)
        place_NP = (written_BT != ZERO).nonzero().numpy()
        luck_N = rng.random(len(place_NP))
        pieces_N = written_BT[tuple(place_NP.T)]
        wrong_N = pieces_N[rng.permutation(len(pieces_N))]
        pieces_N = torch.where(torch.from_numpy(luck_N < c.unread + c.misread), wrong_N, pieces_N)
        pieces_N = torch.where(torch.from_numpy(luck_N < c.unread), ZERO, pieces_N)
        written_BT[tuple(place_NP.T)] = pieces_N
        return written_BT

    def _alone(self, talk: Talk) -> list[str]:
        """The sides that something can be learnt from alone."""
        hears = self.sides.config.hear_delay is not None and bool(talk.words[USER])
        return [USER] * hears + [ASSISTANT] * (bool(talk.words[ASSISTANT]) or not hears)

    def loss(self, module: nn.Module, batch: DuplexBatch) -> tuple[Tensor, dict[str, float | Tensor]]:
        assert isinstance(module, MoshiModel)
        told = tell(
            module,
            batch.codes_BKT,
            batch.heard_BT,
            batch.written_BT,
            batch.given_BKT,
            share=self.config.depth_share,
            still=self.config.still_share,
        )
        return combine(told, batch.read_B, self.config.weights, module.config)

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Rows of held-out conversations, one behind the other, what is heard of users alone (`heard`), and held-out
        texts (`reading`)."""
        assert isinstance(module, MoshiModel)
        c, found = self.config, dict[str, float]()
        rate = self.sides.mimi.config.frame_rate

        def judged(side: str = "") -> dict[str, float]:
            some = itertools.islice(self._rows.all(self._talks["dev"], self.frames), c.held_out)
            both = ((self._rows.row(*p, side=side), self._rows.heard_words(*p, side=side)) for p in some)
            return self._judge(module, both).result(rate)

        if c.rows > c.text_rows:
            alone = {side for talk in self._talks["dev"] for side in self._alone(talk)} if c.apart else set()
            heard = judged(USER) if USER in alone else {}
            spoken = judged(ASSISTANT if c.apart == 1 else "") if ASSISTANT in alone or not alone else {}
            found = spoken | {name: heard[name] for name in ("heard",) if name in heard}
        if c.text_rows:
            rng = np.random.default_rng(0)
            texts = (self._rows.of_text(self._texts[1], self.frames, rng) for _ in range(min(8, c.held_out)))
            read = ((text_KT, torch.full((self.frames,), ZERO)) for text_KT in texts)
            found["reading"] = self._judge(module, read).result(rate)["text"]
        return found

    def _judge(self, module: MoshiModel, rows: Iterator[tuple[Tensor, Tensor]]) -> Measures:
        """What comes of rows, each with what is heard in it."""
        measures, batch = Measures(module.config), list[tuple[Tensor, Tensor]]()
        device = module.text_head.weight.device if isinstance(module.text_head, nn.Linear) else torch.device("cpu")
        for row in rows:
            batch.append(row)
            if len(batch) == self.config.rows:
                self._add(measures, module, batch, device)
                batch = []
        if batch:
            self._add(measures, module, batch, device)
        return measures

    def _add(
        self, measures: Measures, module: MoshiModel, rows: list[tuple[Tensor, Tensor]], device: torch.device
    ) -> None:
        codes_BKT, heard_BT = (to_device(torch.stack(each), device) for each in zip(*rows, strict=True))
        written_BT = torch.full_like(heard_BT, ZERO) if self.config.unread == 1 else None  # as in training
        measures.add(tell(module, codes_BKT, heard_BT, written_BT, hazards=True), codes_BKT)

    def export(self, module: nn.Module, folder: Path) -> None:
        """A model folder of the family `moshi`; low-rank changes are merged in."""
        assert isinstance(module, MoshiModel)
        sides = self.sides
        if any(True for _ in lora_layers(module)):
            module = copy.deepcopy(module)
            merge_lora(module)
        config = replace(
            sides.family,
            language_model=module.config,
            mimi=sides.mimi.config,
            sampling=self.config.sampling,
            dtype=FamilyConfig.dtype,
            device=FamilyConfig.device,
        )
        parts: dict[str, Any] = folder_parts(config, module, sides.mimi, Path(sides.tokenizer_name))
        save_model(folder, **{**parts, "files": {sides.tokenizer_name: sides.tokenizer}})
