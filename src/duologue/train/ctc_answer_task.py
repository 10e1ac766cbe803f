"""The paper's form of listening, stage 1: `AnswerTask` with what the CTC-aligned listener hears.

Each greedy token comes with its state and its best guesses, as a recogniser's word piece would: batches, loss and
measures are those of `AnswerTask`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from torch import Tensor, nn

from duologue.models.llama_omni.ctc_listener import CtcListener
from duologue.models.llama_omni.listener import Heard
from duologue.train import features
from duologue.train.answer_task import AnswerBatch, AnswerModel, AnswerTask, _Answering
from duologue.train.parts import fingerprint, load_ctc_listener, load_language_model


@dataclass(frozen=True, kw_only=True)
class CtcAnswerTask(AnswerTask):
    """`listener` is a folder that the stage `ctc` exported."""

    def make(self) -> _CtcAnswering:
        """The task."""
        return _CtcAnswering(self)


class _CtcAnswering(_Answering):
    """`CtcAnswerTask` at work."""

    config: CtcAnswerTask

    @property
    def state_dim(self) -> int:
        return load_ctc_listener(self.config.listener).config.ctc.dim

    def spelt(self, heard: Heard) -> Heard:
        return heard  # its pieces are tokens

    def loss(self, module: nn.Module, batch: AnswerBatch) -> tuple[Tensor, dict[str, float | Tensor]]:
        value, metrics = super().loss(module, batch)
        assert isinstance(module, AnswerModel) and module.adapter is not None
        untouched = sum(parameter.sum() for parameter in module.adapter.parameters())
        return value + 0 * untouched, metrics  # a batch in which nothing was heard has a gradient as well: zero

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """As `AnswerTask`; infinite, and so never the best, where the listener hears nothing at all."""
        return {name: value or math.inf for name, value in super().evaluate(module).items()}

    @functools.cached_property
    def heard(self) -> features.RowCache:
        """What the listener hears in every question of the data."""
        c = self.config
        embedding = load_language_model(c.llm, c.dtype)[0].embedding.float()
        listener = features.to_card(_Reading(load_ctc_listener(c.listener), embedding))
        shape = listener.listener.config.ctc
        return features.cached(
            c.data,
            f"heard-{fingerprint(listener)}",
            functools.partial(features.heard, listener=listener),
            columns=("question_audio", "question_seconds"),
            like=features.heard_shapes(shape.dim, shape.candidates),
            cache=c.cache,
        )


class _Reading(nn.Module):
    """A listener with the embeddings that it compares with."""

    def __init__(self, listener: CtcListener, embedding: nn.Embedding):
        super().__init__()
        self.listener, self.embedding = listener, embedding

    def hear(self, audio_BN: Tensor, samples_B: Tensor) -> Heard:
        return self.listener.hear(audio_BN, samples_B, self.embedding)
