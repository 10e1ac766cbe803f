"""Moshi, one frame at a time, for many conversations: hears a frame of codes, thinks a piece of text, says a frame.

A frame's codebooks are said at different steps (`MoshiConfig.delays`), so that the step which completes it comes
`max_delay` steps after its text was drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from duologue.errors import ConfigError, ShapeError
from duologue.models.moshi.conditions import Guidance
from duologue.models.moshi.config import UNGENERATED, ZERO, MoshiConfig
from duologue.models.moshi.fixed import AudioDraws, FixedStep
from duologue.models.moshi.guidance import Pairs, apply_conditions, with_second_rows
from duologue.models.moshi.model import MoshiModel
from duologue.models.moshi.script import Script, follow, init_script
from duologue.nn.ring import RingCache
from duologue.nn.sampling import draw, luck, penalise, uniform
from duologue.streaming.state import State

REMEMBERED = 64  # text tokens that the repetition penalty can look back at
WRITTEN = 256  # pieces of what is heard that are kept; with the next one a new text begins
AGAIN = 2  # frames without a heard piece, before which the same piece is not written again
ANEW = 12  # frames without a heard piece, after which it does so, too


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a conversation draws its tokens. Defaults: those of Moshi's server."""

    text_temperature: float = 0.7  # 0: the best token
    text_top_k: int = 25  # 0: all tokens
    temperature: float = 0.8
    top_k: int = 250
    repetition_penalty: float = 1.0  # of text; 1: none
    repetition_context: int = 64  # text tokens, paddings not counted

    def __post_init__(self):
        if min(self.text_temperature, self.temperature, self.text_top_k, self.top_k) < 0:
            raise ConfigError(f"Sampling: temperatures and top-k must not be negative, got {self}")
        if self.repetition_penalty <= 0 or not 0 <= self.repetition_context <= REMEMBERED:
            raise ConfigError(
                f"Sampling: need repetition_penalty above 0 and repetition_context up to {REMEMBERED}, got {self}"
            )

    def numbers(self) -> list[float]:
        return [float(getattr(self, field.name)) for field in fields(self)]


GREEDY = Sampling(text_temperature=0.0, temperature=0.0)


@dataclass
class MoshiState(State):
    cache: RingCache  # of the temporal transformer (see guidance.py); its offset_B counts the steps
    codes_BKC: Tensor  # column c % C of the delayed streams, for the last C steps
    forced_BKC: Tensor  # bool: that own token was given, not drawn
    chosen_B: Tensor  # bool: the slot has a sampling of its own
    sampling_BS: Tensor  # the numbers of its `Sampling`
    seed_B: Tensor
    recent_BN: Tensor  # the last text tokens but for paddings, plus 1; the newest last
    written_BN: Tensor  # the pieces of what is heard, plus 1; the newest last; nothing where the model has no such head
    unheard_B: Tensor  # frames since the last of them
    wrote_B: Tensor  # what the head wrote a step ago, plus 1; 0: nothing
    script: Script  # what is to be said
    guidance_BG: Tensor  # see `Conditions.numbers`; nothing where the model has no conditions


