"""The LLaMA-Omni family under the streaming contract: listener, adapter, language model, speech decoder, vocoder.

Everything a conversation remembers is in `OmniState`; one code path serves one slot or many. While the user speaks, the
audio so far is heard every second and what was written becomes the next pass's draft; when the turn ends, one last pass
and one prefill are left. While it answers, every step writes one token, decodes its units, and gives ready speech.
Source: Fang et al. 2024, arXiv:2409.06666.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from duologue.codecs.text import TextCodec
from duologue.errors import PartError, ShapeError
from duologue.models.llama_omni import context
from duologue.models.llama_omni.framing import Framing
from duologue.models.llama_omni.listening import Ear, EarState
from duologue.models.llama_omni.recall import RecallState, init_recall, note, pad, recall
from duologue.models.llama_omni.speech_decoder import UnitDecoder
from duologue.models.llama_omni.turn_head import TurnHead
from duologue.nn.attention import KVCache
from duologue.nn.ctc import CollapseState, collapse, init_collapse
from duologue.nn.sampling import repeats
from duologue.nn.transformer import Transformer
from duologue.streaming.protocol import Frame, StreamSpec
from duologue.streaming.state import State, slots, write
from duologue.vocoders.protocol import Vocoder

IDLE, ANSWERING, TALKING, DONE = 0, 1, 2, 3  # phases of a slot: hears, writes and talks, only talks, has said all
WRITTEN_AT_ONCE = 32  # tokens of text that are read in one piece of work
LARGEST_OMEGA = 100  # units of a chunk that a conversation may choose
TOKEN_SECONDS = 0.5  # of speech, more than a token ever takes on average: the room for an answer vocoded as a whole

_TRAITS = {  # what a part must share with the one it replaces
    "encoder": ("config.dim", "config.whisper.dim", "config.whisper.vocab_size", "config.end", "config.ctc.dim"),
    "adapter": ("config.encoder_dim", "config.state_dim", "config.llm_dim"),
    "llm": ("config.dim", "config.vocab_size"),
    "speech_decoder": ("config.llm_dim", "config.num_units", "config.num_prosody"),
    "vocoder": ("num_units",),
}


def _trait(part: Any, path: str) -> Any:
    for name in path.split("."):
        part = getattr(part, name, None)
    return part


@dataclass
class OmniState(State):
    ear: EarState
    cache: KVCache  # of the language model
    phase_B: Tensor
    complete_B: Tensor  # how complete the turn sounds, 0 to 1
    opening_B: Tensor  # positions of the instructions, which always stay
    turn_length_B: Tensor  # positions of the cache before this turn, to which an unanswered turn goes back
    question_length_B: Tensor  # positions before what the end of the turn read, to which a turn that goes on goes back
    answer_length_B: Tensor  # positions before the answer
    hidden_BD: Tensor  # last hidden state of the language model: what writes the next token
    written_B: Tensor  # tokens of the answer so far
    answer_BT: Tensor  # ... their ids
    speech: State  # of the speech decoder
    collapse: CollapseState
    units_BU: Tensor  # units that wait for the vocoder
    prosody_BUP: Tensor
    waiting_B: Tensor
    vocoder: State
    ready_BN: Tensor  # speech that waits to be taken
    ready_B: Tensor
    said_B: Tensor  # samples taken in this answer
    units_B: Tensor  # units decoded in this answer
    token_units_BT: Tensor  # ... by the time each token had been written
    forced_BT: Tensor  # tokens that the answer is to have, plus one; 0: the model's own
    omega_B: Tensor  # units of a chunk; 0: as in the options
    told: RecallState  # what the user has said of themself


@dataclass(frozen=True, kw_only=True)
class OmniOptions:
    """How a model answers; the weights do not depend on it."""

    omega: int = 10  # units that are vocoded together; more: later, fewer: more often
    context: int = 2048  # positions of the language model a conversation may fill
    longest_answer: int = 160  # tokens
    once: int = 0  # tokens in a row that an answer has only once, where a small model would run in circles; 0: no bound
    flush_steps: int = 2  # times the end of the text is shown to the speech decoder, so that late units come out
    speak: bool = True  # False: text only
    recall: bool = True  # what users said of themselves is read again where they ask about it

    def __post_init__(self):
        if self.omega < 1 or self.longest_answer < 1 or self.context < 2 * self.longest_answer:
            raise ShapeError(f"OmniOptions: need omega >= 1 and context >= 2 * longest_answer >= 2, got {self}")
        if self.once < 0 or self.once == 1:
            raise ShapeError(f"OmniOptions: need once = 0 or at least 2 tokens, got {self.once}")


class LlamaOmni:
    """One model, any number of conversations.

    Args:
        ear: the listening half: listener and adapter.
        framing: what stands around questions and answers, the instructions among it.
        turn_head: tells whether what was said sounds complete, where there is one.
    """

    def __init__(
        self,
        *,
        ear: Ear,
        llm: Transformer,
        codec: TextCodec,
        speech_decoder: UnitDecoder,
        vocoder: Vocoder,
        framing: Framing,
        turn_head: TurnHead | None = None,
        options: OmniOptions | None = None,
    ):
        self.ear, self.llm, self.codec = ear, llm, codec
        self.speech_decoder, self.vocoder = speech_decoder, vocoder
        self.framing, self.turn_head, self.options = framing, turn_head, options or OmniOptions()
        self.spec = StreamSpec(input_rate=16_000, output_rate=vocoder.sample_rate)
        self._next_turn = torch.tensor([framing.next_turn], dtype=torch.int64)
        self._to_answer = torch.tensor([framing.to_answer])

    # -- contract ---------------------------------------------------------------------------------------------------

    def init_state(self, slots: int) -> OmniState:
        """Conversations that have not begun."""
        o, config = self.options, self.llm.config

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(slots, *shape, dtype=dtype)

        room = (o.longest_answer + o.flush_steps + 1) * self.speech_decoder.config.upsample
        return OmniState(
            ear=self.ear.init_state(slots),
            cache=self.llm.init_state(slots, o.context),
            phase_B=zeros(),
            complete_B=zeros(dtype=torch.float32),
            opening_B=zeros(),
            turn_length_B=zeros(),
            question_length_B=zeros(),
            answer_length_B=zeros(),
            hidden_BD=zeros(config.dim, dtype=self.llm.norm.weight.dtype),
            written_B=zeros(),
            answer_BT=zeros(o.longest_answer),
            speech=self.speech_decoder.init_state(slots, o.longest_answer + o.flush_steps + 1),
            collapse=init_collapse(slots),
            units_BU=zeros(room),
            prosody_BUP=zeros(room, self.speech_decoder.config.num_prosody, dtype=torch.float32),
            waiting_B=zeros(),
            vocoder=self.vocoder.init_state(slots),
            ready_BN=zeros(round(o.longest_answer * TOKEN_SECONDS * self.spec.output_rate), dtype=torch.float32),
            ready_B=zeros(),
            said_B=zeros(),
            units_B=zeros(),
            token_units_BT=zeros(o.longest_answer + o.flush_steps + 1),
            forced_BT=zeros(o.longest_answer + 1),
            omega_B=zeros(),
            told=init_recall(slots),
        )

    def write(self, state: OmniState, slot: int, role: str, text: str) -> Iterator[None]:
        """See `streaming.protocol.StreamingModel.write`; a piece of work is `WRITTEN_AT_ONCE` tokens."""
        live_B = torch.arange(len(state.phase_B)) == slot
        if role == "system":
            if self.framing.instruct is None or int(state.cache.length_B[slot]):
                raise PartError("write: instructions come first in a conversation, and not every release takes them")
            yield from self._write(state, live_B, self.framing.instruct(text))
            state.opening_B[slot] = state.turn_length_B[slot] = state.cache.length_B[slot]
        elif role in ("user", "assistant"):
            self._begin(state, live_B)
            answered = role == "assistant"
            before = self.framing.to_answer if answered else self._recall(state, slot, text)
            yield from self._write(state, live_B, (*before, *self.codec.encode(text)))
            if answered:
                state.answer_length_B[slot], state.phase_B[slot] = state.cache.length_B[slot], DONE
            elif self.options.recall:
                note(state.told, slot, text, self.codec)
        else:
            raise PartError(f"write: need the role system, user or assistant, got {role!r}")

    def _write(self, state: OmniState, live_B: Tensor, ids: Sequence[int]) -> Iterator[None]:
        for begin in range(0, len(ids), WRITTEN_AT_ONCE):
            piece = torch.tensor([ids[begin : begin + WRITTEN_AT_ONCE]]).expand(len(live_B), -1)
            self._make_room(state, live_B, piece.shape[1])
            self._read(state, live_B, self.llm.embedding(piece))
            yield

    @property
    def omegas(self) -> tuple[int, int, int]:
        """See `streaming.protocol.Chunked.omegas`."""
        return 1, max(LARGEST_OMEGA, self.options.omega), self.options.omega

    def set_omega(self, state: OmniState, slot: int, omega: int) -> None:
        """See `streaming.protocol.Chunked.set_omega`."""
        state.omega_B[slot] = omega

    def say(self, state: OmniState, slot: int, text: str) -> None:
        """See `streaming.protocol.StreamingModel.say`."""
        ids, live_B = self.codec.encode(text), torch.arange(len(state.phase_B)) == slot
        if len(ids) > self.options.longest_answer:
            raise PartError(
                f"say: at most {self.options.longest_answer} tokens at once, got {len(ids)}; "
                "say one sentence after another"
            )
        if int(state.phase_B[slot]) != ANSWERING:
            self._begin(state, live_B)
            self._make_room(state, live_B, self._to_answer.shape[1])
            self._read(state, live_B, self.llm.embedding(self._to_answer).expand(len(live_B), -1, -1))
            state.answer_length_B[slot], state.phase_B[slot] = state.cache.length_B[slot], ANSWERING
            self._clear_answer(state, live_B)
        state.forced_BT[slot] = 0
        state.forced_BT[slot, : len(ids) + 1] = torch.tensor([*ids, self.framing.stops[0]]) + 1

    def listen(self, state: OmniState, audio_BN: Tensor, live_B: Tensor) -> None:
        """Hears one tick. A slot that has said its answer begins the next turn."""
        self._begin(state, live_B)
        heard = self.ear.listen(state.ear, audio_BN, live_B, self.llm)
        if heard is not None:  # a long question: its first part is read while the rest is spoken
            self._make_room(state, heard.live_B, int(heard.counts_B.max()))
            self._read(state, heard.live_B, heard.embeddings_BTD, heard.counts_B)

    def end_turn(self, state: OmniState, live_B: Tensor) -> None:
        """Hears the question once more, whole, and reads it; a slot that heard nothing is done at once."""
        self._begin(state, live_B)
        heard = self.ear.finish(state.ear, live_B, self.llm)
        if self.turn_head is not None and heard.end_state_BD is not None and heard.end_log_prob_B is not None:
            complete_B = self.turn_head(heard.end_state_BD, heard.end_log_prob_B).sigmoid()
            write(state.complete_B, torch.where(heard.counts_B > 0, complete_B, 0.0), live_B)
        told_BT, told_B = pad(
            [
                self._recall(state, slot, self.heard(state, slot)) if heard_something else []
                for slot, heard_something in enumerate((live_B & (heard.counts_B > 0)).tolist())
            ]
        )
        tail_BTD = self.llm.embedding(self._to_answer).expand(len(live_B), -1, -1)
        tail_B = torch.full_like(told_B, tail_BTD.shape[1])
        embeddings_BTD, counts_B = context.join(heard.embeddings_BTD, heard.counts_B, tail_BTD, tail_B)
        if told_BT.shape[1]:
            embeddings_BTD, counts_B = context.join(self.llm.embedding(told_BT), told_B, embeddings_BTD, counts_B)
        self._make_room(state, live_B, int(counts_B.max()))
        spoken_B = live_B & ((state.cache.length_B > state.turn_length_B) | (heard.counts_B > 0))
        state.question_length_B[live_B] = state.cache.length_B[live_B]
        if bool(spoken_B.any()):
            self._read(state, spoken_B, embeddings_BTD, counts_B)
        silent_B = live_B & ~spoken_B
        state.cache.length_B[silent_B] = state.turn_length_B[silent_B]
        state.answer_length_B[live_B] = state.cache.length_B[live_B]
        state.phase_B[spoken_B], state.phase_B[silent_B] = ANSWERING, DONE
        self._clear_answer(state, live_B)

    def resume(self, state: OmniState, live_B: Tensor) -> None:
        """Takes `end_turn` back, whatever of the answer there is: the user goes on with the same turn."""
        state.cache.length_B[live_B] = state.question_length_B[live_B]
        state.phase_B[live_B] = IDLE
        self._clear_answer(state, live_B)

    def speak(self, state: OmniState, live_B: Tensor) -> Frame:
        """One step: a token where more speech is needed, then at most one tick of the speech that is ready."""
        tick = self.spec.output_samples
        think_B = live_B & (state.phase_B == ANSWERING) & (state.ready_B < tick)
        ids_BT = torch.full((len(live_B), 1), -1)
        if bool(think_B.any()):
            ids_BT[:, 0] = torch.where(think_B, self._think(state, think_B), -1)
        audio_BN = torch.zeros(len(live_B), tick)
        samples_B = torch.where(live_B, state.ready_B.clamp(max=tick), 0)
        waiting_B = live_B & (state.phase_B == ANSWERING) & (state.ready_B < tick)
        samples_B = torch.where(waiting_B, 0, samples_B)  # whole ticks while more is to come
        for slot in (samples_B > 0).nonzero()[:, 0].tolist():
            count, kept = int(samples_B[slot]), int(state.ready_B[slot])
            audio_BN[slot, :count] = state.ready_BN[slot, :count]
            state.ready_BN[slot, : kept - count] = state.ready_BN[slot, count:kept].clone()
            state.ready_B[slot] -= count
            state.said_B[slot] += count
        over_B = live_B & (state.phase_B == TALKING) & (state.ready_B == 0)
        state.phase_B[over_B] = DONE
        return Frame(audio_BN=audio_BN, samples_B=samples_B, ids_BT=ids_BT, done_B=state.phase_B == DONE)

    def truncate(self, state: OmniState, live_B: Tensor, heard_ticks_B: Tensor) -> None:
        """Forgets the words of the answer that were not heard, and what was still to be said; the turn is over."""
        answered_B = live_B & (state.phase_B != IDLE) & (state.written_B > 0)
        decoded_B = (state.said_B + state.ready_B).clamp(min=1)
        heard_B = heard_ticks_B * self.spec.output_samples
        vocoded_B = state.units_B - state.waiting_B
        units_B = (heard_B / decoded_B * vocoded_B).long()
        reached_BT = state.token_units_BT <= units_B[:, None]
        inside_BT = torch.arange(reached_BT.shape[1]) < state.written_B[:, None]
        kept_B = (reached_BT & inside_BT).sum(1)
        cut_B = answered_B & (kept_B < state.written_B)
        state.cache.length_B[cut_B] = (state.answer_length_B + kept_B)[cut_B]
        self._clear_answer(state, live_B)
        begun_B = live_B & (state.phase_B == IDLE) & (state.cache.length_B > 0)  # a question that is given up
        state.cache.length_B[begun_B] = state.turn_length_B[begun_B]
        state.ear.reset(begun_B)
        state.phase_B[live_B & ~begun_B] = DONE

    def heard(self, state: OmniState, slot: int) -> str:
        """What the listener has written in this turn."""
        return self.ear.text(state.ear, slot)

    def complete(self, state: OmniState, slot: int) -> float | None:
        """See `streaming.protocol.StreamingModel.complete`."""
        return float(state.complete_B[slot]) if self.turn_head is not None else None

    def overhear(self, audio_N: Tensor, expected: Sequence[str] = ()) -> str:
        """See `streaming.protocol.StreamingModel.overhear`."""
        return self.ear.overhear(audio_N, self.llm, expected)

    def text(self, ids: list[int]) -> str:
        """The text of answer tokens; a character that is not whole yet is left out."""
        return self.codec.decode(ids).rstrip("\ufffd")

    def parts(self) -> dict[str, Any]:
        """The parts that can be exchanged."""
        return {
            **self.ear.hearing.parts(),
            "llm": self.llm,
            "speech_decoder": self.speech_decoder,
            "vocoder": self.vocoder,
        }

    def replace_part(self, name: str, part: Any) -> None:
        """Puts another part in, for conversations begun later.

        Raises:
            PartError: no such part, or one of another kind or size.
        """
        own = self.parts().get(name)
        if own is None:
            raise PartError(f"there is no part {name!r}; the parts are {', '.join(self.parts())}")
        if not hasattr(part, "init_state" if name in ("speech_decoder", "vocoder", "llm") else "forward"):
            raise PartError(f"{name}: need a module like {type(own).__name__}, got {type(part).__name__}")
        for trait in _TRAITS[name]:
            want, got = _trait(own, trait), _trait(part, trait)
            if want != got:
                raise PartError(f"{name}: need {trait} {want}, got {got} in {type(part).__name__}; retrain it to fit")
        if name in ("encoder", "adapter"):
            self.ear.hearing.replace_part(name, part)
        else:
            setattr(self, name, part)
        self.spec = replace(self.spec, output_rate=self.vocoder.sample_rate)

    def answer_text(self, question: str) -> str:
        """The greedy answer to a written question, in a conversation of its own: what hearing perfectly would give."""
        return "".join(self.stream_text(question)).strip()

    def stream_text(self, question: str) -> Iterator[str]:
        """As `answer_text`, piece by piece as it is written."""
        ids = torch.cat([self._opening(), torch.tensor([self.codec.encode(question)]), self._to_answer], dim=1)
        state, live_B = self.llm.init_state(1, self.options.context), torch.tensor([True])
        answer: list[int] = []
        text = ""
        with torch.inference_mode():
            hidden_BTD = self.llm(self.llm.embedding(ids), state, live_B)
        while len(answer) < self.options.longest_answer:
            with torch.inference_mode():
                said_BT = torch.tensor([answer], dtype=torch.int64)
                token = self._choose(hidden_BTD[:, -1], said_BT, torch.tensor([len(answer)]))
                if int(token) in self.framing.stops:
                    return
                answer.append(int(token))
                hidden_BTD = self.llm(self.llm.embedding(token[:, None]), state, live_B)
            before, text = text, self.text(answer)
            if len(text) > len(before):
                yield text[len(before) :]

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Does everything once, so that the first question is answered as fast as the next ones."""
        state, live_B = self.init_state(1), torch.tensor([True])
        noise = torch.randn(1, self.spec.input_samples, generator=torch.Generator().manual_seed(0)) * 0.01
        for _ in range(13):
            self.listen(state, noise, live_B)
        self.end_turn(state, live_B)
        state.phase_B[:] = ANSWERING
        for _ in range(4):
            self.speak(state, live_B)

    # -- parts of it ------------------------------------------------------------------------------------------------

    def _begin(self, state: OmniState, live_B: Tensor) -> None:
        """Opens the user's turn in slots that are new, or whose last turn is over."""
        new_B = live_B & (state.cache.length_B == 0)
        again_B = live_B & (state.phase_B == DONE) & ~new_B
        for slot in again_B.nonzero()[:, 0].tolist() if self.options.recall else ():
            note(state.told, slot, self.heard(state, slot), self.codec)
        for begin_B, first in ((new_B, True), (again_B, False)):
            if bool(begin_B.any()):
                ids = self._opening() if first else self._next_turn
                self._make_room(state, begin_B, ids.shape[1])
                self._read(state, begin_B, self.llm.embedding(ids).expand(len(live_B), -1, -1))
                state.turn_length_B[begin_B] = state.cache.length_B[begin_B]
                state.opening_B[begin_B & new_B] = ids.shape[1]
                state.phase_B[begin_B] = IDLE
                state.ear.reset(begin_B)

    def _opening(self) -> Tensor:
        """As it is today: a server runs for longer than a day."""
        framing = self.framing
        return torch.tensor([framing.renew() if framing.renew else framing.opening])

    def _read(self, state: OmniState, live_B: Tensor, embeddings_BTD: Tensor, counts_B: Tensor | None = None) -> None:
        """Prefill; keeps the last real hidden state of each live slot."""
        live_B = live_B if counts_B is None else live_B & (counts_B > 0)
        if embeddings_BTD.shape[1] == 0 or not bool(live_B.any()):
            return
        hidden_BTD = self.llm(embeddings_BTD, state.cache, live_B, counts_B)
        last_B = torch.full_like(state.phase_B, hidden_BTD.shape[1]) if counts_B is None else counts_B
        rows = torch.arange(len(live_B))
        write(state.hidden_BD, hidden_BTD[rows, (last_B - 1).clamp(min=0)], live_B)

    def _recall(self, state: OmniState, slot: int, question: str) -> list[int]:
        """Token ids that are read before a question: what the user has said of what they ask."""
        return recall(state.told, slot, question, self.codec) if self.options.recall else []

    def _make_room(self, state: OmniState, live_B: Tensor, more: int) -> None:
        """Drops the oldest turns of slots that could not hold `more` positions and an answer; instructions stay."""
        context.make_room(
            self.llm,
            state.cache,
            live_B,
            more + self.options.longest_answer + self.options.flush_steps + 16,
            kept_B=state.opening_B,
            places=(state.turn_length_B, state.question_length_B, state.answer_length_B),
        )

    def _clear_answer(self, state: OmniState, live_B: Tensor) -> None:
        for part in (state.speech, state.collapse, state.vocoder):
            part.reset(live_B)
        for count_B in (state.written_B, state.waiting_B, state.ready_B, state.said_B, state.units_B, state.forced_BT):
            count_B[live_B] = 0

    def _think(self, state: OmniState, live_B: Tensor) -> Tensor:
        """Writes one token in each live slot and decodes its units. Gives the ids, -1 where the text has ended."""
        predicting_BD = state.hidden_BD.clone()
        ids_B = torch.zeros_like(state.phase_B)
        ids_B[live_B] = self._choose(predicting_BD[live_B], state.answer_BT[live_B], state.written_B[live_B])
        forced_B = state.forced_BT.gather(1, state.written_B.clamp(max=self.options.longest_answer)[:, None])[:, 0]
        ids_B = torch.where(live_B & (forced_B > 0), forced_B - 1, ids_B)
        end_B = torch.isin(ids_B, torch.tensor(self.framing.stops)) | (state.written_B >= self.options.longest_answer)
        ids_B = torch.where(end_B, self.framing.stops[0], ids_B)
        token_B1D = self.llm.embedding(ids_B[:, None])
        if self.speech_decoder.position == "consumed":
            self._read(state, live_B, token_B1D)
            # The end of turn stays out of the context: the next turn opens by closing this one.
            state.cache.length_B -= (live_B & end_B).long()
            hidden_B1D = state.hidden_BD[:, None]
        else:
            self._read(state, live_B & ~end_B, token_B1D)
            hidden_B1D = predicting_BD[:, None]
        if self.options.speak:
            self._decode(state, live_B, hidden_B1D, token_B1D)
            for _ in range(self.options.flush_steps):
                if bool((live_B & end_B).any()):
                    self._decode(state, live_B & end_B, hidden_B1D, token_B1D)
        rows = torch.arange(len(live_B))
        state.token_units_BT[rows[live_B], state.written_B[live_B]] = state.units_B[live_B]
        goes_on_B = live_B & ~end_B
        state.answer_BT[rows[goes_on_B], state.written_B[goes_on_B]] = ids_B[goes_on_B]
        state.written_B += goes_on_B.long()
        state.phase_B[live_B & end_B] = TALKING
        if self.options.speak:
            self._vocode(state, live_B, live_B & end_B)
        return torch.where(end_B, -1, ids_B)

    def _choose(self, hidden_RD: Tensor, answer_RT: Tensor, written_R: Tensor) -> Tensor:
        """The likeliest next token of each row that does not begin a circle."""
        logits_RV = self.llm.logits(hidden_RD)
        if self.options.once:
            rows, tokens = repeats(answer_RT, written_R, length=self.options.once)
            logits_RV[rows, tokens] = -torch.inf
        return logits_RV.argmax(-1)

    def _decode(self, state: OmniState, live_B: Tensor, hidden_B1D: Tensor, token_B1D: Tensor) -> None:
        """The units and prosody of one token join those that wait for the vocoder."""
        with slots(state.speech, live_B) as (speech, rows_R), slots(state.collapse, live_B) as (collapsed, _):
            every_R = torch.ones_like(rows_R, dtype=torch.bool)
            logits_RGV, prosody_RGP = self.speech_decoder(
                hidden_B1D[rows_R].float(), token_B1D[rows_R].float(), speech, every_R
            )
            blank = self.speech_decoder.config.num_units
            units_RG, counts_R, steps_RG = collapse(logits_RGV.argmax(-1), collapsed, every_R, blank=blank)
        row_N, place_N = (torch.arange(units_RG.shape[1]) < counts_R[:, None]).nonzero(as_tuple=True)
        slot_N = rows_R[row_N]
        room_N = state.waiting_B[slot_N] + place_N
        state.units_BU[slot_N, room_N] = units_RG[row_N, place_N]
        if prosody_RGP is not None:
            state.prosody_BUP[slot_N, room_N] = prosody_RGP[row_N, steps_RG[row_N, place_N]].float()
        state.waiting_B[rows_R] += counts_R
        state.units_B[rows_R] += counts_R

    def _vocode(self, state: OmniState, live_B: Tensor, final_B: Tensor) -> None:
        """Vocodes what waits, in slots that have a chunk of it or whose text has ended."""
        omega_B = torch.where(state.omega_B > 0, state.omega_B, self.options.omega)
        go_B = live_B & ((state.waiting_B >= omega_B) | final_B)
        if not bool(go_B.any()):
            return
        with slots(state.vocoder, go_B) as (vocoder, rows_R):
            counts_R = state.waiting_B[rows_R]
            longest = int(counts_R.max())
            prosody_RUP = state.prosody_BUP[rows_R, :longest] if state.prosody_BUP.shape[-1] else None
            audio_RN, samples_R = self.vocoder.forward(
                state.units_BU[rows_R, :longest],
                counts_R,
                vocoder,
                torch.ones_like(rows_R, dtype=torch.bool),
                final_B[rows_R],
                prosody_RUP,
            )
        for row, slot in enumerate(rows_R.tolist()):
            begin = int(state.ready_B[slot])
            count = min(int(samples_R[row]), state.ready_BN.shape[1] - begin)
            state.ready_BN[slot, begin : begin + count] = audio_RN[row, :count].float()
            state.ready_B[slot] += count
        state.waiting_B[go_B] = 0
