"""The listening half of the family: a buffer for what the user says, and the ways of hearing it.

`Ear` keeps the audio of the turn, hears it again from time to time while the user speaks, and once more at the end.
What is heard becomes embeddings for the language model through a `Hearing`: they differ in the listener alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from duologue.audio.features import SAMPLE_RATE, log_mel
from duologue.codecs.text import TextCodec, shared
from duologue.errors import ConfigError
from duologue.models.llama_omni.adapter import EmbeddingScale, ReadoutAdapter, Speller, StackingAdapter
from duologue.models.llama_omni.ctc_listener import CtcListener
from duologue.models.llama_omni.listener import Heard, Listener
from duologue.models.whisper import WhisperEncoder
from duologue.nn.transformer import Transformer
from duologue.streaming.state import State

SHORTEST = 3200  # samples: what is shorter than 0.2 s is heard with silence after it
_WORDS_BEFORE, _WORDS_AFTER = 16, 4  # tokens round a difference that the language model looks at
QUIET = 1e-4  # peak below which nothing can have been said


@dataclass(frozen=True)
class Part:
    """What was heard in one pass: `counts_B` embeddings a row, and the pieces that were written (-1: padding)."""

    live_B: Tensor
    embeddings_BTD: Tensor
    counts_B: Tensor
    pieces_BT: Tensor
    end_state_BD: Tensor | None = None  # the listener's state at the end, and the end's log-probability: `Heard`'s
    end_log_prob_B: Tensor | None = None


class Hearing(Protocol):
    """Audio from its beginning to embeddings for the language model."""

    drafts: bool  # True: hearing a part of the audio makes hearing the whole cheaper

    def hear(
        self,
        audio_BN: Tensor,
        samples_B: Tensor,
        draft_BT: Tensor,
        first_B: Tensor,
        llm: Transformer,
        *,
        hasty: bool,
        expected: Sequence[str] = (),
    ) -> Part:
        """Hears each row's first samples.

        Args:
            draft_BT: what an earlier pass wrote, padded with -1.
            first_B: the turn begins with this audio.
            llm: embeds tokens, and knows which sentence is likelier.
            hasty: it will be heard again with what follows.
            expected: sentences that are likelier than others; for a listener that writes.
        """
        ...

    def text(self, pieces: list[int]) -> str:
        """The transcript; empty where the listener writes none."""
        ...

    def parts(self) -> dict[str, nn.Module]:
        """Its encoder and its adapter, by these names."""
        ...

    def replace_part(self, name: str, part: Any) -> None:
        """Puts another one in; the caller has checked that it fits."""
        ...


def _check_mode(mode: str) -> None:
    if mode not in ("states", "text"):
        raise ConfigError(f"listen: need 'states' or 'text', got {mode!r}")


class RecogniserHearing:
    """mini's: the recogniser's decoder states through the adapter, or, as the baseline, its words as text."""

    drafts = True

    def __init__(
        self, listener: Listener, adapter: ReadoutAdapter, tokenizer: Tokenizer, codec: TextCodec, *, mode: str
    ):
        _check_mode(mode)
        self.listener, self.adapter, self.tokenizer, self.codec, self.mode = listener, adapter, tokenizer, codec, mode
        self._scale = EmbeddingScale()
        self.speller = Speller(tokenizer, codec, vocab_size=listener.config.end + 1)
        self._pieces = functools.lru_cache(maxsize=1024)(
            lambda sentence: tokenizer.encode(" " + sentence, add_special_tokens=False).ids
        )

    def hear(
        self,
        audio_BN: Tensor,
        samples_B: Tensor,
        draft_BT: Tensor,
        first_B: Tensor,
        llm: Transformer,
        *,
        hasty: bool,
        expected: Sequence[str] = (),
    ) -> Part:
        prefer = functools.partial(self._opinion, llm) if self.mode == "states" else None
        heard = self.listener.hear(
            audio_BN, samples_B, draft_BT, hasty=hasty, prefer=prefer, expected=[self._pieces(s) for s in expected]
        )
        spelt = self.speller(heard, first_B)
        if self.mode == "states":
            embeddings_BTD = self.adapter(spelt, llm.embedding, scale=self._scale(llm.embedding))
        else:
            embeddings_BTD = llm.embedding(spelt.ids_BT.clamp(min=0))
        ends = (heard.end_state_BD, heard.end_log_prob_B)
        return Part(samples_B > 0, embeddings_BTD, spelt.counts_B, heard.ids_BT, *ends)

    def _opinion(self, llm: Transformer, choices: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        """How likely it is that a user says each of some sentences (`listener.Prefer`)."""
        lists = [
            self._differing([self.codec.encode(self.text(list(pieces)).strip()) for pieces in each]) for each in choices
        ]
        opening = [*self.codec.close_turn(), *self.codec.open_turn("user")]
        rows = [opening + ids for each in lists for ids in each]
        counts_B = torch.tensor([len(row) for row in rows])
        ids_BT = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        live_B = torch.ones(len(rows), dtype=torch.bool)
        hidden_BTD = llm(llm.embedding(ids_BT), llm.init_state(*ids_BT.shape), live_B, counts_B)[
            :, len(opening) - 1 : -1
        ]
        next_BT = ids_BT[:, len(opening) :]
        log_prob_BT = llm.logits(hidden_BTD).float().log_softmax(-1).gather(2, next_BT[..., None])[..., 0]
        inside_BT = torch.arange(next_BT.shape[1]) < counts_B[:, None] - len(opening)
        found = iter((log_prob_BT * inside_BT).sum(1).tolist())
        return [[next(found) for _ in each] for each in lists]

    def _differing(self, sentences: list[list[int]]) -> list[list[int]]:
        """What differs, with some words around it; the end of the turn is a word like the others."""
        sentences = [[*ids, *self.codec.close_turn()[:1]] for ids in sentences]
        before = max(0, shared(sentences) - _WORDS_BEFORE)
        after = max(0, shared([ids[before:][::-1] for ids in sentences]) - _WORDS_AFTER)
        return [ids[before : len(ids) - after] for ids in sentences]

    def text(self, pieces: list[int]) -> str:
        return self.tokenizer.decode([piece for piece in pieces if piece >= 0])

    def parts(self) -> dict[str, nn.Module]:
        return {"encoder": self.listener, "adapter": self.adapter}

    def replace_part(self, name: str, part: Any) -> None:
        setattr(self, "listener" if name == "encoder" else name, part)


class CtcHearing:
    """The paper's form at mini's size: encoder and stacking adapter, aligned by CTC, so that tokens come out of it."""

    drafts = False

    def __init__(self, listener: CtcListener, adapter: ReadoutAdapter, codec: TextCodec, *, mode: str):
        _check_mode(mode)
        self.listener, self.adapter, self.codec, self.mode = listener, adapter, codec, mode
        self._scale = EmbeddingScale()

    def hear(
        self,
        audio_BN: Tensor,
        samples_B: Tensor,
        draft_BT: Tensor,
        first_B: Tensor,
        llm: Transformer,
        *,
        hasty: bool,
        expected: Sequence[str] = (),
    ) -> Part:
        heard = self.listener.hear(audio_BN, samples_B, llm.embedding)
        if not bool(first_B.all()):
            heard = self._go_on(heard, ~first_B)
        if self.mode == "states":
            embeddings_BTD = self.adapter(heard, llm.embedding, scale=self._scale(llm.embedding))
        else:
            embeddings_BTD = llm.embedding(heard.ids_BT.clamp(min=0))
        return Part(samples_B > 0, embeddings_BTD, heard.counts_B, heard.ids_BT)

    @functools.cached_property
    def _spaced(self) -> Tensor:
        """For each token, the one with a space before it, where there is such a one."""
        size, tokenizer = self.listener.config.ctc.vocab_size, self.codec.tokenizer
        texts = tokenizer.decode_batch([[index] for index in range(size)], skip_special_tokens=True)
        longer = tokenizer.encode_batch([" " + text for text in texts], add_special_tokens=False)
        found = torch.arange(size)
        for index, (text, encoding) in enumerate(zip(texts, longer, strict=True)):
            if text[:1].isalnum() and len(encoding.ids) == 1:
                found[index] = encoding.ids[0]
        return found

    def _go_on(self, heard: Heard, rows_B: Tensor) -> Heard:
        """A turn goes on in these rows: their first word has a space before it."""
        ids_BT, guess_ids_BTK = heard.ids_BT.clone(), heard.guess_ids_BTK.clone()
        first = ids_BT[rows_B, :1]
        ids_BT[rows_B, :1] = torch.where(first >= 0, self._spaced[first.clamp(min=0)], first)
        guess_ids_BTK[rows_B, :1] = self._spaced[guess_ids_BTK[rows_B, :1]]
        return replace(heard, ids_BT=ids_BT, guess_ids_BTK=guess_ids_BTK)

    def text(self, pieces: list[int]) -> str:
        return self.codec.decode([piece for piece in pieces if piece >= 0])

    def parts(self) -> dict[str, nn.Module]:
        return {"encoder": self.listener, "adapter": self.adapter}

    def replace_part(self, name: str, part: Any) -> None:
        setattr(self, "listener" if name == "encoder" else name, part)


class StackingHearing:
    """The release's: encoder frames side by side through two layers. Always the same number of embeddings if padded.

    Args:
        pad_samples: the audio is filled up with silence to this length (30 s in the release); None: not at all.
    """

    drafts = False

    def __init__(self, encoder: WhisperEncoder, adapter: StackingAdapter, *, pad_samples: int | None):
        self.encoder, self.adapter, self.pad_samples = encoder, adapter, pad_samples

    def hear(
        self,
        audio_BN: Tensor,
        samples_B: Tensor,
        draft_BT: Tensor,
        first_B: Tensor,
        llm: Transformer,
        *,
        hasty: bool,
        expected: Sequence[str] = (),
    ) -> Part:
        live_B = samples_B > 0
        if self.pad_samples is not None:
            audio_BN = F.pad(audio_BN, (0, self.pad_samples - audio_BN.shape[1]))
            samples_B = torch.full_like(samples_B, self.pad_samples)
        features_BMT, frames_B = log_mel(audio_BN, samples_B, num_mels=self.encoder.config.num_mels)
        encoded_BTD, steps_B = self.encoder(features_BMT.to(self.encoder.conv1.weight.dtype), frames_B)
        embeddings_BTD, counts_B = self.adapter(encoded_BTD, steps_B)
        nothing_BT = torch.full(embeddings_BTD.shape[:2], -1)
        return Part(live_B, embeddings_BTD, counts_B, nothing_BT)

    def text(self, pieces: list[int]) -> str:
        return ""

    def parts(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "adapter": self.adapter}

    def replace_part(self, name: str, part: Any) -> None:
        setattr(self, name, part)


@dataclass
class EarState(State):
    audio_BN: Tensor  # of the segment that is not read yet
    samples_B: Tensor
    passed_B: Tensor  # samples that were heard in the last pass
    draft_BT: Tensor  # pieces of the last pass plus one
    pieces_BT: Tensor  # pieces of the turn's finished segments plus one
    kept_B: Tensor  # how many of those
    written_B: Tensor  # embeddings of the turn's finished segments


@dataclass(frozen=True, kw_only=True)
class EarOptions:
    """When to hear."""

    longest: float = 28.0  # seconds heard at once; longer questions are read in segments
    again: float = 0.96  # seconds of new audio before the next pass
    pieces: int = 224  # word pieces of one segment
    turn_pieces: int = 4096  # of a whole turn's transcript


class Ear:
    """Keeps and hears the turns of many users."""

    def __init__(self, hearing: Hearing, options: EarOptions | None = None):
        self.hearing, self.options = hearing, options or EarOptions()
        self.capacity = round(self.options.longest * SAMPLE_RATE)

    def init_state(self, slots: int) -> EarState:
        """Nothing heard yet."""
        counts = [torch.zeros(slots, dtype=torch.int64) for _ in range(4)]
        return EarState(
            audio_BN=torch.zeros(slots, self.capacity),
            samples_B=counts[0],
            passed_B=counts[1],
            draft_BT=torch.zeros(slots, self.options.pieces, dtype=torch.int64),
            pieces_BT=torch.zeros(slots, self.options.turn_pieces, dtype=torch.int64),
            kept_B=counts[2],
            written_B=counts[3],
        )

    def listen(self, state: EarState, audio_BN: Tensor, live_B: Tensor, llm: Transformer) -> Part | None:
        """Keeps one tick. Gives what is to be read already when a segment is full, else None."""
        tick = audio_BN.shape[1]
        full_B = live_B & (state.samples_B + tick > self.capacity)
        part = self._close_segment(state, full_B, llm) if bool(full_B.any()) else None
        for slot in live_B.nonzero()[:, 0].tolist():
            begin = int(state.samples_B[slot])
            state.audio_BN[slot, begin : begin + tick] = audio_BN[slot]
        state.samples_B += live_B.long() * tick
        due_B = live_B & (state.samples_B - state.passed_B >= self.options.again * SAMPLE_RATE)
        if self.hearing.drafts and bool(due_B.any()):
            self._keep_draft(state, self._hear(state, due_B, state.samples_B, llm, hasty=True))
        return part

    def finish(self, state: EarState, live_B: Tensor, llm: Transformer) -> Part:
        """Hears what is left of the turn. It is kept: the turn may go on after all."""
        part = self._hear(state, live_B, state.samples_B, llm)
        self._keep_draft(state, part)
        return part

    def overhear(self, audio_N: Tensor, llm: Transformer, expected: Sequence[str] = ()) -> str:
        """The words in a piece of audio that belongs to no turn; see `Hearing.hear`."""
        state, live_B = self.init_state(1), torch.tensor([True])
        state.audio_BN[0, : len(audio_N)] = audio_N[: self.capacity]
        state.samples_B[0] = min(len(audio_N), self.capacity)
        self._keep_draft(state, self._hear(state, live_B, state.samples_B, llm, expected, hasty=True))
        return self.text(state, 0)

    def text(self, state: EarState, slot: int) -> str:
        """The transcript of the turn so far."""
        pieces = state.pieces_BT[slot, : int(state.kept_B[slot])].tolist() + state.draft_BT[slot].tolist()
        return self.hearing.text([piece - 1 for piece in pieces if piece > 0])

    def _hear(
        self,
        state: EarState,
        live_B: Tensor,
        samples_B: Tensor,
        llm: Transformer,
        expected: Sequence[str] = (),
        *,
        hasty: bool = False,
    ) -> Part:
        """Hears the first samples of live slots. Others, and those that are silent, come back with nothing."""
        loud_B = state.audio_BN.abs().amax(1) > QUIET
        hear_B = live_B & loud_B & (samples_B > 0)
        slots = len(live_B)
        rows = hear_B.nonzero()[:, 0]
        if len(rows) == 0:
            empty = torch.zeros(slots, 0, llm.config.dim)
            return Part(live_B, empty, torch.zeros(slots, dtype=torch.long), torch.zeros(slots, 0, dtype=torch.long))
        longest = max(int(samples_B[rows].max()), SHORTEST)
        draft_BT = state.draft_BT[rows] - 1
        draft_BT = draft_BT[:, : int((draft_BT >= 0).sum(1).max())]
        mask_BN = torch.arange(longest) < samples_B[rows, None]
        part = self.hearing.hear(
            state.audio_BN[rows, :longest] * mask_BN,
            samples_B[rows].clamp(min=SHORTEST),
            draft_BT,
            state.written_B[rows] == 0,
            llm,
            hasty=hasty,
            expected=expected,
        )
        embeddings = part.embeddings_BTD.new_zeros(slots, *part.embeddings_BTD.shape[1:])
        embeddings[rows] = part.embeddings_BTD
        counts_B = torch.zeros(slots, dtype=torch.long)
        counts_B[rows] = part.counts_B
        pieces_BT = torch.full((slots, part.pieces_BT.shape[1]), -1)
        pieces_BT[rows] = part.pieces_BT
        ends = [_spread(value, rows, slots) for value in (part.end_state_BD, part.end_log_prob_B)]
        return Part(live_B, embeddings, counts_B, pieces_BT, *ends)

    def _keep_draft(self, state: EarState, part: Part) -> None:
        width = min(part.pieces_BT.shape[1], self.options.pieces)
        state.draft_BT[part.live_B] = 0
        state.draft_BT[part.live_B, :width] = (part.pieces_BT[:, :width] + 1)[part.live_B]
        state.passed_B[part.live_B] = state.samples_B[part.live_B]

    def _close_segment(self, state: EarState, full_B: Tensor, llm: Transformer) -> Part:
        """Reads a full segment up to its quietest place near the end; the rest stays."""
        cut_B = torch.zeros_like(state.samples_B)
        for slot in full_B.nonzero()[:, 0].tolist():
            cut_B[slot] = quietest(state.audio_BN[slot, : int(state.samples_B[slot])])
        part = self._hear(state, full_B, cut_B, llm)
        for slot in full_B.nonzero()[:, 0].tolist():
            pieces = part.pieces_BT[slot][part.pieces_BT[slot] >= 0] + 1
            begin = int(state.kept_B[slot])
            pieces = pieces[: self.options.turn_pieces - begin]
            state.pieces_BT[slot, begin : begin + len(pieces)] = pieces
            state.kept_B[slot] += len(pieces)
            cut, end = int(cut_B[slot]), int(state.samples_B[slot])
            rest = state.audio_BN[slot, cut:end].clone()
            state.audio_BN[slot] = 0
            state.audio_BN[slot, : len(rest)] = rest
            state.samples_B[slot] = len(rest)
        state.passed_B[full_B] = 0
        state.draft_BT[full_B] = 0
        state.written_B += torch.where(full_B, part.counts_B, 0)
        return part


def _spread(value_R: Tensor | None, rows_R: Tensor, slots: int) -> Tensor | None:
    """Rows back to their slots."""
    return None if value_R is None else value_R.new_zeros(slots, *value_R.shape[1:]).index_copy_(0, rows_R, value_R)


def quietest(audio_N: Tensor, *, within: float = 8.0, window: float = 0.1) -> int:
    """Where to cut: the middle of the quietest window in the last seconds, in samples."""
    size, begin = round(window * SAMPLE_RATE), max(0, len(audio_N) - round(within * SAMPLE_RATE))
    tail = audio_N[begin:]
    energy = tail[: len(tail) // size * size].view(-1, size).square().mean(1)
    return begin + int(energy.argmin()) * size + size // 2
