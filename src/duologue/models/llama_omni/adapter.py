"""Adapters: from what the listener hears to what the language model reads.

`StackingAdapter` is the paper's: k encoder frames side by side, two layers (Fang et al. 2024, arXiv:2409.06666, 2.2).
`ReadoutAdapter` is mini's: the listener's decoder states, read out as a mixture of the language model's embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from duologue.codecs.text import TextCodec
from duologue.errors import ConfigError
from duologue.models.llama_omni.listener import Heard


@dataclass(frozen=True, kw_only=True)
class StackingConfig:
    """Shape of the paper's adapter. Defaults: Llama-3.1-8B-Omni."""

    encoder_dim: int = 1280
    stack: int = 5  # frames side by side
    hidden_dim: int = 2048
    llm_dim: int = 4096

    def __post_init__(self):
        if self.stack < 1:
            raise ConfigError(f"StackingConfig: stack must be at least 1, got {self.stack}")


class StackingAdapter(nn.Module):
    """Every k encoder frames become one embedding; frames that do not fill a group are dropped, as in the release."""

    def __init__(self, config: StackingConfig):
        super().__init__()
        self.config = config
        self.linear1 = nn.Linear(config.stack * config.encoder_dim, config.hidden_dim)
        self.linear2 = nn.Linear(config.hidden_dim, config.llm_dim)

    def forward(self, encoded_BTD: Tensor, steps_B: Tensor) -> tuple[Tensor, Tensor]:
        """Returns embeddings_BTD, T // stack steps long, and how many of them are real."""
        B, T, D = encoded_BTD.shape
        stack = self.config.stack
        grouped = encoded_BTD[:, : T // stack * stack].reshape(B, T // stack, stack * D)
        return self.linear2(F.relu(self.linear1(grouped))), steps_B // stack


@dataclass(frozen=True, kw_only=True)
class ReadoutConfig:
    """Shape of mini's adapter."""

    state_dim: int = 384
    hidden_dim: int = 512
    llm_dim: int = 576


class PieceTable(nn.Module):
    """Which tokens of the language model spell each word piece of the listener; holds no weights of its own."""

    ids_VP: Tensor
    first_VP: Tensor

    def __init__(self, listener: Tokenizer, llm: TextCodec, *, vocab_size: int, most: int = 4):
        super().__init__()
        pieces = listener.decode_batch([[index] for index in range(vocab_size)], skip_special_tokens=False)
        spelt = self._spell(pieces, llm, most)
        self.register_buffer("ids_VP", spelt, persistent=False)
        spaced = [index for index, piece in enumerate(pieces) if piece[:1] == " " and piece.strip(" ")]
        first = spelt.clone()
        first[spaced] = self._spell([pieces[index].lstrip(" ") for index in spaced], llm, most)
        self.register_buffer("first_VP", first, persistent=False)

    @staticmethod
    def _spell(pieces: Sequence[str], llm: TextCodec, most: int) -> Tensor:
        rows = [
            (encoding.ids + [-1] * most)[:most]
            for encoding in llm.tokenizer.encode_batch(list(pieces), add_special_tokens=False)
        ]
        return torch.tensor(rows, dtype=torch.int64).view(-1, most)

    def embed(self, ids_BTK: Tensor, embedding: nn.Module, first_B: Tensor) -> Tensor:
        """The mean of the language model's embeddings of each piece.

        Args:
            first_B: rows whose first piece opens the turn: it has no space before it.
        """
        spelt = self.ids_VP[ids_BTK]
        spelt[first_B, :1] = self.first_VP[ids_BTK[first_B, :1]]
        inside = (spelt >= 0)[..., None]
        return (embedding(spelt.clamp(min=0)) * inside).sum(-2) / inside.sum(-2).clamp(min=1)


class ReadoutAdapter(nn.Module):
    """One embedding a word piece: the guesses' embeddings weighed by their probabilities, corrected from the state.

    The weights are a function of the decoder's state alone, so doubt is kept: the language model hears a
    mixture of two words where a recogniser would have written one of them.
    """

    def __init__(self, config: ReadoutConfig):
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(config.state_dim)
        self.up = nn.Linear(config.state_dim + config.llm_dim, config.hidden_dim)
        self.down = nn.Linear(config.hidden_dim, config.llm_dim)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, heard: Heard, table: PieceTable, embedding: nn.Module, first_B: Tensor | None = None) -> Tensor:
        """Embeddings for the language model, [B, T, llm_dim]; `first_B`: see `PieceTable.embed`, None for all."""
        first_B = torch.ones_like(heard.counts_B, dtype=torch.bool) if first_B is None else first_B
        guesses_BTKD = table.embed(heard.guess_ids_BTK, embedding, first_B)
        weights_BTK = heard.guess_probs_BTK.to(guesses_BTKD.dtype)
        readout_BTD = (weights_BTK[..., None] * guesses_BTKD).sum(-2)
        scale = embedding_scale(embedding)
        state_BTD = self.norm(heard.states_BTD.to(self.norm.weight.dtype))
        features = torch.cat([state_BTD, (readout_BTD / scale).to(state_BTD.dtype)], dim=-1)
        return readout_BTD + (scale * self.down(F.gelu(self.up(features)))).to(readout_BTD.dtype)


def embedding_scale(embedding: nn.Module) -> float:
    """Root mean square of a sample of an embedding table: the size that a correction is measured in."""
    rows = torch.arange(1000, 2000) % int(embedding.num_embeddings)  # type: ignore[arg-type]
    weight = embedding(rows)
    return float(weight.float().square().mean().sqrt())
