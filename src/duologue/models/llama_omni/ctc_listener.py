"""The paper's form of listening: an encoder and an adapter that stacks its steps, no recogniser's decoder.

The adapter speaks the language model's own language: its output is compared with the frozen token embeddings by an
inner product, and CTC aligns it with the words (stage 0). What is heard is the greedy tokens, merged; each is handed on
as a recogniser's word piece would be (`listener.Heard`), with its best guesses and the state that made them, for
`ReadoutAdapter` to read out. Sources: Fang et al. 2024, arXiv:2409.06666, 2.2; Graves et al. 2006.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.audio.features import log_mel
from duologue.errors import ConfigError
from duologue.models.llama_omni.listener import Heard
from duologue.models.whisper import WhisperConfig, WhisperEncoder
from duologue.nn.ctc import collapse, init_collapse

FIRST_BLANK = 2.0  # the blank's bias before training: most steps begin no token
SPREAD = 0.1  # of the embeddings as they are compared with: SmolLM2's, for which the rate of training was found
NEVER = -1e4  # bias of tokens that nobody can say


@dataclass(frozen=True, kw_only=True)
class CtcConfig:
    """Shape of the adapter. Defaults: mini's encoder and language model, one step every 80 ms."""

    encoder_dim: int = 384
    stack: int = 4  # encoder steps side by side
    dim: int = 320
    layers: int = 2
    kernel: int = 9
    ffn_dim: int = 1280
    dropout: float = 0.1
    llm_dim: int = 576
    vocab_size: int = 49_152  # of the language model; the blank is one more
    candidates: int = 16  # best guesses kept for every token

    def __post_init__(self):
        if min(self.stack, self.dim, self.layers) < 1 or self.kernel % 2 == 0:
            raise ConfigError(f"CtcConfig: need stack, dim and layers of at least 1 and an odd kernel, got {self}")


class CtcBlock(nn.Module):
    """A look to both sides, channel by channel, and a feed-forward."""

    def __init__(self, config: CtcConfig):
        super().__init__()
        c = config
        self.conv_norm = nn.LayerNorm(c.dim)
        self.conv = nn.Conv1d(c.dim, c.dim, c.kernel, padding=c.kernel // 2, groups=c.dim)
        self.ffn_norm = nn.LayerNorm(c.dim)
        self.up = nn.Linear(c.dim, c.ffn_dim)
        self.down = nn.Linear(c.ffn_dim, c.dim)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x_BSD: Tensor, inside_BS1: Tensor) -> Tensor:
        mixed_BDS = self.conv((self.conv_norm(x_BSD) * inside_BS1).transpose(1, 2))
        x_BSD = x_BSD + self.dropout(F.gelu(mixed_BDS.transpose(1, 2)))
        return x_BSD + self.dropout(self.down(F.gelu(self.up(self.ffn_norm(x_BSD)))))


