"""Stage 2, speaking: the speech decoder learns units of answers, and their prosody, from the language model's states.

Everything else is frozen, so its states are worked out once and cached. The units are learnt by CTC over the upsampled
grid (Fang et al. 2024, arXiv:2409.06666, 2.4). Prosody is learnt at the step where each unit begins on the most likely
path, which is where it will be read off; as long as there is no good path, it is left out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.codecs.text import TextCodec
from duologue.data.batches import BatchConfig
from duologue.data.manifest import Turn, read_rows
from duologue.errors import DataError
from duologue.models.llama_omni.prepared import merge
from duologue.models.llama_omni.speech_decoder import SpeechDecoder, SpeechDecoderConfig
from duologue.nn.ctc import align, collapse, init_collapse
from duologue.nn.transformer import Transformer
from duologue.train import features
from duologue.train import rows as manifest
from duologue.train.answer_task import SYSTEM
from duologue.train.distributed import to_device
from duologue.train.parts import find, fingerprint, load_language_model, load_part, load_tensors, save_part

TYPICAL = (1.3, 5.25, -4.5)  # log frames, log f0, log energy of a unit: where the prosody head begins
SPREAD = (0.6, 0.2, 1.5)  # and what an error in each is measured by
COLUMNS = ("question", "answer", "units", "unit_prosody")


@dataclass(frozen=True, kw_only=True)
class SpeechTask:
    """Answers as the language model writes them, and as the teacher says them."""

    data: str  # a data folder
    more: tuple[str, ...] = ()  # further ones, such as lists of words
    answers: str = ""  # a folder that the stage `answers` exported: changes to the language model; empty: none
    llm: str = "smollm2-135m-instruct"
    dtype: str = "bf16"  # of the frozen language model
    system: str = SYSTEM
    decoder: SpeechDecoderConfig = field(default_factory=SpeechDecoderConfig)  # llm_dim is the language model's
    rows: int = 24
    dropout: float = 0.1  # of the states and of the embeddings
    prosody: float = 0.15  # weight of the prosody's error beside that of the units
    prosody_after: int = 150  # micro-batches without it
    flush: int = 2  # times the end of the text is shown, as OmniOptions.flush_steps
    start: str = ""  # a folder of this stage to go on from; empty: from nothing
    held_out: int = 80  # answers of the split dev in an evaluation
    cache: str = ""  # where the language model's states are kept; empty: in each data folder

    def make(self) -> _Speaking:
        """The task."""
        return _Speaking(self)


class SpeechModel(nn.Module):
    """The decoder, and the language model's token embeddings, which are frozen."""

    def __init__(self, decoder: SpeechDecoder, embedding_VD: Tensor):
        super().__init__()
        self.decoder = decoder
        self.embedding = nn.Embedding.from_pretrained(embedding_VD, freeze=True)


@dataclass(frozen=True)
class SpeechBatch:
    states_BTD: Tensor
    ids_BT: Tensor  # tokens of the answer, its end, and the end again
    steps_B: Tensor  # how many of them
    units_BU: Tensor
    counts_B: Tensor
    prosody_BUP: Tensor
    with_prosody: bool


