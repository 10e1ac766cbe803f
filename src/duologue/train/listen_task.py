"""Stage 0, listening: fine-tunes a Whisper-shaped recogniser on audio without padding, in noise, and on no speech.

`ListenTask` is the stage; what is below it works on clips from anywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from duologue.audio.features import SAMPLE_RATE, log_mel
from duologue.codecs.text import load_tokenizer
from duologue.data.audio_augment import AugmentConfig, augment
from duologue.data.batches import BatchConfig
from duologue.data.manifest import QUESTION_RATE, Turn, decode_flac
from duologue.data.noises import make_noise
from duologue.data.recordings import is_recording
from duologue.errors import ConfigError
from duologue.eval.metrics import Edits, error_rate, normalise, word_edits
from duologue.models.llama_omni.listener import Listener
from duologue.models.whisper import Whisper
from duologue.train import rows as manifest
from duologue.train.listen_augment import Utterance, bent, blanked, in_company, joined
from duologue.train.parts import TOKENIZER, load_listener, save_part

SHORTEST = 0.2  # seconds; shorter clips are left out
IGNORED = -100  # label of positions that carry no loss


@dataclass(frozen=True, kw_only=True)
class ListenTask:
    """Questions as they were said, and their words. A row without a question is a clip in which nobody speaks."""

    data: str  # a data folder
    more: tuple[str, ...] = ()  # further ones
    people: str = ""  # one of real people and real sounds
    share: float = 0.5  # of the batches that come from it
    fresh: float = 0.8  # share of its clips that go through another room, noise, microphone each time they come
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(speed_chance=0.3, voice_chance=0.25, lead=(0.0, 0.4), tail=(0.0, 0.5))
    )
    listener: str = "whisper-tiny.en"  # what it starts from, see parts.load_listener
    seconds: float = 56.0  # of padded audio in a batch
    rows: int = 32  # most clips of a batch
    longest: float = 14.0  # seconds; longer clips are left out
    noise: float = 0.06  # share of the clips of a batch in whose place there is only noise
    joined: float = 0.25  # share of the batches in which clips follow one another in one, with pauses between
    noises: tuple[str, ...] = ("hiss", "room", "traffic", "hum", "keyboard", "breath", "music", "silence")
    company: float = 0.2  # share of the clips that have other voices behind them
    bend: float = 0.1  # how far the frequency axis may be stretched or pressed together; every second batch is
    mask_frames: int = 16  # up to so many 10 ms frames are blanked in every 4 s of a clip
    mask_bands: int = 12  # up to so many of the 80 mel bands are blanked
    label_smoothing: float = 0.05
    freeze: tuple[str, ...] = ("whisper.decoder.embedding", "whisper.encoder.positions")
    mix: float = 1.0  # what is exported: this share of the trained weights, the rest of those that it started from
    held_out: int = 100  # clips of the split dev in an evaluation
    held_out_noises: int = 20  # clips of noise in an evaluation

    def __post_init__(self) -> None:
        for name in ("share", "fresh"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"ListenTask.{name} must lie between 0 and 1, got {getattr(self, name)}")

    @property
    def folders(self) -> tuple[str, ...]:
        """All data folders, that of the people last."""
        return (self.data, *self.more, *((self.people,) if self.people else ()))

    def make(self) -> _Listening:
        """The task."""
        return _Listening(self)


class _Listening:
    """`ListenTask` at work."""

    def __init__(self, config: ListenTask):
        self.config = config
        self._tokenizer: Tokenizer | None = None

    @functools.cached_property
    def _start(self) -> tuple[Listener, Path]:
        return load_listener(self.config.listener)

    @property
    def tokenizer(self) -> Tokenizer:
        """The listener's."""
        self._tokenizer = self._tokenizer or load_tokenizer(self._start[1])
        return self._tokenizer

    def build(self) -> nn.Module:
        start, _ = self._start
        listener = Listener(start.config)
        listener.load_state_dict(start.state_dict())
        for name, parameter in listener.named_parameters():
            parameter.requires_grad_(not name.startswith(self.config.freeze))
        return listener

    def prepare(self) -> None:
        self._start  # noqa: B018

    def batches(self, seed: int, position: int) -> Iterator[Callable[[], ListenBatch]]:
        c = self.config
        folders = [self._rows_of(folder, seed) for folder in c.folders]
        share = c.share if c.people else None
        for number, _, turns in manifest.stream(folders, seed=seed, position=position, last=share):
            yield functools.partial(self._batch, turns, seed, number)

    def _rows_of(self, folder: str, seed: int) -> BatchConfig:
        c = self.config
        return BatchConfig(
            folder=folder,
            columns=("source", "question", "question_spoken", "question_audio"),
            rows=c.rows,
            padded=c.seconds,
            shortest=SHORTEST,
            longest=c.longest,
            seed=seed,
        )

    def _batch(self, turns: list[Turn], seed: int, number: int) -> ListenBatch:
        rng = np.random.default_rng((seed, 2, number))
        clips = [self._elsewhere(turn, rng) for turn in turns]
        for index in np.flatnonzero(rng.random(len(clips)) < self.config.noise):
            clips[index] = self._noise(rng, most=len(clips[index].audio))
        config = self._start[0].config
        clips = in_company(clips, rng, share=self.config.company)
        if rng.random() < self.config.joined:
            clips = joined(clips, rng, most_pieces=config.whisper.max_target - len(config.prompt))
        return collate(clips, prompt=config.prompt, end=config.end)

    def _clip(self, turn: Turn) -> Utterance:
        return self._utterance(decode_flac(turn.question_audio, QUESTION_RATE), turn)

    def _elsewhere(self, turn: Turn, rng: np.random.Generator) -> Utterance:
        """A clip as it may sound in another place, if it is as it was recorded."""
        audio = decode_flac(turn.question_audio, QUESTION_RATE)
        if is_recording(turn.source) and rng.random() < self.config.fresh:
            audio, _ = augment(audio, rate=QUESTION_RATE, config=self.config.augment, rng=rng)
        return self._utterance(audio, turn)

    def _utterance(self, audio: np.ndarray, turn: Turn) -> Utterance:
        return Utterance((audio * 32767).astype(np.int16), self._pieces(words_of(turn)))

    def _pieces(self, text: str) -> tuple[int, ...]:
        """Word pieces, as a Whisper writes them: with a space before the first word, no more than it has places for."""
        config = self._start[0].config
        ids = self.tokenizer.encode(" " + text, add_special_tokens=False).ids if text else []
        return tuple(ids[: config.whisper.max_target - len(config.prompt)])

    def _noise(self, rng: np.random.Generator, *, most: int) -> Utterance:
        """A clip of some noise, from hardly heard to loud."""
        kind = str(rng.choice(self.config.noises))
        size = int(rng.uniform(min(0.4 * SAMPLE_RATE, most), most))
        audio = make_noise(kind, size, rng) * 10 ** (rng.uniform(-50, -15) / 20)
        return Utterance((np.clip(audio, -1, 1) * 32767).astype(np.int16), ())

    def loss(self, module: nn.Module, batch: ListenBatch) -> tuple[Tensor, dict[str, float | Tensor]]:
        c = self.config
        vary = self._vary if module.training else None
        value, metrics = loss(module.whisper, batch, vary=vary, label_smoothing=c.label_smoothing)  # type: ignore[arg-type]
        return value, dict(metrics)

    def _vary(self, features_BMT: Tensor, frames_B: Tensor) -> Tensor:
        c, draw_B = self.config, torch.rand(len(frames_B) + 1).to(frames_B.device)
        if c.bend and draw_B[-1] < 0.5:
            features_BMT = bent(features_BMT, 1 + c.bend * (2 * draw_B[:-1] - 1))
        return blanked(features_BMT, frames_B, frames=c.mask_frames, bands=c.mask_bands)

    @functools.cached_property
    def _held_out(self) -> list[tuple[Utterance, str, bool]]:
        """Clips with their words, and whether a real person says them."""
        c, rng = self.config, np.random.default_rng(3)
        columns = ("source", "question", "question_spoken", "question_audio", "question_seconds")
        found = manifest.held_out(c.folders, columns, most=c.held_out)
        turns = [turn for _, turn in found if SHORTEST <= turn.question_seconds <= c.longest]
        spoken = [(self._clip(turn), words_of(turn), is_recording(turn.source)) for turn in turns]
        return spoken + [(self._noise(rng, most=5 * SAMPLE_RATE), "", False) for _ in range(c.held_out_noises)]

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Word error rates on held-out clips: of synthesisers (`wer`), of real people where there are any (`wer_real`),
        of both together (`wer_all`); and the share of clips without speech in which words are heard (`invented`)."""
        clips = [clip for clip, _, _ in self._held_out]
        written = transcripts(module, clips, self.tokenizer, seconds=self.config.seconds)  # type: ignore[arg-type]
        silent: list[bool] = []
        edits: dict[bool, list[Edits]] = {False: [], True: []}
        for (_, text, real), said in zip(self._held_out, written, strict=True):
            if text:
                edits[real].append(word_edits(text, said))
            else:
                silent.append(bool(normalise(said)))
        rates = {"wer": edits[False], "wer_real": edits[True], "wer_all": edits[False] + edits[True]}
        found = {name: error_rate(group) for name, group in rates.items() if group}
        return {**found, "invented": sum(silent) / max(1, len(silent))}

    def export(self, module: nn.Module, folder: Path) -> None:
        """listener.safetensors, listener.json, listener_tokenizer.json."""
        start, tokenizer = self._start
        first, mix = start.state_dict(), self.config.mix
        if mix < 1:
            with torch.no_grad():
                for name, value in module.state_dict().items():
                    value.copy_(torch.lerp(first[name].to(value), value, mix))
        save_part(module, "listener", folder, config=start.config)
        (folder / TOKENIZER).write_bytes(tokenizer.read_bytes())


def words_of(turn: Turn) -> str:
    """What is said in the question's audio."""
    return (turn.question_spoken or turn.question).strip()


