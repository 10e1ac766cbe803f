"""mini's listener: a whole recogniser, of which the language model hears the decoder's states, not the words.

While the user speaks, the audio so far is heard again and again, and what was written last time is only a draft: one
pass of the decoder checks it against the new audio, keeps the words on which they agree and goes on from there. So the
last pass, after the end of the turn, writes exactly what hearing the whole at once would write, in a few steps.

Writing is greedy, with second thoughts at the end: where another word was nearly as likely, the sentence is written
again with that word, and the likelier sentence stays. That is most of what a beam search finds (docs/log.md), the
rewritten sentences are drafted by the first one, and a sentence without doubts costs nothing. Between sentences that
sound nearly alike, the language model may have a say (`Prefer`): it is asked about those alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from duologue.audio.features import SAMPLE_RATE, log_mel
from duologue.errors import ConfigError
from duologue.models.whisper import Whisper, WhisperConfig
from duologue.nn.attention import Memory

_MARGIN = 1e-3  # by which a second thought must be likelier: more than rounding differs between batches
_EXPECTED = 24  # most expected sentences that are looked at, those with the likeliest beginnings
_CHOICES = 4  # most sentences that the language model is asked about

Prefer = Callable[[Sequence[Sequence[Sequence[int]]]], Sequence[Sequence[float]]]
"""For several lists of sentences, each its word pieces: how likely each sentence is, as a log-probability that needs to
be comparable within its list only."""


@dataclass(frozen=True, kw_only=True)
class ListenerConfig:
    """The recogniser and its special tokens. Defaults: tiny.en."""

    whisper: WhisperConfig = field(default_factory=WhisperConfig)
    prompt: tuple[int, ...] = (50_257, 50_362)  # start of transcript, no timestamps
    end: int = 50_256
    text_tokens: int = 50_256  # ids below are words; all others but `end` are never written
    candidates: int = 16  # best guesses kept for every word piece
    tokens_per_second: float = 7.0  # nobody speaks faster; bounds what noise can make it write
    second_thoughts: int = 8  # most other sentences that are tried; 0: the first one stays
    doubt: float = 0.03  # a word with at least this probability is worth a try
    close: float = 1.5  # nats behind the likeliest sentence, within which a language model chooses
    trust: float = 0.2  # weight of the language model's log-probability in that choice
    expect: float = 3.0  # nats behind what was written, within which a sentence that was expected is taken for it
    expect_pieces: int = 3  # ... where at most so many word pieces were written

    def __post_init__(self):
        if self.whisper.decoder_layers == 0:
            raise ConfigError("ListenerConfig: the recogniser needs decoder_layers > 0")


@dataclass(frozen=True)
class Heard:
    """What was written for each slot, and what the decoder was thinking as it wrote. Padding is -1 and 0."""

    ids_BT: Tensor  # word pieces
    counts_B: Tensor
    states_BTD: Tensor  # the decoder's state that wrote each piece
    guess_ids_BTK: Tensor  # its best guesses
    guess_probs_BTK: Tensor  # their probabilities, summing to 1
    end_state_BD: Tensor | None = None  # the state that ended the sentence; None: a listener without such a state
    end_log_prob_B: Tensor | None = None  # the end's log-probability there


class Listener(nn.Module):
    """Audio to word pieces and decoder states."""

    def __init__(self, config: ListenerConfig):
        super().__init__()
        self.config = config
        self.whisper = Whisper(config.whisper)

    def encode(self, audio_BN: Tensor, samples_B: Tensor) -> Memory:
        """Encodes each row's first samples, at least 201 of 16 kHz."""
        features_BMT, frames_B = log_mel(audio_BN, samples_B, num_mels=self.config.whisper.num_mels)
        weight = self.whisper.encoder.conv1.weight
        encoded_BTD, steps_B = self.whisper.encoder(features_BMT.to(weight.dtype), frames_B)
        return self.whisper.decoder.remember(encoded_BTD, steps_B)

    def hear(
        self,
        audio_BN: Tensor,
        samples_B: Tensor,
        draft_BT: Tensor | None = None,
        *,
        hasty: bool = False,
        prefer: Prefer | None = None,
        expected: Sequence[Sequence[int]] = (),
    ) -> Heard:
        """Hears each row from its beginning; the same words as without a draft, sooner.

        Args:
            draft_BT: word pieces that an earlier pass wrote, padded with -1.
            hasty: without second thoughts, for what will be heard again.
            prefer: who is asked about sentences that sound nearly alike; None: the sound alone decides.
            expected: sentences of which one is taken where something as short was written that is hardly likelier.
        """
        memory = self.encode(audio_BN, samples_B)
        written = self._write(memory, samples_B, draft_BT)
        if expected:
            written = self._expect(written, memory, samples_B, expected)
        if not hasty and self.config.second_thoughts:
            written = self._reconsider(written, memory, samples_B, prefer)
        return self._report(written)

    def _expect(
        self, written: _Written, memory: Memory, samples_B: Tensor, expected: Sequence[Sequence[int]]
    ) -> _Written:
        """Puts the likeliest of the expected sentences where little was written that is hardly likelier."""
        opening_BV = self._mask(self.whisper.decoder.logits(written.states_BTD[:, 0])).float().log_softmax(-1)
        opening_BS = opening_BV[:, [ids[0] for ids in expected]]  # no whole is likelier than its beginning
        for b, count in enumerate(written.counts_B.tolist()):
            if not 0 < count <= self.config.expect_pieces:
                continue
            least = written.total(b) - self.config.expect
            best_S, order_S = opening_BS[b].topk(min(_EXPECTED, len(expected)))
            likely = [expected[i] for i in order_S[best_S > least].tolist()]
            if likely:
                rows = torch.full((len(likely),), b, device=opening_BS.device)
                kept = Memory(memory.k_BLHTD[rows], memory.v_BLHTD[rows], memory.length_B[rows])
                others = self._teach(kept, likely)
                best = max(range(len(likely)), key=others.total)
                written = written.with_row(b, others, best) if others.total(best) > least else written
        return written

    def _teach(self, memory: Memory, sentences: Sequence[Sequence[int]]) -> _Written:
        """What the decoder thinks as it is made to write these sentences."""
        decoder, device = self.whisper.decoder, memory.length_B.device
        counts_B = torch.tensor([len(ids) for ids in sentences], device=device)
        ids_BT = pad_sequence([torch.tensor(ids, device=device) for ids in sentences], True, padding_value=-1)
        prompt = torch.tensor(self.config.prompt, device=device).expand(len(sentences), -1)
        whole_BT = torch.cat([prompt, ids_BT.clamp(min=0)], dim=1)
        everyone = torch.ones(len(sentences), dtype=torch.bool, device=device)
        cache = decoder.init_state(*whole_BT.shape)
        hidden_BTD = decoder(whole_BT, cache, memory, everyone, prompt.shape[1] + counts_B)
        return self._judge(ids_BT, counts_B, hidden_BTD[:, prompt.shape[1] - 1 :])

    def _write(
        self, memory: Memory, samples_B: Tensor, draft_BT: Tensor | None = None, forced_B: Tensor | None = None
    ) -> _Written:
        """Greedy decoding of encoded audio, from a draft that is checked first.

        Args:
            forced_B: pieces of the draft that stay unchecked.
        """
        decoder, slots, device = self.whisper.decoder, len(samples_B), samples_B.device
        prompt = torch.tensor(self.config.prompt, device=device).expand(slots, -1)
        draft_BT = prompt[:, :0] if draft_BT is None else draft_BT
        room = self.config.whisper.max_target - prompt.shape[1]
        limit_B = (samples_B / SAMPLE_RATE * self.config.tokens_per_second).long().clamp(2, room)
        draft_BT = draft_BT[:, : int(limit_B.max())]
        drafted_B = (draft_BT >= 0).sum(1).minimum(limit_B)
        cache = decoder.init_state(slots, prompt.shape[1] + int(limit_B.max()) + 1)
        everyone = torch.ones(slots, dtype=torch.bool, device=device)
        ids = torch.cat([prompt, draft_BT.clamp(min=0)], dim=1)
        hidden_BTD = decoder(ids, cache, memory, everyone, prompt.shape[1] + drafted_B)[:, prompt.shape[1] - 1 :]
        choice_BT = self._choose(hidden_BTD)
        agreed_BT = (choice_BT[:, :-1] == draft_BT) & (draft_BT >= 0)
        if forced_B is not None:
            agreed_BT = agreed_BT | (torch.arange(draft_BT.shape[1], device=device) < forced_B[:, None])
        kept_B = agreed_BT.long().cumprod(1).sum(1).minimum(limit_B)
        cache.length_B.copy_(prompt.shape[1] + kept_B)

        rows = torch.arange(slots, device=device)
        states = hidden_BTD.new_zeros(slots, int(limit_B.max()) + 1, hidden_BTD.shape[-1])
        states[:, : hidden_BTD.shape[1]] = hidden_BTD
        written = torch.full((slots, states.shape[1]), -1, device=device)
        written[:, : draft_BT.shape[1]] = torch.where(
            torch.arange(draft_BT.shape[1], device=device) < kept_B[:, None], draft_BT, -1
        )
        count_B, next_B = kept_B.clone(), choice_BT[rows, kept_B]
        live_B = (next_B != self.config.end) & (count_B < limit_B)
        while bool(live_B.any()):
            written[rows[live_B], count_B[live_B]] = next_B[live_B]
            count_B = count_B + live_B
            hidden_B1D = decoder(next_B.clamp(min=0)[:, None], cache, memory, live_B)
            states[rows[live_B], count_B[live_B]] = hidden_B1D[live_B, 0]
            next_B = torch.where(live_B, self._choose(hidden_B1D)[:, 0], next_B)
            live_B = live_B & (next_B != self.config.end) & (count_B < limit_B)
        width = int(count_B.max())
        return self._judge(written[:, :width], count_B, states[:, : width + 1])

    def _judge(self, ids_BT: Tensor, counts_B: Tensor, states_BTD: Tensor) -> _Written:
        logits_BTV = self._mask(self.whisper.decoder.logits(states_BTD)).float()
        scale_BT = logits_BTV.logsumexp(-1)
        best_BTK, guess_BTK = logits_BTV.topk(self.config.candidates + 1)
        chosen_BT = F.pad(ids_BT, (0, 1), value=-1).scatter(1, counts_B[:, None], self.config.end)
        score_BT = logits_BTV.gather(2, chosen_BT.clamp(min=0)[..., None])[..., 0] - scale_BT
        score_B = torch.where(chosen_BT >= 0, score_BT, 0).sum(1) / (counts_B + 1)
        end_log_prob_B = score_BT.gather(1, counts_B[:, None])[:, 0]
        return _Written(
            chosen_BT,
            counts_B,
            states_BTD,
            guess_BTK,
            best_BTK - scale_BT[..., None],
            score_B,
            end_log_prob_B,
            torch.zeros_like(chosen_BT, dtype=torch.bool),
        )

    def _reconsider(self, first: _Written, memory: Memory, samples_B: Tensor, prefer: Prefer | None = None) -> _Written:
        """Each row's likeliest sentence among the first one and those with another word at a doubtful place."""
        rows, places, pieces = self._doubts(first)
        if len(rows) == 0:
            return first
        place_T = torch.arange(first.chosen_BT.shape[1], device=rows.device)
        draft_RT = torch.where(place_T == first.counts_B[rows, None], -1, first.chosen_BT[rows])
        draft_RT = torch.where(place_T == places[:, None], pieces[:, None], draft_RT)
        kept = Memory(memory.k_BLHTD[rows], memory.v_BLHTD[rows], memory.length_B[rows])
        others = self._write(kept, samples_B[rows], draft_RT, places + 1)
        found: dict[int, list[int]] = {}
        for index, b in enumerate(rows.tolist()):
            found.setdefault(b, []).append(index)
        choose = self._likeliest if prefer is None else functools.partial(self._preferred, prefer)
        first.decided_BT[rows, places] = True
        others.decided_BT[:] = torch.arange(others.decided_BT.shape[1], device=rows.device) <= places[:, None]
        for b, index in choose(first, others, found).items():
            first = first.with_row(b, others, index)
        return first

    @staticmethod
    def _likeliest(first: _Written, others: _Written, found: dict[int, list[int]]) -> dict[int, int]:
        """Rows whose first sentence is given up, and for which: a word has to be likelier on average."""
        best = {b: max(indices, key=lambda i: float(others.score_B[i])) for b, indices in found.items()}
        return {b: i for b, i in best.items() if others.score_B[i] > first.score_B[b] + _MARGIN}

    def _preferred(
        self, prefer: Prefer, first: _Written, others: _Written, found: dict[int, list[int]]
    ) -> dict[int, int]:
        """As `_likeliest`, by the sum of both opinions on the whole sentence."""
        close: dict[int, dict[tuple[int, ...], tuple[float, int]]] = {}  # row: sentence: how likely, index; -1: first
        for b, indices in found.items():
            choices = {first.sentence(b): (first.total(b), -1)}
            for i in indices:
                choices.setdefault(others.sentence(i), (others.total(i), i))
            least = max(total for total, _ in choices.values()) - self.config.close
            near = sorted(choices.items(), key=lambda item: -item[1][0])[:_CHOICES]
            close[b] = {sentence: choice for sentence, choice in near if choice[0] >= least}
        asked = [b for b, choices in close.items() if len(choices) > 1]
        opinions = dict(zip(asked, prefer([list(close[b]) for b in asked]), strict=True)) if asked else {}
        chosen = {}
        for b, choices in close.items():
            opinion = opinions.get(b, [0.0] * len(choices))
            totals = [
                total + self.config.trust * more for (total, _), more in zip(choices.values(), opinion, strict=True)
            ]
            totals = [total + _MARGIN * (i < 0) for total, (_, i) in zip(totals, choices.values(), strict=True)]
            best = list(choices.values())[totals.index(max(totals))][1]
            if best >= 0:
                chosen[b] = best
        return chosen

    def _doubts(self, written: _Written) -> tuple[Tensor, Tensor, Tensor]:
        """(row, place, piece) of the likeliest words that were not written, the end's place included."""
        choices = min(3, written.guess_BTK.shape[-1])
        guess_BTK, log_prob_BTK = written.guess_BTK[..., :choices], written.log_prob_BTK[..., :choices]
        other_BTK = (guess_BTK != written.chosen_BT[..., None]) & (guess_BTK != self.config.end)
        other_BTK &= (written.chosen_BT >= 0)[..., None] & (log_prob_BTK > math.log(self.config.doubt))
        loss_BTK = (log_prob_BTK - log_prob_BTK[..., :1]).masked_fill(~other_BTK, -torch.inf)
        loss_BN, index_BN = loss_BTK.flatten(1).topk(min(self.config.second_thoughts, loss_BTK[0].numel()))
        rows, column = (loss_BN > -torch.inf).nonzero().unbind(1)
        index = index_BN[rows, column]
        return rows, index // choices, guess_BTK.flatten(1)[rows, index]

    def _mask(self, logits: Tensor) -> Tensor:
        """Leaves only words and the end."""
        c = self.config
        logits[..., c.text_tokens : c.end] = -torch.inf
        logits[..., max(c.end + 1, c.text_tokens) :] = -torch.inf
        return logits

    def _choose(self, hidden_BTD: Tensor) -> Tensor:
        return self._mask(self.whisper.decoder.logits(hidden_BTD)).argmax(-1)

    def _report(self, written: _Written) -> Heard:
        counts_B, width = written.counts_B, int(written.counts_B.max())
        inside_BT = torch.arange(width, device=counts_B.device) < counts_B[:, None]
        is_end_BTK = written.guess_BTK[:, :width] == self.config.end
        words_BTK = written.log_prob_BTK[:, :width].masked_fill(is_end_BTK, -torch.inf)
        is_chosen_BTK = written.guess_BTK[:, :width] == written.chosen_BT[:, :width, None]
        decided_BT1 = written.decided_BT[:, :width, None] & is_chosen_BTK.any(-1, keepdim=True)
        words_BTK = words_BTK.masked_fill(decided_BT1 & ~is_chosen_BTK, -torch.inf)
        best_BTK, order_BTK = words_BTK.topk(self.config.candidates)
        return Heard(
            torch.where(inside_BT, written.chosen_BT[:, :width], -1),
            counts_B,
            written.states_BTD[:, :width] * inside_BT[..., None],
            written.guess_BTK[:, :width].gather(2, order_BTK) * inside_BT[..., None],
            best_BTK.softmax(-1) * inside_BT[..., None],
            written.states_BTD[torch.arange(len(counts_B), device=counts_B.device), counts_B],
            written.end_log_prob_B,
        )


