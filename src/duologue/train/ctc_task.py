"""The paper's form of listening (`ctc_listener`), stage 0: aligned with words by CTC.

The task aligns the adapter's output with the words in the language model's embedding space; the encoder is frozen, what
it hears is cached. A vocabulary of tens of thousands is affordable by sampling: only the batch's own tokens and
some others drawn evenly are scored, and those others count for all that were not drawn (the correction is the logarithm
of how many each stands for). With all tokens drawn it is plain CTC.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.audio.features import SAMPLE_RATE, log_mel
from duologue.codecs.text import TextCodec
from duologue.data.batches import BatchConfig
from duologue.data.manifest import QUESTION_RATE, Turn, decode_flac, read_rows
from duologue.data.noises import make_noise
from duologue.data.recordings import is_recording
from duologue.errors import DataError
from duologue.eval.metrics import Edits, error_rate, normalise, word_edits
from duologue.models.llama_omni.ctc_listener import CtcAdapter, CtcConfig, CtcListener, CtcListenerConfig
from duologue.models.whisper import WhisperConfig, WhisperEncoder
from duologue.train import features
from duologue.train import rows as manifest
from duologue.train.listen_task import SHORTEST, words_of
from duologue.train.parts import CTC_LISTENER, fingerprint, load_language_model, load_listener, save_part

COLUMNS = ("question", "question_spoken")


@dataclass(frozen=True, kw_only=True)
class CtcTask:
    """Questions as they were said, and their words. A row without a question is a clip in which nobody speaks."""

    data: str  # a data folder
    more: tuple[str, ...] = ()  # further ones, such as real recordings
    listener: str = "whisper-tiny.en"  # whose encoder hears, see parts.load_listener
    llm: str = "smollm2-135m-instruct"  # whose tokens are written, see parts.load_language_model
    stack: int = 4  # encoder steps of 20 ms side by side
    dim: int = 320
    layers: int = 2
    kernel: int = 9
    dropout: float = 0.1
    candidates: int = 16  # best guesses that are handed on with each token
    negatives: int = 400  # tokens scored beside the batch's own
    rows: int = 16
    longest: float = 14.0  # seconds; longer clips are left out
    noise: float = 0.06  # share of the clips of a batch in whose place there is only noise
    noises: tuple[str, ...] = ("hiss", "room", "traffic", "hum", "keyboard", "breath", "music", "silence")
    noise_clips: int = 120  # different ones
    masks: int = 2  # places of each clip that are blanked
    mask_steps: int = 10  # up to this many steps of 20 ms each
    held_out: int = 100  # clips of the split dev in an evaluation
    held_out_noises: int = 20  # clips of noise in an evaluation
    cache: str = ""  # where the encoder's output is kept; empty: in the data folders

    def make(self) -> _Aligning:
        """The task."""
        return _Aligning(self)


class CtcModel(nn.Module):
    """What is trained, and the frozen table of embeddings."""

    def __init__(self, adapter: CtcAdapter, embedding: nn.Embedding):
        super().__init__()
        self.adapter, self.embedding = adapter, embedding.requires_grad_(False)


@dataclass(frozen=True)
class CtcBatch:
    encoded_BTD: Tensor
    steps_B: Tensor
    ids_C: Tensor  # the tokens that are scored: those of the batch, then others
    num_own: int  # of the batch
    targets_BU: Tensor  # places in ids_C
    counts_B: Tensor


class _Aligning:
    """`CtcTask` at work."""

    def __init__(self, config: CtcTask):
        self.config = config
        self.folders = (config.data, *config.more)

    @functools.cached_property
    def _encoder(self) -> tuple[WhisperEncoder, WhisperConfig]:
        listener, _ = load_listener(self.config.listener)
        encoder = listener.whisper.encoder
        return encoder, replace(encoder.config, decoder_layers=0)

    @functools.cached_property
    def _words(self) -> tuple[nn.Embedding, TextCodec]:
        llm, codec = load_language_model(self.config.llm, "bf16")
        return llm.embedding.float(), codec

    @property
    def codec(self) -> TextCodec:
        """The language model's tokenizer."""
        return self._words[1]

    def build(self) -> nn.Module:
        c, (embedding, codec) = self.config, self._words
        shape = CtcConfig(
            encoder_dim=self._encoder[1].dim,
            stack=c.stack,
            dim=c.dim,
            layers=c.layers,
            kernel=c.kernel,
            ffn_dim=4 * c.dim,
            dropout=c.dropout,
            llm_dim=embedding.embedding_dim,
            vocab_size=embedding.num_embeddings,
            candidates=c.candidates,
        )
        adapter = CtcAdapter(shape)
        special = [index for index in codec.tokenizer.get_added_tokens_decoder() if index < shape.vocab_size]
        adapter.calibrate(self._examples(), embedding.weight, never=special)
        return CtcModel(adapter, embedding)

    def _examples(self, most: int = 200) -> Tensor:
        """Steps of the first rows to learn from."""
        found = self.encoded[0]
        names = [row.id for row in read_rows(Path(self.config.data), split="train", columns=()) if row.id in found]
        if not names:
            raise DataError(f"{self.config.data}: no row of the split 'train' has a question to hear")
        return torch.cat([found[name]["encoded"] for name in names[:most]])

    @functools.cached_property
    def encoded(self) -> list[features.RowCache]:
        """What the encoder makes of every question, a cache a folder."""
        encoder = features.to_card(self._encoder[0])
        make = functools.partial(encode_rows, encoder=encoder, longest=self.config.longest)
        name = f"encoded-{fingerprint(encoder)}"
        like = {"encoded": torch.zeros(0, encoder.config.dim, dtype=torch.float16)}
        columns = ("question_audio", "question_seconds")
        caches = [
            features.cached(folder, name, make, columns=columns, like=like, cache=self._place(number))
            for number, folder in enumerate(self.folders)
        ]
        encoder.to("cpu")
        return caches

    def _place(self, number: int) -> str:
        """Of a folder's cache: shards of different folders have the same names."""
        return str(Path(self.config.cache) / f"{number}-{Path(self.folders[number]).name}") if self.config.cache else ""

    @functools.cached_property
    def _silence(self) -> list[Tensor]:
        """Encoded clips of noise: what is trained on, then what is held out."""
        c, rng = self.config, np.random.default_rng(3)
        clips = []
        for _ in range(c.noise_clips + c.held_out_noises):
            sound = make_noise(str(rng.choice(c.noises)), int(rng.uniform(0.4, 5.0) * SAMPLE_RATE), rng)
            clips.append(torch.from_numpy(np.clip(sound * 10 ** (rng.uniform(-50, -15) / 20), -1, 1)).float())
        return encode(clips, self._encoder[0])

    def prepare(self) -> None:
        self.encoded  # noqa: B018

    def batches(self, seed: int, position: int) -> Iterator[Callable[[], CtcBatch]]:
        c = self.config
        folders = [
            BatchConfig(folder=folder, columns=COLUMNS, rows=c.rows, shortest=SHORTEST, longest=c.longest, seed=seed)
            for folder in self.folders
        ]
        for number, folder, turns in manifest.stream(folders, seed=seed, position=position):
            yield functools.partial(self._drawn, turns, folder, seed, number)

    def _drawn(self, turns: list[Turn], folder: int, seed: int, number: int) -> CtcBatch:
        """A batch; some of its clips give way to noise."""
        c, rng = self.config, np.random.default_rng((seed, 5, number))
        cache = self.encoded[folder]
        rows = [(cache[turn.id]["encoded"], self.codec.encode(words_of(turn))) for turn in turns if turn.id in cache]
        for index in np.flatnonzero(rng.random(len(rows)) < c.noise) if c.noise_clips else ():
            rows[index] = (self._silence[int(rng.integers(c.noise_clips))], [])
        if not rows:
            raise DataError(f"{self.folders[folder]}: a whole batch without audio that can be heard")
        return collate(rows, negatives=c.negatives, vocab_size=self._words[0].num_embeddings, rng=rng)

    def loss(self, module: nn.Module, batch: CtcBatch) -> tuple[Tensor, dict[str, float | Tensor]]:
        assert isinstance(module, CtcModel)
        c = self.config
        if module.training and c.mask_steps:
            batch = masked(batch, module.adapter.mean_D, places=c.masks, most=c.mask_steps)
        return ctc_loss(module, batch), {"weight": int(batch.counts_B.sum()) + len(batch.counts_B)}

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """As `ListenTask`: word error rates of the greedy tokens, and the share of silent clips with words heard."""
        assert isinstance(module, CtcModel)
        c = self.config
        found = manifest.held_out(self.folders, ("source", *COLUMNS), most=c.held_out)
        rows = [
            (self.encoded[folder][turn.id]["encoded"], words_of(turn), is_recording(turn.source))
            for folder, turn in found
            if turn.id in self.encoded[folder]
        ]
        rows += [(clip, "", False) for clip in self._silence[c.noise_clips :]]
        written = transcripts(module, [encoded for encoded, _, _ in rows], self.codec)
        silent = [bool(normalise(said)) for (_, text, _), said in zip(rows, written, strict=True) if not text]
        edits: dict[bool, list[Edits]] = {False: [], True: []}
        for (_, text, real), said in zip(rows, written, strict=True):
            if text:
                edits[real].append(word_edits(text, said))
        rates = {"wer": edits[False], "wer_real": edits[True], "wer_all": edits[False] + edits[True]}
        return {
            **{name: error_rate(group) for name, group in rates.items() if group},
            "invented": sum(silent) / max(1, len(silent)),
        }

    def export(self, module: nn.Module, folder: Path) -> None:
        """ctc_listener.safetensors and ctc_listener.json: the encoder and the adapter."""
        assert isinstance(module, CtcModel)
        encoder, shape = self._encoder
        listener = CtcListener(CtcListenerConfig(whisper=shape, ctc=module.adapter.config))
        listener.encoder.load_state_dict(encoder.state_dict())
        listener.ctc.load_state_dict(module.adapter.state_dict())
        save_part(listener, CTC_LISTENER, folder)