class _Speaking:
    """`SpeechTask` at work."""

    def __init__(self, config: SpeechTask):
        self.config = config

    @functools.cached_property
    def _llm(self) -> tuple[Transformer, TextCodec]:
        llm, codec = load_language_model(self.config.llm, self.config.dtype)
        if self.config.answers:
            path = find(self.config.answers) / "llm_lora.safetensors"
            merge(llm, load_tensors(path), where=str(path))
        return llm, codec

    @functools.cached_property
    def shape(self) -> SpeechDecoderConfig:
        """The decoder's, for this language model."""
        return replace(self.config.decoder, llm_dim=self._llm[0].config.dim)

    def build(self) -> nn.Module:
        decoder = SpeechDecoder(self.shape)
        if self.config.start:
            load_part(decoder, "speech_decoder", find(self.config.start))
        else:
            last: nn.Linear = decoder.prosody[-1]  # type: ignore[assignment]
            with torch.no_grad():
                last.bias.copy_(torch.tensor(TYPICAL))
        return SpeechModel(decoder, self._llm[0].embedding.weight.detach().float().cpu())

    @functools.cached_property
    def states(self) -> list[features.RowCache]:
        """What the language model thinks as it writes each answer, a cache a folder."""
        c, (llm, codec) = self.config, self._llm
        features.to_card(llm)
        name = f"thoughts-{fingerprint(llm)}"
        make = functools.partial(features.answer_states, llm=llm, codec=codec, system=c.system)
        like = features.answer_states_like(llm)
        columns, caches = ("question", "answer", "units"), []
        for folder in (c.data, *c.more):
            place = str(Path(c.cache) / Path(folder).name) if c.cache else ""
            caches.append(features.cached(folder, name, make, columns=columns, like=like, cache=place))
        return caches

    def prepare(self) -> None:
        self.states  # noqa: B018

    def batches(self, seed: int, position: int) -> Iterator[Callable[[], SpeechBatch]]:
        c = self.config
        folders = [
            BatchConfig(folder=folder, columns=COLUMNS, rows=c.rows, length="units", shortest=1, seed=seed)
            for folder in (c.data, *c.more)
        ]
        for number, index, turns in manifest.stream(folders, seed=seed, position=position):
            fitting = [(index, turn) for turn in turns if self._fits(index, turn)]
            yield functools.partial(self._batch, fitting or self._spare, number >= c.prosody_after)

    @functools.cached_property
    def _spare(self) -> list[tuple[int, Turn]]:
        """One row that fits, in place of a batch in which none does."""
        for index, folder in enumerate((self.config.data, *self.config.more)):
            for turn in read_rows(Path(folder), split="train", columns=COLUMNS):
                if self._fits(index, turn):
                    return [(index, turn)]
        raise DataError(f"{self.config.data}: no answer's units fit its tokens; raise decoder.upsample")

    def _fits(self, index: int, turn: Turn) -> bool:
        """Whether CTC can spell the units: each its own step of the grid, and a blank between equal ones."""
        if turn.id not in self.states[index]:
            return False
        pauses = sum(one == other for one, other in zip(turn.units, turn.units[1:], strict=False))
        steps = (self.states[index].count(turn.id) + self.config.flush) * self.shape.upsample
        return bool(turn.units) and len(turn.units) + pauses <= steps

    def _batch(self, rows: Sequence[tuple[int, Turn]], with_prosody: bool) -> SpeechBatch:
        states, ids, flush = [], [], self.config.flush
        turns = [turn for _, turn in rows]
        for index, turn in rows:
            row = self.states[index][turn.id]
            thoughts_TD = row["states"].float()
            states.append(torch.cat([thoughts_TD, thoughts_TD[-1:].expand(flush, -1)]))
            ids.append(torch.cat([row["ids"], row["ids"][-1:].expand(flush)]).long())
        pad = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
        return SpeechBatch(
            states_BTD=pad(states),
            ids_BT=pad(ids),
            steps_B=torch.tensor([len(row) for row in ids]),
            units_BU=pad([torch.tensor(turn.units) for turn in turns]),
            counts_B=torch.tensor([len(turn.units) for turn in turns]),
            prosody_BUP=pad([torch.from_numpy(turn.prosody()) for turn in turns]),
            with_prosody=with_prosody,
        )

    def loss(self, module: nn.Module, batch: SpeechBatch) -> tuple[Tensor, dict[str, float | Tensor]]:
        c, rate = self.config, self.config.dropout if module.training else 0.0
        log_probs_BGV, prosody_BGP = decoded(module, batch, dropout=rate)  # type: ignore[arg-type]
        units = F.ctc_loss(
            log_probs_BGV.transpose(0, 1),
            batch.units_BU,
            batch.steps_B * self.shape.upsample,
            batch.counts_B,
            blank=self.shape.num_units,
            zero_infinity=True,
        )
        value, errors = units, torch.zeros(len(SPREAD), device=units.device)
        if batch.with_prosody:
            errors = prosody_errors(log_probs_BGV, prosody_BGP, batch, self.shape)
            value = units + c.prosody * errors.sum()
        parts = dict(zip(("length", "pitch", "energy"), errors.detach().tolist(), strict=True))
        return value, {"weight": len(batch.ids_BT), "ctc": units.detach(), **parts}

    @functools.cached_property
    def _held_out(self) -> list[tuple[int, Turn]]:
        c = self.config
        rows = manifest.held_out((c.data, *c.more), COLUMNS, most=4 * c.held_out)
        return [(index, turn) for index, turn in rows if self._fits(index, turn)][: c.held_out]

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Unit error rate of greedy decoding, and mean errors of the prosody in the units of `SPREAD`."""
        device, edits, length, errors = next(module.parameters()).device, 0, 0, []
        for begin in range(0, len(self._held_out), self.config.rows):
            rows = self._held_out[begin : begin + self.config.rows]
            batch = to_device(self._batch(rows, True), device)
            log_probs_BGV, prosody_BGP = decoded(module, batch)  # type: ignore[arg-type]
            errors.append(prosody_errors(log_probs_BGV, prosody_BGP, batch, self.shape) * len(rows))
            for (_, turn), said in zip(rows, _collapsed(log_probs_BGV, batch, self.shape), strict=True):
                edits += distance(turn.units, said)
                length += len(turn.units)
        count = max(1, len(self._held_out))
        means = torch.stack(errors).sum(0) / count if errors else torch.zeros(len(SPREAD))
        parts = dict(zip(("length", "pitch", "energy"), means.tolist(), strict=True))
        return {"unit_error_rate": edits / max(1, length), **parts}

    def export(self, module: nn.Module, folder: Path) -> None:
        """speech_decoder.safetensors, speech_decoder.json."""
        assert isinstance(module, SpeechModel)
        save_part(module.decoder, "speech_decoder", folder)


def decoded(model: SpeechModel, batch: SpeechBatch, *, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
    """Log probabilities over units and blank, and prosody, at every step of the grid."""
    B, T = batch.ids_BT.shape
    state = model.decoder.init_state(B, T)
    live_B = torch.ones(B, dtype=torch.bool, device=batch.ids_BT.device)
    states_BTD = F.dropout(batch.states_BTD, dropout)
    token_BTD = F.dropout(model.embedding(batch.ids_BT), dropout)
    logits_BGV, prosody_BGP = model.decoder(states_BTD, token_BTD, state, live_B)
    return logits_BGV.float().log_softmax(-1), prosody_BGP.float()


def prosody_errors(
    log_probs_BGV: Tensor, prosody_BGP: Tensor, batch: SpeechBatch, shape: SpeechDecoderConfig
) -> Tensor:
    """The mean absolute error of each kind of prosody where the units begin, pitch over voiced units alone."""
    first_BU = align(
        log_probs_BGV, batch.units_BU, batch.steps_B * shape.upsample, batch.counts_B, blank=shape.num_units
    )
    guess_BUP = prosody_BGP.gather(1, first_BU.clamp(min=0)[..., None].expand(-1, -1, prosody_BGP.shape[-1]))
    counted_BUP = (first_BU >= 0)[..., None].repeat(1, 1, len(SPREAD))
    counted_BUP[..., 1] &= batch.prosody_BUP[..., 1] > 0
    off_BUP = (guess_BUP - batch.prosody_BUP).abs() / prosody_BGP.new_tensor(SPREAD)
    return (off_BUP * counted_BUP).sum((0, 1)) / counted_BUP.sum((0, 1)).clamp(min=1)


def _collapsed(log_probs_BGV: Tensor, batch: SpeechBatch, shape: SpeechDecoderConfig) -> list[list[int]]:
    best_BG, B = log_probs_BGV.argmax(-1), len(batch.ids_BT)
    live_B = torch.ones(B, dtype=torch.bool, device=best_BG.device)
    units_BG, counts_B, _ = collapse(
        best_BG,
        init_collapse(B, device=best_BG.device),
        live_B,
        blank=shape.num_units,
        steps_B=batch.steps_B * shape.upsample,
    )
    return [row[: int(count)].tolist() for row, count in zip(units_BG, counts_B, strict=True)]


def distance(one: Sequence[int], other: Sequence[int]) -> int:
    """Substitutions, insertions and deletions between two sequences (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, start=1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(other, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]