class CtcAdapter(nn.Module):
    """Encoder steps to states every `stack` steps, and states to scores of the language model's tokens and the blank.

    The table of embeddings is not held here but handed in, plain or in int8; only its mean and spread are kept.
    """

    mean_D: Tensor
    scale_D: Tensor
    centre_D: Tensor
    gain: Tensor

    def __init__(self, config: CtcConfig):
        super().__init__()
        self.config = c = config
        self.register_buffer("mean_D", torch.zeros(c.encoder_dim))
        self.register_buffer("scale_D", torch.ones(c.encoder_dim))
        self.register_buffer("centre_D", torch.zeros(c.llm_dim))
        self.register_buffer("gain", torch.ones(1))
        self.input = nn.Linear(c.stack * c.encoder_dim, c.dim)
        self.blocks = nn.ModuleList(CtcBlock(c) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.dim)
        self.output = nn.Linear(c.dim, c.llm_dim)
        self.bias_V = nn.Parameter(torch.zeros(c.vocab_size))
        self.blank = nn.Linear(c.dim, 1)
        nn.init.constant_(self.blank.bias, FIRST_BLANK)

    @torch.no_grad()
    def calibrate(self, encoded_ND: Tensor, embeddings_VD: Tensor, *, never: Sequence[int] = ()) -> None:
        """Takes the encoder's mean and spread from examples, and those of the embeddings, before training.

        Args:
            never: tokens that are not words.
        """
        encoded_ND = encoded_ND.float()
        self.mean_D.copy_(encoded_ND.mean(0))
        self.scale_D.copy_(encoded_ND.std(0).clamp(min=1e-3))
        self.centre_D.copy_(embeddings_VD.float().mean(0))
        self.gain.copy_(SPREAD / (embeddings_VD.float() - self.centre_D).square().mean().sqrt())
        self.bias_V[list(never)] = NEVER

    def forward(self, encoded_BTD: Tensor, steps_B: Tensor) -> tuple[Tensor, Tensor]:
        """States of each row's first `steps_B` encoder steps, as if the rest were not there.

        Returns:
            states_BSD, S = T / stack rounded up, and how many of them are real.
        """
        stack = self.config.stack
        normal_BTD = (encoded_BTD - self.mean_D) / self.scale_D
        real_BT = torch.arange(encoded_BTD.shape[1], device=steps_B.device) < steps_B[:, None]
        normal_BTD = F.pad(normal_BTD * real_BT[..., None], (0, 0, 0, -encoded_BTD.shape[1] % stack))
        x_BSD = self.input(normal_BTD.view(len(steps_B), -1, stack * self.config.encoder_dim))
        steps_B = (steps_B + stack - 1) // stack
        inside_BS1 = (torch.arange(x_BSD.shape[1], device=steps_B.device) < steps_B[:, None])[..., None]
        for block in self.blocks:
            x_BSD = block(x_BSD, inside_BS1)
        return self.norm(x_BSD), steps_B

    def scores(self, states_BSD: Tensor, embedding: nn.Module, ids_C: Tensor | None = None) -> Tensor:
        """Scores of tokens: the inner product with their centred embeddings, and a bias each.

        Args:
            ids_C: these tokens; None: all.
        """
        output_BSD = self.output(states_BSD) * self.gain
        if ids_C is not None:
            centred_CD = embedding(ids_C).float() - self.centre_D
            return F.linear(output_BSD, centred_CD).float() + self.bias_V[ids_C]
        centre_BS1 = (output_BSD.float() @ self.centre_D)[..., None]
        weight = embedding.weight  # a tensor, or a matrix in int8
        if isinstance(weight, Tensor):
            output_BSD = output_BSD.to(weight.dtype)
        return F.linear(output_BSD, weight).float() - centre_BS1 + self.bias_V  # type: ignore[arg-type]

    def blank_scores(self, states_BSD: Tensor) -> Tensor:
        """The blank's score at each step, [B, S]."""
        return self.blank(states_BSD)[..., 0].float()

    def greedy(self, states_BSD: Tensor, steps_B: Tensor, embedding: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """The best symbol of every step, the blank the last of them, and as tokens: ids_BS, tokens_BT, counts_B."""
        best_BS, ids_BS = self.scores(states_BSD, embedding).max(-1)
        blank, everyone = self.config.vocab_size, torch.ones_like(steps_B, dtype=torch.bool)
        ids_BS = torch.where(best_BS > self.blank_scores(states_BSD), ids_BS, blank)
        step_S = torch.arange(ids_BS.shape[1], device=ids_BS.device)
        ids_BS = torch.where(step_S < steps_B[:, None], ids_BS, blank)
        start = init_collapse(len(steps_B), device=ids_BS.device)
        tokens_BS, counts_B, _ = collapse(ids_BS, start, everyone, blank=blank)
        tokens_BT = torch.where(step_S < counts_B[:, None], tokens_BS, -1)[:, : int(counts_B.max())]
        return ids_BS, tokens_BT, counts_B

    def write(self, encoded_BTD: Tensor, steps_B: Tensor, embedding: nn.Module) -> Heard:
        """The greedy tokens of encoded audio; the state of each is the mean over the steps that say it.

        Args:
            embedding: the language model's table, its tokens those of the scores.
        """
        states_BSD, steps_B = self(encoded_BTD, steps_B)
        ids_BS, tokens_BT, counts_B = self.greedy(states_BSD, steps_B, embedding)
        T = tokens_BT.shape[1]
        if T == 0:
            return self._nothing(states_BSD[:, :0])
        said_BS = ids_BS != self.config.vocab_size
        begins_BS = said_BS & (ids_BS != F.pad(ids_BS, (1, 0), value=self.config.vocab_size)[:, :-1])
        place_BS = torch.where(said_BS, begins_BS.cumsum(1) - 1, T)  # beyond: steps that say nothing
        share_BTS = F.one_hot(place_BS, T + 1).transpose(1, 2)[:, :T].to(states_BSD.dtype)
        states_BTD = (share_BTS @ states_BSD) / share_BTS.sum(-1, keepdim=True).clamp(min=1)
        best, guess_ids = self.scores(states_BTD, embedding).topk(self.config.candidates)
        inside_BT1 = (tokens_BT >= 0)[..., None]
        return Heard(
            tokens_BT, counts_B, states_BTD * inside_BT1, guess_ids * inside_BT1, best.softmax(-1) * inside_BT1
        )

    def _nothing(self, states_BTD: Tensor) -> Heard:
        ids_BT = torch.zeros(states_BTD.shape[:2], dtype=torch.int64, device=states_BTD.device)
        guesses_BTK = ids_BT[..., None].expand(-1, -1, self.config.candidates)
        return Heard(ids_BT, ids_BT.sum(1), states_BTD, guesses_BTK, guesses_BTK.float())


@dataclass(frozen=True, kw_only=True)
class CtcListenerConfig:
    """Encoder and adapter. Defaults: mini's."""

    whisper: WhisperConfig = field(default_factory=lambda: WhisperConfig(decoder_layers=0))
    ctc: CtcConfig = field(default_factory=CtcConfig)

    def __post_init__(self):
        if self.whisper.dim != self.ctc.encoder_dim:
            raise ConfigError(
                f"CtcListenerConfig: the encoder has width {self.whisper.dim}, the adapter wants {self.ctc.encoder_dim}"
            )


class CtcListener(nn.Module):
    """Audio to tokens of the language model, without a recogniser's decoder."""

    def __init__(self, config: CtcListenerConfig):
        super().__init__()
        self.config = config
        self.encoder = WhisperEncoder(config.whisper)
        self.ctc = CtcAdapter(config.ctc)

    def encode(self, audio_BN: Tensor, samples_B: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes each row's first samples, at least 201 of 16 kHz: encoded_BTD and steps_B."""
        features_BMT, frames_B = log_mel(audio_BN, samples_B, num_mels=self.config.whisper.num_mels)
        return self.encoder(features_BMT.to(self.encoder.conv1.weight.dtype), frames_B)

    def hear(self, audio_BN: Tensor, samples_B: Tensor, embedding: nn.Module) -> Heard:
        """Hears each row from its beginning.

        Args:
            embedding: the language model's.
        """
        return self.ctc.write(*self.encode(audio_BN, samples_B), embedding)