class MoshiGenerator:
    """The step by step use of a `MoshiModel`. Holds no weights and no state of its own."""

    def __init__(
        self,
        model: MoshiModel,
        sampling: Sampling | None = None,
        guidance: Guidance | None = None,
        *,
        fixed: bool | None = None,
    ):
        """
        Args:
            sampling, guidance: for slots that choose none.
            fixed: every step has the same shapes, so that a GPU replays it as a graph (`fixed`); None: on a GPU. A
                model with conditions has no such steps.
        Raises:
            ConfigError: a condition or a value that the model does not have.
        """
        self.model, self.config = model, model.config
        self.sampling = Sampling() if sampling is None else sampling
        self.guidance = Guidance() if guidance is None else guidance
        self._guidance_numbers = self._numbers(self.guidance)
        fixed = next(model.norm.parameters()).device.type == "cuda" if fixed is None else fixed
        self._fixed = FixedStep(model) if fixed and model.conditions is None else None

    def _numbers(self, guidance: Guidance) -> list[float]:
        if self.model.conditions is not None:
            return self.model.conditions.numbers(guidance)
        if guidance != Guidance():
            raise ConfigError(f"this model has no conditions, so it takes none and cannot be guided; got {guidance}")
        return []

    def init_state(self, slots: int) -> MoshiState:
        c, cache = self.config, self.model.transformer.init_state(slots)
        if c.conditions:
            cache = with_second_rows(cache)
        ids = torch.zeros(slots, 1 + c.codebooks, c.max_delay + 2, dtype=torch.int64, device=cache.offset_B.device)
        own = ids[:, : 1 + c.own_codebooks]
        return MoshiState(
            cache=cache,
            codes_BKC=ids,
            forced_BKC=torch.zeros_like(own, dtype=torch.bool),
            chosen_B=torch.zeros_like(ids[:, 0, 0], dtype=torch.bool),
            sampling_BS=torch.zeros(slots, len(self.sampling.numbers()), device=ids.device),
            seed_B=torch.zeros_like(ids[:, 0, 0]),
            recent_BN=ids.new_zeros(slots, REMEMBERED),
            written_BN=ids.new_zeros(slots, 0 if self.model.hear is None else WRITTEN),
            unheard_B=torch.zeros_like(ids[:, 0, 0]),
            wrote_B=torch.zeros_like(ids[:, 0, 0]),
            script=init_script(slots, ids.device),
            guidance_BG=torch.zeros(slots, len(self._guidance_numbers), device=ids.device),
        )

    def choose(self, state: MoshiState, slot: int, *, sampling: Sampling | None = None, seed: int = 0) -> None:
        """How one slot draws until it is reset."""
        state.seed_B[slot] = seed
        state.chosen_B[slot] = sampling is not None
        numbers = (sampling or self.sampling).numbers()
        state.sampling_BS[slot] = torch.tensor(numbers, device=state.sampling_BS.device)

    def guide(self, state: MoshiState, slot: int, guidance: Guidance) -> None:
        """Under which conditions one slot speaks until it is reset.

        Raises:
            ConfigError: a condition or a value that the model does not have, or the conversation has begun.
        """
        numbers = self._numbers(guidance)
        if bool(state.cache.offset_B[slot]):
            raise ConfigError("guidance: conditions are chosen before the first step; begin a new conversation")
        state.guidance_BG[slot] = torch.tensor(numbers, device=state.guidance_BG.device)

    def step(self, state: MoshiState, heard_BK: Tensor, live_B: Tensor, *, forced_BK: Tensor | None = None) -> Tensor:
        """Hears the next frame of every live slot, and thinks and says one.

        Args:
            heard_BK: codes of the other side; ZERO where there are none.
            forced_BK: [B, 1 + own_codebooks] a frame that is said instead of being drawn, text first, UNGENERATED where
                it is to be drawn: text and voice prompts, a text that is to be read.
        Returns:
            The text and the codes of the frame that is complete now, [B, 1 + own_codebooks]; UNGENERATED in slots where
            none is: the first `max_delay` steps, and slots that are not live.
        Raises:
            ShapeError: another number of codes.
        """
        c, own = self.config, 1 + self.config.own_codebooks
        for name, codes_BK, count in (("heard", heard_BK, c.heard_codebooks), ("forced", forced_BK, own)):
            if codes_BK is not None and codes_BK.shape != (len(live_B), count):
                raise ShapeError(f"Moshi: need {name} codes [{len(live_B)}, {count}], got {tuple(codes_BK.shape)}")
        out_BK = heard_BK.new_full((len(live_B), own), UNGENERATED)
        rows_R = live_B.nonzero()[:, 0]
        if not len(rows_R):
            return out_BK
        offset_R, device = state.cache.offset_B[rows_R], heard_BK.device
        delay_K = torch.tensor(c.delays, device=device)
        codes_RKC, forced_RKC = state.codes_BKC[rows_R], state.forced_BKC[rows_R]
        place_RK = offset_R[:, None] + delay_K  # where a frame that comes now goes
        _put(codes_RKC[:, own:], place_RK[:, own:], heard_BK[rows_R])
        if forced_BK is not None:
            coming_RK = forced_BK[rows_R]
            _put(codes_RKC[:, :own], place_RK[:, :own] + 1, coming_RK)
            _put(forced_RKC, place_RK[:, :own] + 1, coming_RK != UNGENERATED)

        begun_RK = offset_R[:, None] > delay_K
        input_RK = torch.where(begun_RK, _get(codes_RKC, offset_R[:, None]), self.model.initial(device))
        if self.model.reread is not None:
            input_RK = torch.cat([input_RK, state.wrote_B[rows_R, None] - 1], 1)
        z_ND, pairs = self._think(input_RK, state, live_B, rows_R)
        self._write_down(state, rows_R, z_ND[: len(rows_R)])
        next_R1 = offset_R[:, None] + 1
        given_RK = torch.where(_get(forced_RKC, next_R1), _get(codes_RKC[:, :own], next_R1), UNGENERATED)
        said_RK = self._say(z_ND, given_RK, _Draws(self.sampling, state, rows_R, offset_R, c), pairs)
        self._remember(state, rows_R, said_RK[:, 0])

        _put(codes_RKC[:, :own], next_R1, said_RK)
        _put(forced_RKC, next_R1, torch.zeros_like(said_RK, dtype=torch.bool))
        state.codes_BKC[rows_R], state.forced_BKC[rows_R] = codes_RKC, forced_RKC
        whole_RK = _get(codes_RKC[:, :own], next_R1 - c.max_delay + delay_K[:own])
        out_BK[rows_R] = torch.where(offset_R[:, None] >= c.max_delay, whole_RK, UNGENERATED)
        return out_BK

    def _think(
        self, input_RK: Tensor, state: MoshiState, live_B: Tensor, rows_R: Tensor
    ) -> tuple[Tensor, Pairs | None]:
        """The temporal transformer's output, [R, D]; with pairs, that of their second rows behind, [N, D]."""
        if self._fixed is not None:
            return self._fixed.think(input_RK, state.cache, live_B, rows_R), None
        x_RD, cache = self.model.embed(input_RK), state.cache
        if self.model.conditions is not None:
            own_RG = state.guidance_BG[rows_R]
            numbers_RG = torch.where(own_RG[:, :1] > 0, own_RG, own_RG.new_tensor(self._guidance_numbers))
            x_ND, pairs = apply_conditions(self.model.conditions, numbers_RG, x_RD)
            if pairs is not None:
                memory, slots_N = pairs.memory(cache), pairs.slots(rows_R)
                live_N = torch.zeros_like(memory.offset_B, dtype=torch.bool).index_fill_(0, slots_N, True)
                z_ND = self._through(x_ND, memory, live_N, slots_N)
                cache.offset_B[rows_R] += 1
                return z_ND, pairs
            x_RD = x_ND
        if len(rows_R) == len(live_B):
            return self.model.norm(self.model.transformer(x_RD[:, None], cache, live_B)[:, 0]), None
        return self._through(x_RD, cache, live_B, rows_R), None

    def _through(self, x_RD: Tensor, cache: RingCache, live_B: Tensor, rows_R: Tensor) -> Tensor:
        """One step of some slots of a cache."""
        x_BD = x_RD.new_zeros(len(live_B), x_RD.shape[1]).index_copy_(0, rows_R, x_RD)
        return self.model.norm(self.model.transformer(x_BD[:, None], cache, live_B)[rows_R, 0])

    def _say(self, z_ND: Tensor, given_RK: Tensor, draws: _Draws, pairs: Pairs | None) -> Tensor:
        """The next tokens of the own streams, [R, 1 + own_codebooks]: what is given, the rest drawn."""
        forced_RK = given_RK != UNGENERATED
        some = bool(forced_RK.any())

        def choose(stream: int, scores_NV: Tensor) -> Tensor:
            drawn_R = draws.take(stream, scores_NV if pairs is None else pairs.mix(scores_NV))
            chosen_R = torch.where(forced_RK[:, stream], given_RK[:, stream], drawn_R) if some else drawn_R
            if not stream:
                chosen_R = draws.directed(chosen_R, ~forced_RK[:, 0])
            return chosen_R if pairs is None else pairs.twice(chosen_R)

        text_N, rows = choose(0, self.model.text_head(z_ND)), len(given_RK)
        text_R1, own = text_N[:rows, None], self.config.own_codebooks
        if self.model.depth is None or not own:
            return text_R1
        if some and bool(forced_RK[:, 1:].all()):
            return torch.cat([text_R1, given_RK[:, 1:]], 1)
        if self._fixed is not None:
            codes_NK = self._fixed.say(z_ND, text_N, given_RK[:, 1:], draws.of_audio(), draws.rows_R, draws.slots)
        else:
            codes_NK = self.model.depth.generate(z_ND, text_N, own, lambda step, scores: choose(1 + step, scores))
        return torch.cat([text_R1, codes_NK[:rows]], 1)

    def _write_down(self, state: MoshiState, rows_R: Tensor, z_RD: Tensor) -> None:
        """What is heard, as the head for it has it."""
        if self.model.hear is None:
            return
        piece_R = self.model.pieces(self.model.score_heard(z_RD))
        word_R = piece_R != ZERO
        state.wrote_B[rows_R] = piece_R + 1
        unheard_R, written_RN = state.unheard_B[rows_R], state.written_BN[rows_R]
        state.unheard_B[rows_R] = torch.where(word_R, 0, unheard_R + 1)
        word_R &= (piece_R + 1 != written_RN[:, -1]) | (unheard_R >= AGAIN)
        full_R = written_RN[:, 0] > 0
        anew_R = word_R & (full_R | (unheard_R >= ANEW))
        state.written_BN[rows_R[anew_R]] = 0
        slots_W = rows_R[word_R]
        if len(slots_W):
            state.written_BN[slots_W] = torch.cat([state.written_BN[slots_W, 1:], piece_R[word_R][:, None] + 1], 1)

    def _remember(self, state: MoshiState, rows_R: Tensor, text_R: Tensor) -> None:
        c = self.config
        word_R = (text_R >= 0) & (text_R != c.padding_id) & (text_R != c.end_padding_id)
        slots_W = rows_R[word_R]
        if len(slots_W):
            state.recent_BN[slots_W] = torch.cat([state.recent_BN[slots_W, 1:], text_R[word_R][:, None] + 1], 1)