@torch.no_grad()
def encode(clips: Sequence[Tensor], encoder: WhisperEncoder, *, seconds: float = 64.0) -> list[Tensor]:
    """The encoder's output for each clip of 16 kHz, in half precision, about `seconds` of padded audio at once."""
    device, found = encoder.conv1.weight.device, [torch.zeros(0)] * len(clips)
    indices = list(range(len(clips)))
    for group in features.groups(indices, [len(clip) for clip in clips], round(seconds * SAMPLE_RATE)):
        audio_BN = torch.nn.utils.rnn.pad_sequence([clips[index] for index in group], batch_first=True).to(device)
        samples_B = torch.tensor([len(clips[index]) for index in group], device=device)
        with torch.autocast(device.type, enabled=False):
            encoded_BTD, steps_B = encoder(*log_mel(audio_BN, samples_B, num_mels=encoder.config.num_mels))
        for row, index in enumerate(group):
            found[index] = encoded_BTD[row, : int(steps_B[row])].half().cpu().clone()
    return found


def encode_rows(turns: list[Turn], encoder: WhisperEncoder, *, longest: float) -> dict[str, features.Ragged]:
    """The encoder's output for each question that is neither too short nor too long."""
    asked = [turn for turn in turns if turn.question_audio and SHORTEST <= turn.question_seconds <= longest]
    clips = [torch.from_numpy(decode_flac(turn.question_audio, QUESTION_RATE)) for turn in asked]
    return {turn.id: {"encoded": each} for turn, each in zip(asked, encode(clips, encoder), strict=True)}


