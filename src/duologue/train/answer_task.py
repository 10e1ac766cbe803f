"""Stage 1, answers: the adapter and low-rank changes to the language model, by cross-entropy on the answers.

Half of the questions are read, half are heard: as text tokens, or as the listener's states through the adapter. So the
model keeps what it knows of text, and an answer from speech becomes what an answer from text would be (stage 1
of arXiv:2409.06666, section 2.5, with the text path beside it). The listener is frozen; what it hears is cached.

A row is: instructions, the user's turn, the question, the hand-over, the answer, the end of the turn. Only the answer's
tokens and the end are labels: the state at the hand-over's last token predicts the answer's first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from duologue.codecs.text import Message, TextCodec, load_tokenizer
from duologue.data.batches import BatchConfig
from duologue.data.manifest import Turn
from duologue.errors import CheckpointError, ConfigError, DataError
from duologue.models.llama_omni.adapter import ReadoutAdapter, ReadoutConfig, Speller
from duologue.models.llama_omni.listener import Heard
from duologue.models.llama_omni.loading import fill_in
from duologue.nn.lora import add_lora, lora_layers
from duologue.nn.transformer import Transformer
from duologue.train import features
from duologue.train import rows as manifest
from duologue.train.distributed import to_device
from duologue.train.parts import (
    find,
    fingerprint,
    load_language_model,
    load_listener,
    load_part,
    load_tensors,
    save_part,
)

IGNORED = -100  # label of positions that carry no loss
SYSTEM = "You are mini, a friendly voice assistant. Today is {weekday}, {date}, {year}."
COLUMNS = ("question", "answer", "split", "units")


@dataclass(frozen=True, kw_only=True)
class AnswerTask:
    """Questions, heard or read, and their answers."""

    data: str  # a data folder
    listener: str = ""  # a folder that the stage `listen` exported, or another one, see parts.load_listener; empty:
    # questions are only read, and there is no adapter
    llm: str = "smollm2-135m-instruct"  # an artefact, a GGUF file, or a folder of transformers (Llama, Qwen)
    dtype: str = "bf16"  # of the frozen language model
    system: str = SYSTEM  # instructions; each batch has a day of its own, a row that speaks of one has that
    heard: float = 0.5  # share of the questions that are heard (where the row has audio); the others are read
    rank: int = 16
    alpha: float = 32.0
    hidden: int = 512  # width of the adapter
    sharpness: float = 8.0  # of its readout, see ReadoutConfig; what docs/log.md found best
    rows: int = 16
    longest: float = 12.0  # seconds of a question
    start: str = ""  # a folder of this stage to go on from; empty: from nothing
    changes: str = ""  # a folder of this stage: its changes to the language model are taken over, and stay as they are
    held_out: int = 60  # questions of the split dev in an evaluation
    cache: str = ""  # where the listener's states are kept; empty: in the data folder

    def __post_init__(self) -> None:
        if not 0 <= self.heard <= 1:
            raise ConfigError(f"AnswerTask.heard must lie between 0 and 1, got {self.heard}")
        if self.heard and not self.listener:
            raise ConfigError(f"AnswerTask: heard={self.heard} needs a listener; set one, or heard=0")

    def make(self) -> _Answering:
        """The task."""
        return _Answering(self)


class AnswerModel(nn.Module):
    """What is trained, and the frozen model round it."""

    def __init__(self, adapter: ReadoutAdapter | None, llm: Transformer):
        super().__init__()
        self.adapter, self.llm = adapter, llm


@dataclass(frozen=True)
class AnswerBatch:
    """Rows with their instructions apart, for many rows have the same."""

    systems_ST: Tensor  # token ids, padded
    counts_S: Tensor
    system_B: Tensor  # which of them opens each row
    ids_BT: Tensor  # user's turn to end of answer; where a question is heard, its places hold 0
    labels_BT: Tensor
    counts_B: Tensor
    heard_BT: Tensor  # True at places of heard questions
    heard: Heard | None  # in tokens, of the rows that have such places, in their order


class _Answering:
    """`AnswerTask` at work."""

    def __init__(self, config: AnswerTask):
        self.config = config
        self._codec: TextCodec | None = None

    def build(self) -> nn.Module:
        c = self.config
        llm, self._codec = load_language_model(c.llm, c.dtype)
        adapter = None
        if c.listener:
            shape = ReadoutConfig(
                state_dim=self.state_dim, hidden_dim=c.hidden, llm_dim=llm.config.dim, sharpness=c.sharpness
            )
            adapter = ReadoutAdapter(shape)
        add_lora(llm, rank=c.rank, alpha=c.alpha, targets=("blocks.*",))
        if adapter and c.start and (find(c.start) / "adapter.safetensors").exists():
            load_part(adapter, "adapter", find(c.start)).train()
        if c.changes or c.start:
            folder = find(c.changes or c.start)
            put_changes(llm, load_tensors(folder / "llm_lora.safetensors"), where=str(folder))
        for _, layer in lora_layers(llm) if c.changes else ():
            layer.requires_grad_(False)
        return AnswerModel(adapter, llm)

    @property
    def state_dim(self) -> int:
        """Width of the listener's states."""
        return load_listener(self.config.listener)[0].config.whisper.dim

    @property
    def codec(self) -> TextCodec:
        """The language model's tokenizer."""
        if self._codec is None:
            self._codec = load_language_model(self.config.llm, self.config.dtype)[1]
        return self._codec

    @functools.cached_property
    def _speller(self) -> Speller:
        listener, tokenizer = load_listener(self.config.listener)
        return Speller(load_tokenizer(tokenizer), self.codec, vocab_size=listener.config.end + 1)

    def spelt(self, heard: Heard) -> Heard:
        """What was heard in the language model's tokens."""
        return self._speller(heard)

    @functools.cached_property
    def heard(self) -> features.RowCache:
        """What the listener hears in every question of the data."""
        c = self.config
        listener = features.to_card(load_listener(c.listener)[0])
        return features.cached(
            c.data,
            f"heard-{fingerprint(listener)}",
            functools.partial(features.heard, listener=listener),
            columns=("question_audio", "question_seconds"),
            like=features.heard_like(listener),
            cache=c.cache,
        )

    def prepare(self) -> None:
        if self.config.heard:
            self.heard  # noqa: B018

    def batches(self, seed: int, position: int) -> Iterator[Callable[[], AnswerBatch]]:
        c = self.config
        chosen = BatchConfig(folder=c.data, columns=COLUMNS, rows=c.rows, longest=c.longest, seed=seed)
        for number, _, turns in manifest.stream([chosen], seed=seed, position=position):
            turns = [turn for turn in turns if turn.question.strip() and turn.answer.strip()]
            if not turns:
                raise DataError(f"{c.data}: a whole batch without a question and an answer; need rows with both")
            yield functools.partial(self._drawn, turns, seed, number)

    def _drawn(self, turns: list[Turn], seed: int, number: int) -> AnswerBatch:
        rng = np.random.default_rng((seed, 4, number))
        hear = [bool(draw < self.config.heard) for draw in rng.random(len(turns))]
        return self._batch(turns, hear, system_day=rng)

    def _batch(self, turns: Sequence[Turn], hear: Sequence[bool], *, system_day: np.random.Generator) -> AnswerBatch:
        """Puts rows together; a question that is to be heard but was not is read."""
        common, frames = manifest.any_day(system_day), features.Frames.of(self.codec)
        days = [manifest.day_of(turn.id) or common for turn in turns]
        systems = list(dict.fromkeys(days))
        ids, labels, marks = [], [], []
        hear = [wanted and turn.id in self.heard for turn, wanted in zip(turns, hear, strict=True)]
        kept = [self.heard[turn.id] for turn, wanted in zip(turns, hear, strict=True) if wanted]
        spelt = self.spelt(features.padded_heard(kept)) if kept else None
        counts = iter(spelt.counts_B.tolist() if spelt is not None else ())
        for turn, wanted in zip(turns, hear, strict=True):
            question = [0] * next(counts) if wanted else self.codec.encode(turn.question)
            mark = [wanted] * len(question)
            answer = [*self.codec.encode(turn.answer), frames.end]
            row = [*frames.opening, *question, *frames.to_answer, *answer[:-1]]
            ids.append(torch.tensor(row))
            labels.append(torch.tensor([IGNORED] * (len(row) - len(answer)) + answer))
            marks.append(
                torch.tensor(
                    [False] * len(frames.opening) + mark + [False] * (len(row) - len(frames.opening) - len(mark))
                )
            )
        prompts = [
            torch.tensor(self.codec.chat([Message("system", fill_in(self.config.system, day))], answer=False))
            for day in systems
        ]
        return AnswerBatch(
            systems_ST=_padded(prompts, 0),
            counts_S=torch.tensor([len(prompt) for prompt in prompts]),
            system_B=torch.tensor([systems.index(day) for day in days]),
            ids_BT=_padded(ids, 0),
            labels_BT=_padded(labels, IGNORED),
            counts_B=torch.tensor([len(row) for row in ids]),
            heard_BT=_padded(marks, False),
            heard=spelt,
        )

    def loss(self, module: nn.Module, batch: AnswerBatch) -> tuple[Tensor, dict[str, float | Tensor]]:
        value = cross_entropy(module, batch)  # type: ignore[arg-type]
        return value, {"weight": int((batch.labels_BT != IGNORED).sum())}

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Cross-entropy of held-out answers to questions that are read (`text`), and, where the run hears any, to the
        same questions heard (`states`)."""
        device, found = next(module.parameters()).device, {}
        hears = self.config.heard > 0
        turns = [
            turn
            for _, turn in manifest.held_out([self.config.data], COLUMNS, most=4 * self.config.held_out)
            if turn.answer.strip() and (turn.id in self.heard if hears else turn.question.strip())
        ][: self.config.held_out]
        for name, hear in (("text", False), ("states", True))[: 1 + hears]:
            total, weight = 0.0, 0
            for begin in range(0, len(turns), self.config.rows):
                rows = turns[begin : begin + self.config.rows]
                batch = self._batch(rows, [hear] * len(rows), system_day=np.random.default_rng(begin))
                batch = to_device(batch, device)
                tokens = int((batch.labels_BT != IGNORED).sum())
                total += float(cross_entropy(module, batch)) * tokens  # type: ignore[arg-type]
                weight += tokens
            found[name] = total / max(1, weight)
        return found

    def export(self, module: nn.Module, folder: Path) -> None:
        """adapter.safetensors, adapter.json, llm_lora.safetensors."""
        assert isinstance(module, AnswerModel)
        if module.adapter is not None:
            save_part(module.adapter, "adapter", folder)
        save_file(changes(module.llm), folder / "llm_lora.safetensors")


def changes(llm: Transformer) -> dict[str, Tensor]:
    """The low-rank changes as a model folder holds them: `x.lora_A`, and `x.lora_B` with the scale in it."""
    tensors = {}
    for name, layer in lora_layers(llm):
        tensors[f"{name}.lora_A"] = layer.lora_a.detach().cpu().clone()
        tensors[f"{name}.lora_B"] = layer.lora_b.detach().cpu() * layer.scale
    return tensors


@torch.no_grad()
def put_changes(llm: Transformer, tensors: dict[str, Tensor], *, where: str) -> None:
    """The reverse of `changes`.

    Raises:
        CheckpointError: changes to other layers, or of another rank.
    """
    layers = dict(lora_layers(llm))
    for name, layer in layers.items():
        for part, own, scale in (("lora_A", layer.lora_a, 1.0), ("lora_B", layer.lora_b, layer.scale)):
            given = tensors.get(f"{name}.{part}")
            if given is None or given.shape != own.shape or len(tensors) != 2 * len(layers):
                raise CheckpointError(f"{where}: {name}.{part} does not fit; use the same language model and rank")
            own.copy_(given.float() / scale)


def cross_entropy(model: AnswerModel, batch: AnswerBatch) -> Tensor:
    """The mean over the answers' tokens. The instructions pass without a gradient, once each."""
    llm = model.llm
    B, T = batch.ids_BT.shape
    cache = features.opened(llm, batch.systems_ST, batch.counts_S, batch.system_B, room=T)
    x_BTD = llm.embedding(batch.ids_BT)
    if batch.heard is not None and model.adapter is not None:
        embeddings_HTD = model.adapter(batch.heard, llm.embedding)
        real_HT = torch.arange(embeddings_HTD.shape[1], device=x_BTD.device) < batch.heard.counts_B[:, None]
        x_BTD = x_BTD.clone()
        x_BTD[batch.heard_BT] = embeddings_HTD[real_HT].to(x_BTD.dtype)
    live_B = torch.ones(B, dtype=torch.bool, device=x_BTD.device)
    hidden_BTD = llm(x_BTD, cache, live_B, batch.counts_B)
    keep_BT = batch.labels_BT != IGNORED
    return F.cross_entropy(llm.logits(hidden_BTD[keep_BT]).float(), batch.labels_BT[keep_BT])


def _padded(rows: Sequence[Tensor], value: float) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