class _Draws:
    """How the rows of one step draw: their settings and random numbers, worked out once."""

    def __init__(self, default: Sampling, state: MoshiState, rows_R: Tensor, offset_R: Tensor, config: MoshiConfig):
        own_RS = state.sampling_BS[rows_R]
        chosen_RS = torch.where(state.chosen_B[rows_R][:, None], own_RS, own_RS.new_tensor(default.numbers()))
        text_temperature_R, text_top_k_R, temperature_R, top_k_R, self.penalty_R, context_R = chosen_RS.unbind(1)
        self.script, self.rests = state.script, (config.padding_id, config.end_padding_id)
        self.rows_R, self.slots, self._own = rows_R, len(state.seed_B), config.own_codebooks
        self.recent_RN: Tensor | None = None
        if (self.penalty_R != 1).any():
            age_N = torch.arange(REMEMBERED, 0, -1, device=rows_R.device)
            self.recent_RN = torch.where(age_N <= context_R[:, None], state.recent_BN[rows_R] - 1, -1)
        seed_R, texts, audios = state.seed_B[rows_R], config.text_outputs, config.codebook_size
        place_R = offset_R * (texts + config.own_codebooks * audios)  # every number that a step may need has its place
        self.text = _Kind(text_temperature_R, text_top_k_R, seed_R, place_R, tokens=texts, streams=1)
        self.audio = _Kind(temperature_R, top_k_R, seed_R, place_R + texts, tokens=audios, streams=config.own_codebooks)

    def take(self, stream: int, scores_RV: Tensor) -> Tensor:
        """One token for each row, [R]. Stream 0 is the text."""
        if stream:
            return self.audio.take(stream - 1, scores_RV)
        if self.recent_RN is not None:
            scores_RV = penalise(scores_RV, self.recent_RN, self.penalty_R)
        return self.text.take(0, scores_RV)

    def of_audio(self) -> AudioDraws:
        """How the codebooks are drawn."""
        if not self.audio.greedy:
            return AudioDraws(self.audio.luck_RKN, self.audio.greedy_R)
        luck_RK1 = torch.zeros(len(self.rows_R), self._own, 1, device=self.rows_R.device)
        return AudioDraws(luck_RK1, self.audio.greedy_R)

    def directed(self, text_R: Tensor, free_R: Tensor) -> Tensor:
        """The text, or what is to be said instead; `free_R`: it was drawn."""
        return follow(self.script, self.rows_R, text_R, rests=self.rests, free_R=free_R)