def collate(
    rows: Sequence[tuple[Tensor, Sequence[int]]], *, negatives: int, vocab_size: int, rng: np.random.Generator
) -> CtcBatch:
    """Pads encoded clips and their tokens, and draws the tokens that are scored beside them."""
    own = np.unique(np.concatenate([np.array(ids, dtype=np.int64) for _, ids in rows]))
    others = np.setdiff1d(np.arange(vocab_size), own, assume_unique=True)
    drawn = rng.choice(others, min(negatives, len(others)), replace=False)
    targets = [torch.from_numpy(np.searchsorted(own, np.array(ids, dtype=np.int64))) for _, ids in rows]
    pad = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    return CtcBatch(
        encoded_BTD=pad([encoded.float() for encoded, _ in rows]),
        steps_B=torch.tensor([len(encoded) for encoded, _ in rows]),
        ids_C=torch.from_numpy(np.concatenate([own, drawn])),
        num_own=len(own),
        targets_BU=pad(targets),
        counts_B=torch.tensor([len(target) for target in targets]),
    )


def masked(batch: CtcBatch, mean_D: Tensor, *, places: int, most: int) -> CtcBatch:
    """Some stretches of each clip become the mean, which says nothing."""
    B, T, _ = batch.encoded_BTD.shape
    device = batch.encoded_BTD.device
    draw_2PB = torch.rand(2, places, B).to(device)
    width_PB = (draw_2PB[0] * (most + 1)).long()
    begin_PB = (draw_2PB[1] * (batch.steps_B - width_PB).clamp(min=1)).long()
    step_T = torch.arange(T, device=device)
    blank_PBT = (step_T >= begin_PB[..., None]) & (step_T < (begin_PB + width_PB)[..., None])
    return replace(batch, encoded_BTD=torch.where(blank_PBT.any(0)[..., None], mean_D, batch.encoded_BTD))


