"""Adapters: from what the listener hears to what the language model reads.

`StackingAdapter` is the paper's: k encoder frames side by side, two layers (Fang et al. 2024, arXiv:2409.06666, 2.2).
`ReadoutAdapter` is mini's: the listener's states, one a word piece, read out as a mixture of the language model's
embeddings. `ctc_listener.CtcAdapter`, aligned by CTC, gives such states without a recogniser's decoder.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

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
    sharpness: float = 4.0  # power of the probabilities: the listener's doubts are smoothed, a sure word is that word


_UNREAD = -2


class Speller:
    """What was heard, piece by piece, in the language model's own tokens.

    A transcript is cut into tokens as the language model would cut it, so that hearing a sentence without doubt is the
    same as reading it. A token that is a whole piece keeps the listener's other guesses for that piece; one that lies
    across pieces, or within one, is taken as it was written.

    Args:
        listener: its tokenizer, and `llm` the language model's: byte-level BPE both, in which a letter of a token's
            name is a byte.
        vocab_size: pieces that the listener may write.
    """

    def __init__(self, listener: Tokenizer, llm: TextCodec, *, vocab_size: int):
        self.listener, self.llm = listener, llm
        self._sizes = [len(listener.id_to_token(index) or "") for index in range(vocab_size)]
        self._token_2V = torch.full((2, vocab_size), _UNREAD)  # within a turn, and as its first word

    def _tokens(self, pieces_BTK: Tensor, opens_BT: Tensor) -> Tensor:
        """The token that each piece is as a whole, -1 where it takes several. Pieces are read when first guessed."""
        new_N = pieces_BTK[self._token_2V[0, pieces_BTK] == _UNREAD].unique()
        if len(new_N):
            texts = self.listener.decode_batch([[index] for index in new_N.tolist()], skip_special_tokens=False)
            self._token_2V[0, new_N] = self._whole(texts)
            self._token_2V[1, new_N] = self._whole([text.removeprefix(" ") for text in texts])
        return self._token_2V[opens_BT.long()[..., None], pieces_BTK]

    def _whole(self, texts: Sequence[str]) -> Tensor:
        found = self.llm.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return torch.tensor([encoding.ids[0] if len(encoding.ids) == 1 else -1 for encoding in found])

    def __call__(self, heard: Heard, first_B: Tensor | None = None) -> Heard:
        """The same in tokens: every step has a token, the state of its piece, and guesses that are tokens.

        Args:
            first_B: rows that open the turn: there is no space before their first word. None: all.
        """
        first = [True] * len(heard.counts_B) if first_B is None else first_B.tolist()
        counts = heard.counts_B.tolist()
        rows = [
            self._row(heard.ids_BT[b, :count].tolist(), opens)
            for b, (count, opens) in enumerate(zip(counts, first, strict=True))
        ]
        device, K = heard.ids_BT.device, heard.guess_ids_BTK.shape[-1]
        shape = (len(rows), max((len(row) for row in rows), default=0))
        ids_BT = torch.full(shape, -1, device=device)
        piece_BT = torch.zeros(shape, dtype=torch.int64, device=device)
        whole_BT = torch.zeros(shape, dtype=torch.bool, device=device)
        for b, row in enumerate(rows):
            if row:
                token, piece, whole = zip(*row, strict=True)
                ids_BT[b, : len(row)] = torch.tensor(token, device=device)
                piece_BT[b, : len(row)] = torch.tensor(piece, device=device)
                whole_BT[b, : len(row)] = torch.tensor(whole, device=device)
        inside_BT = ids_BT >= 0
        slot_B1 = torch.arange(shape[0], device=device)[:, None]
        guesses_BTK = heard.guess_ids_BTK[slot_B1, piece_BT]
        opens_BT = (piece_BT == 0) & torch.tensor(first, device=device)[:, None]
        known_BTK = self._tokens(guesses_BTK.cpu(), opens_BT.cpu()).to(device)
        probs_BTK = heard.guess_probs_BTK[slot_B1, piece_BT] * (known_BTK >= 0)
        written_K = torch.arange(K, device=device) == 0
        sure_BT1 = (~whole_BT | (probs_BTK.sum(-1) <= 0))[..., None]
        known_BTK = torch.where(sure_BT1 & written_K, ids_BT[..., None], known_BTK).clamp(min=0)
        probs_BTK = torch.where(sure_BT1, written_K.to(probs_BTK), probs_BTK) * inside_BT[..., None]
        return Heard(
            ids_BT=ids_BT,
            counts_B=inside_BT.sum(1),
            states_BTD=heard.states_BTD[slot_B1, piece_BT] * inside_BT[..., None],
            guess_ids_BTK=known_BTK,
            guess_probs_BTK=probs_BTK,
        )

    def _row(self, pieces: list[int], opens: bool) -> list[tuple[int, int, bool]]:
        """(token, its piece, whether the two are the same text) of a transcript."""
        if not pieces:
            return []
        text, sizes = self.listener.decode(pieces, skip_special_tokens=False), [self._sizes[piece] for piece in pieces]
        if opens and text.startswith(" "):
            text, sizes[0] = text[1:], sizes[0] - 1
        ends = list(itertools.accumulate(sizes))
        encoding = self.llm.tokenizer.encode(text, add_special_tokens=False)
        row, begin, piece = [], 0, 0
        for token, name in zip(encoding.ids, encoding.tokens, strict=True):
            end = begin + len(name)
            while piece < len(ends) - 1 and ends[piece] < end:
                piece += 1
            row.append((token, piece, end == ends[piece] and len(name) == sizes[piece]))
            begin = end
        return row


class ReadoutAdapter(nn.Module):
    """One embedding a token: the guesses' embeddings weighed by their probabilities, corrected from the state.

    The weights are a function of the listener's state alone, so doubt is kept: the language model hears a
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

    def forward(self, heard: Heard, embedding: nn.Module, *, scale: float | None = None) -> Tensor:
        """Embeddings for the language model, [B, T, llm_dim].

        Args:
            heard: in the language model's tokens (`Speller`).
            scale: `embedding_scale(embedding)`, from callers whose embedding stays as it is; None: measured anew.
        """
        guesses_BTKD = embedding(heard.guess_ids_BTK)
        weights_BTK = heard.guess_probs_BTK.float() ** self.config.sharpness
        weights_BTK = (weights_BTK / weights_BTK.sum(-1, keepdim=True).clamp(min=1e-9)).to(guesses_BTKD.dtype)
        readout_BTD = (weights_BTK[..., None] * guesses_BTKD).sum(-2)
        scale = embedding_scale(embedding) if scale is None else scale
        state_BTD = self.norm(heard.states_BTD.to(self.norm.weight.dtype))
        features = torch.cat([state_BTD, (readout_BTD / scale).to(state_BTD.dtype)], dim=-1)
        return readout_BTD + (scale * self.down(F.gelu(self.up(features)))).to(readout_BTD.dtype)


class EmbeddingScale:
    """`embedding_scale` of embeddings that no training changes: measured once for each."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()

    def __call__(self, embedding: nn.Module) -> float:
        if embedding not in self._known:
            self._known[embedding] = embedding_scale(embedding)
        return self._known[embedding]


def embedding_scale(embedding: nn.Module) -> float:
    """Root mean square of a sample of an embedding table: the size that a correction is measured in."""
    device = next(itertools.chain(embedding.parameters(), embedding.buffers())).device
    rows_N = torch.arange(1000, 2000, device=device) % int(embedding.num_embeddings)  # type: ignore[arg-type]
    weight = embedding(rows_N)
    return float(weight.detach().float().square().mean().sqrt())