@torch.no_grad()
def transcripts(
    listener: Listener, clips: Sequence[Utterance], tokenizer: Tokenizer, *, seconds: float = 64.0
) -> list[str]:
    """What the listener writes for each clip, about `seconds` of padded audio at once."""
    device, written = next(listener.parameters()).device, [""] * len(clips)
    order = sorted(range(len(clips)), key=lambda index: len(clips[index].audio))
    config, begin = listener.config, 0
    while begin < len(order):
        end = begin + 1
        while end < len(order) and (end + 1 - begin) * len(clips[order[end]].audio) <= seconds * SAMPLE_RATE:
            end += 1
        batch = collate([clips[index] for index in order[begin:end]], prompt=config.prompt, end=config.end)
        with torch.autocast(device.type, enabled=False):
            heard = listener.hear(batch.audio_BN.to(device), batch.samples_B.to(device))
        for row, index in enumerate(order[begin:end]):
            written[index] = tokenizer.decode(heard.ids_BT[row, : int(heard.counts_B[row])].tolist()).strip()
        begin = end
    return written


@dataclass(frozen=True)
class ListenBatch:
    audio_BN: Tensor
    samples_B: Tensor
    ids_BT: Tensor  # prompt, words
    labels_BT: Tensor  # words, end


def collate(rows: Sequence[Utterance], *, prompt: Sequence[int], end: int) -> ListenBatch:
    """Pads clips and tokens to the longest of the batch."""
    samples = [len(row.audio) for row in rows]
    audio_BN = torch.zeros(len(rows), max(samples))
    width = len(prompt) + max(len(row.ids) for row in rows)
    ids_BT = torch.full((len(rows), width), end)
    labels_BT = torch.full((len(rows), width), IGNORED)
    for b, row in enumerate(rows):
        audio_BN[b, : samples[b]] = torch.from_numpy(row.audio.astype(np.float32) / 32768)
        tokens = [*prompt, *row.ids]
        ids_BT[b, : len(tokens)] = torch.tensor(tokens)
        labels_BT[b, len(prompt) - 1 : len(tokens)] = torch.tensor([*row.ids, end])
    return ListenBatch(audio_BN, torch.tensor(samples), ids_BT, labels_BT)


