"""Moshi as a `streaming.protocol.StreamingModel`: hears a frame, thinks a piece of text and says a frame at every tick.

`listen` encodes the frame that was heard, `speak` makes one step of the language model and decodes the frame that is
complete then. As in Moshi's server, the text comes with the frame that it was drawn for, and the first frame that is
heard counts as the time before the conversation: the encoder begins anew after it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from duologue.codecs.mimi import Mimi, MimiState
from duologue.errors import PartError
from duologue.models.moshi.conditions import Guidance
from duologue.models.moshi.config import UNGENERATED
from duologue.models.moshi.generation import MoshiGenerator, MoshiState, Sampling
from duologue.models.moshi.model import MoshiModel
from duologue.models.moshi.script import append
from duologue.models.moshi.text import Pieces
from duologue.streaming.protocol import Frame, StreamSpec
from duologue.streaming.state import State


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """How instructions are given: said by the model itself before the conversation, frame by frame, while it makes one
    sound and hears another. Defaults: PersonaPlex's."""

    begin: str = "<system> "
    end: str = " <system>"
    said: tuple[int, ...] = (948, 243, 1178, 546, 1736, 1030, 1978, 2008)  # the codec's frame of silence
    heard: tuple[int, ...] = (430, 1268, 381, 1611, 1095, 1495, 56, 472)  # ... of a sine
    pause: int = 6  # frames of padding before and after


@dataclass
class FamilyState(State):
    model: MoshiState
    codec: MimiState
    heard_BK: Tensor  # codes of the frame that `speak` has not answered yet
    waiting_B: Tensor  # bool: there is such a frame
    begun_B: Tensor  # bool: the conversation has begun, with its first tick