class _Kind:
    """Text, or the codebooks."""

    def __init__(
        self, temperature_R: Tensor, top_k_R: Tensor, seed_R: Tensor, place_R: Tensor, *, tokens: int, streams: int
    ):
        self.greedy_R = temperature_R <= 0
        self.greedy = not streams or bool(self.greedy_R.all())
        if self.greedy:
            return
        self._some_greedy_R = self.greedy_R if bool(self.greedy_R.any()) else None
        top_k_R = torch.where(top_k_R < 1, tokens, top_k_R)
        count = min(int(top_k_R.max()), tokens)
        stream_K1 = torch.arange(0, streams * tokens, tokens, device=seed_R.device)[:, None]
        place_KN = stream_K1 + torch.arange(count, device=seed_R.device)
        noise_RKN = uniform(seed_R, place_R[:, None] + place_KN.flatten()).unflatten(1, (streams, count))
        self.luck_RKN = luck(noise_RKN, temperature_R=temperature_R, top_k_R=top_k_R)

    def take(self, stream: int, scores_RV: Tensor) -> Tensor:
        if self.greedy:
            return scores_RV.argmax(1)
        return draw(scores_RV, self.luck_RKN[:, stream], self._some_greedy_R)


def _put(columns_RKC: Tensor, column_RK: Tensor, values_RK: Tensor) -> None:
    """Writes one column of each stream, in place; the columns are a ring."""
    columns_RKC.scatter_(2, (column_RK % columns_RKC.shape[2]).expand_as(values_RK)[..., None], values_RK[..., None])


def _get(columns_RKC: Tensor, column_RK: Tensor) -> Tensor:
    """Reads one column of each stream."""
    column_RK = (column_RK % columns_RKC.shape[2]).expand(columns_RKC.shape[:2])
    return columns_RKC.gather(2, column_RK[..., None])[..., 0]