def loss(
    model: Whisper,
    batch: ListenBatch,
    *,
    vary: Callable[[Tensor, Tensor], Tensor] | None = None,
    label_smoothing: float = 0.05,
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of the words and of the end.

    Args:
        vary: changes the features, (features_BMT, frames_B) -> features_BMT.
    """
    with torch.autocast(batch.audio_BN.device.type, enabled=False):
        features_BMT, frames_B = log_mel(batch.audio_BN, batch.samples_B, num_mels=model.config.num_mels)
        if vary is not None:
            features_BMT = vary(features_BMT, frames_B)
    encoded_BTD, steps_B = model.encoder(features_BMT, frames_B)
    memory = model.decoder.remember(encoded_BTD, steps_B)
    slots = batch.ids_BT.shape[0]
    state = model.decoder.init_state(slots, batch.ids_BT.shape[1])
    live_B = torch.ones(slots, dtype=torch.bool, device=batch.ids_BT.device)
    hidden_BTD = model.decoder(batch.ids_BT, state, memory, live_B)
    keep_BT = batch.labels_BT != IGNORED
    logits_NV = model.decoder.logits(hidden_BTD[keep_BT]).float()
    labels_N = batch.labels_BT[keep_BT]
    value = F.cross_entropy(logits_NV, labels_N, label_smoothing=label_smoothing)
    return value, {"weight": len(labels_N), "token_accuracy": (logits_NV.argmax(-1) == labels_N).float().mean().item()}
