"""mini's listener: a whole recogniser, of which the language model hears the decoder's states, not the words.

While the user speaks, the audio so far is heard again and again, and what was written last time is only a draft: one
pass of the decoder checks it against the new audio, keeps the words on which they agree and goes on from there. So the
last pass, after the end of the turn, writes exactly what hearing the whole at once would write, in a few steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from duologue.audio.features import SAMPLE_RATE, log_mel
from duologue.errors import ConfigError
from duologue.models.whisper import Whisper, WhisperConfig
from duologue.nn.attention import Memory


@dataclass(frozen=True, kw_only=True)
class ListenerConfig:
    """The recogniser and its special tokens. Defaults: tiny.en."""

    whisper: WhisperConfig = field(default_factory=WhisperConfig)
    prompt: tuple[int, ...] = (50_257, 50_362)  # start of transcript, no timestamps
    end: int = 50_256
    text_tokens: int = 50_256  # ids below are words; all others but `end` are never written
    candidates: int = 16  # best guesses kept for every word piece
    tokens_per_second: float = 7.0  # nobody speaks faster; bounds what noise can make it write

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

    def hear(self, audio_BN: Tensor, samples_B: Tensor, draft_BT: Tensor | None = None) -> Heard:
        """Hears each row from its beginning; the same words as without a draft, sooner.

        Args:
            draft_BT: word pieces that an earlier pass wrote, padded with -1.
        """
        return self.write(self.encode(audio_BN, samples_B), samples_B, draft_BT)

    def write(self, memory: Memory, samples_B: Tensor, draft_BT: Tensor | None = None) -> Heard:
        """Greedy decoding of encoded audio, from a draft that is checked first."""
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
        return self._report(written[:, :width], count_B, states[:, :width])

    def _mask(self, logits: Tensor) -> Tensor:
        """Leaves only words and the end."""
        c = self.config
        logits[..., c.text_tokens : c.end] = -torch.inf
        logits[..., max(c.end + 1, c.text_tokens) :] = -torch.inf
        return logits

    def _choose(self, hidden_BTD: Tensor) -> Tensor:
        return self._mask(self.whisper.decoder.logits(hidden_BTD)).argmax(-1)

    def _report(self, ids_BT: Tensor, counts_B: Tensor, states_BTD: Tensor) -> Heard:
        logits = self._mask(self.whisper.decoder.logits(states_BTD)).float()
        logits[..., self.config.end] = -torch.inf
        best, guess_ids = logits.topk(self.config.candidates)
        inside = (torch.arange(ids_BT.shape[1], device=ids_BT.device) < counts_B[:, None])[..., None]
        probs = best.softmax(-1) * inside
        return Heard(ids_BT, counts_B, states_BTD * inside, guess_ids * inside, probs)