def ctc_loss(model: CtcModel, batch: CtcBatch) -> Tensor:
    """The sampled CTC loss of all rows, over the number of their tokens and rows."""
    adapter = model.adapter
    states_BSD, steps_B = adapter(batch.encoded_BTD, batch.steps_B)
    scores_BSC = adapter.scores(states_BSD, model.embedding, batch.ids_C)
    drawn = len(batch.ids_C) - batch.num_own
    if drawn:
        each = (adapter.config.vocab_size - batch.num_own) / drawn  # tokens that one drawn stands for
        scores_BSC = scores_BSC + math.log(each) * (torch.arange(len(batch.ids_C)) >= batch.num_own).to(scores_BSC)
    logits_BSC = torch.cat([scores_BSC, adapter.blank_scores(states_BSD)[..., None]], dim=-1)
    with torch.autocast(logits_BSC.device.type, enabled=False):
        value = F.ctc_loss(
            logits_BSC.float().log_softmax(-1).transpose(0, 1),
            batch.targets_BU,
            steps_B,
            batch.counts_B,
            blank=len(batch.ids_C),
            reduction="sum",
            zero_infinity=True,  # rows that are too short for their words
        )
    return value / (batch.counts_B.sum() + len(batch.counts_B))


@torch.no_grad()
def transcripts(model: CtcModel, clips: Sequence[Tensor], codec: TextCodec, *, steps: int = 3200) -> list[str]:
    """What is written for each encoded clip, about `steps` padded steps at once."""
    device, written = model.adapter.bias_V.device, [""] * len(clips)
    for group in features.groups(range(len(clips)), [len(clip) for clip in clips], steps):
        encoded_BTD = torch.nn.utils.rnn.pad_sequence([clips[index].float() for index in group], batch_first=True)
        steps_B = torch.tensor([len(clips[index]) for index in group])
        with torch.autocast(device.type, enabled=False):
            states_BSD, steps_B = model.adapter(encoded_BTD.to(device), steps_B.to(device))
            _, tokens_BT, counts_B = model.adapter.greedy(states_BSD, steps_B, model.embedding)
        for row, index in enumerate(group):
            written[index] = codec.decode(tokens_BT[row, : int(counts_B[row])].tolist()).strip()
    return written