class Moshi:
    """A duplex family.

    Args:
        sampling: for conversations that choose none.
        seed: of every conversation; None: each has its own.
        prompt: how instructions are given; None: the model takes none.
        guidance: conditions of conversations that choose none; None: none.
    Raises:
        PartError: parts that do not fit each other. ConfigError: a condition or a value that the model does not have.
    """

    def __init__(
        self,
        model: MoshiModel,
        mimi: Mimi,
        pieces: Pieces,
        *,
        sampling: Sampling | None = None,
        seed: int | None = None,
        prompt: PromptConfig | None = None,
        guidance: Guidance | None = None,
    ):
        self.model, self.mimi, self.pieces, self.config = model, mimi, pieces, model.config
        self.generator, self.seed, self.prompt = MoshiGenerator(model, sampling, guidance), seed, prompt
        self._check()
        rate, frame = mimi.config.sample_rate, 1 / mimi.config.frame_rate
        self.spec = StreamSpec(input_rate=rate, output_rate=rate, tick=frame, duplex=True)

    def _check(self) -> None:
        c, q, prompt = self.config, self.mimi.config.quantizer, self.prompt
        most = max(c.heard_codebooks, c.own_codebooks)
        fewest = min(c.heard_codebooks, c.own_codebooks or q.semantic)
        if not q.semantic <= fewest <= most <= q.codebooks or c.codebook_size != q.codebook_size:
            raise PartError(
                f"Moshi: the language model hears {c.heard_codebooks} and says {c.own_codebooks} codebooks of "
                f"{c.codebook_size} codes, the codec has {q.semantic} to {q.codebooks} of {q.codebook_size}. "
                "Use the codec that it was trained with."
            )
        if prompt and (len(prompt.said), len(prompt.heard)) != (c.own_codebooks, c.heard_codebooks):
            raise PartError(
                f"Moshi: the prompt's frames have {len(prompt.said)} and {len(prompt.heard)} codes, the model says "
                f"{c.own_codebooks} and hears {c.heard_codebooks}"
            )

    def init_state(self, slots: int) -> FamilyState:
        model = self.generator.init_state(slots)
        ids_B = torch.zeros_like(model.seed_B)
        return FamilyState(
            model=model,
            codec=self.mimi.init_state(slots),
            heard_BK=ids_B[:, None].repeat(1, self.config.heard_codebooks),
            waiting_B=ids_B.bool(),
            begun_B=ids_B.bool(),
        )

    def choose(self, state: FamilyState, slot: int, *, sampling: Sampling | None = None, seed: int = 0) -> None:
        """How one conversation draws, until it is reset. `seed` 0: the family's."""
        self.generator.choose(state.model, slot, sampling=sampling, seed=seed)

    def guide(self, state: FamilyState, slot: int, guidance: Guidance) -> None:
        """Under which conditions one conversation speaks, until it is reset.

        Raises:
            ConfigError: a condition or a value that the model does not have, or the conversation has begun.
        """
        self.generator.guide(state.model, slot, guidance)

    def write(self, state: FamilyState, slot: int, role: str, text: str) -> Iterator[None]:
        """Instructions before the first tick, where the model was trained to take them; one frame a piece of work."""
        prompt, c = self.prompt, self.config
        if role != "system" or prompt is None:
            kinds = "instructions alone are" if prompt else "no text is"
            raise PartError(f"write: to this Moshi {kinds} given, got a text of the role {role!r}; speak to it")
        if bool(state.begun_B[slot]):
            raise PartError("write: instructions come before the first tick; begin a new conversation")
        ids, pause = self.pieces.encode(f"{prompt.begin}{text.strip()}{prompt.end}"), [c.padding_id] * prompt.pause
        if len(ids) + 2 * len(pause) > c.temporal.context:
            raise PartError(f"write: instructions of {len(ids)} pieces are longer than the model's memory; say less")
        slots, device = len(state.begun_B), state.heard_BK.device
        live_B = torch.arange(slots, device=device) == slot
        self._begin(state, live_B)
        heard_BK = torch.tensor(prompt.heard, device=device).repeat(slots, 1)
        for token in [*pause, *ids, *pause]:
            forced_BK = torch.tensor([token, *prompt.said], device=device).repeat(slots, 1)
            self.generator.step(state.model, heard_BK, live_B, forced_BK=forced_BK)
            yield

    def listen(self, state: FamilyState, audio_BN: Tensor, live_B: Tensor) -> None:
        device = state.heard_BK.device
        live_B = live_B.to(device)
        if not bool(live_B.any()):
            return
        first_B = live_B & (state.model.cache.offset_B == 0)
        self._begin(state, live_B)
        codes_BKT = self.mimi.encode(
            audio_BN.to(device), state.codec.encoder, live_B, num_codebooks=self.config.heard_codebooks
        )
        if bool(first_B.any()):  # nothing but this frame has been heard, and the language model passes it over
            state.codec.encoder.reset(first_B)
        state.heard_BK[live_B] = codes_BKT[live_B, :, 0]
        state.waiting_B |= live_B
        state.begun_B |= live_B

    def _begin(self, state: FamilyState, live_B: Tensor) -> None:
        """Gives conversations that have not begun their seed."""
        for slot in (live_B & (state.model.cache.offset_B == 0) & (state.model.seed_B == 0)).nonzero()[:, 0].tolist():
            state.model.seed_B[slot] = secrets.randbits(62) if self.seed is None else self.seed

    def speak(self, state: FamilyState, live_B: Tensor) -> Frame:
        """One frame for each that was heard. It is silence until the first one is complete, `max_delay` ticks."""
        c, device = self.config, state.heard_BK.device
        live_B = live_B.to(device) & state.waiting_B
        out_BK = self.generator.step(state.model, state.heard_BK, live_B)
        state.waiting_B &= ~live_B
        whole_B = out_BK[:, 0] != UNGENERATED
        audio_BN = torch.zeros(len(live_B), self.spec.output_samples, device=device)
        if c.own_codebooks and bool(whole_B.any()):
            decoded_BN = self.mimi.decode(out_BK[:, 1:, None].clamp_min(0), state.codec.decoder, whole_B)
            audio_BN[whole_B] = decoded_BN[whole_B].float().clamp(-1.0, 1.0)
        ids = [[token if self.pieces.speaks(token) else -1] for token in out_BK[:, 0].tolist()]
        return Frame(
            audio_BN=audio_BN,
            samples_B=live_B.long() * (self.spec.output_samples if c.own_codebooks else 0),
            ids_BT=torch.tensor(ids),
            done_B=torch.zeros_like(live_B),
        )

    def end_turn(self, state: FamilyState, live_B: Tensor) -> None:
        """Nothing happens: there are no turns."""

    def resume(self, state: FamilyState, live_B: Tensor) -> None:
        """Nothing happens: there are no turns."""

    def truncate(self, state: FamilyState, live_B: Tensor, heard_ticks_B: Tensor) -> None:
        """Nothing happens: what was said was said, and the model hears for itself that it is interrupted."""

    def say(self, state: FamilyState, slot: int, text: str) -> None:
        """Has a text said, beginning with the next frame; the model paces it (`script`)."""
        ids = self.pieces.encode(text.strip())
        append(state.model.script, slot, ids, [not place or self.pieces.begins(id) for place, id in enumerate(ids)])

    def heard(self, state: FamilyState, slot: int) -> str:
        """The words since the user was last silent for a second, where the model has a head for them; else nothing."""
        written_N = state.model.written_BN[slot]
        return self.pieces.decode((written_N[written_N > 0] - 1).tolist())

    def complete(self, state: FamilyState, slot: int) -> float | None:
        return None

    def overhear(self, audio_N: Tensor, expected: Sequence[str] = ()) -> str:
        """Nothing, as `heard`."""
        return ""

    def text(self, ids: list[int]) -> str:
        return self.pieces.decode(ids)