@dataclass(frozen=True)
class _Written:
    """What one decoding wrote, the end included."""

    chosen_BT: Tensor  # pieces and the end, then -1
    counts_B: Tensor  # pieces
    states_BTD: Tensor
    guess_BTK: Tensor  # the likeliest first
    log_prob_BTK: Tensor
    score_B: Tensor  # mean log-probability of what was chosen
    end_log_prob_B: Tensor
    decided_BT: Tensor  # places where another word was tried: there is no doubt left

    def sentence(self, row: int) -> tuple[int, ...]:
        """The pieces of one row."""
        return tuple(self.chosen_BT[row, : int(self.counts_B[row])].tolist())

    def total(self, row: int) -> float:
        """The log-probability of one row, its end included."""
        return float(self.score_B[row] * (self.counts_B[row] + 1))

    def with_row(self, row: int, other: _Written, index: int) -> _Written:
        """With one row replaced by another decoding's."""
        width = max(self.chosen_BT.shape[1], other.chosen_BT.shape[1])

        def put(mine: Tensor, theirs: Tensor, fill: float = 0) -> Tensor:
            if mine.ndim > 1:
                grown = mine.new_full((len(mine), width, *mine.shape[2:]), fill)
                grown[:, : mine.shape[1]] = mine
                grown[row] = fill
                grown[row, : theirs.shape[1]] = theirs[index]
                return grown
            return torch.where(torch.arange(len(mine), device=mine.device) == row, theirs[index], mine)

        return _Written(
            put(self.chosen_BT, other.chosen_BT, -1),
            put(self.counts_B, other.counts_B),
            put(self.states_BTD, other.states_BTD),
            put(self.guess_BTK, other.guess_BTK),
            put(self.log_prob_BTK, other.log_prob_BTK),
            put(self.score_B, other.score_B),
            put(self.end_log_prob_B, other.end_log_prob_B),
            put(self.decided_BT, other.decided_BT),
        )
