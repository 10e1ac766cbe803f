"""Trains Mimi: speech to codes and back, the first code of each frame close to what is said.

Codec and discriminators learn in the same step, each from its own loss: the codec from the gradients that its losses
have at its sound (`Balance` weighs them), the discriminators from a copy of that sound that leads no further. So one
optimizer serves both, with a rate of its own for the names that begin with "discriminators.".

Source: Defossez et al. 2024, arXiv:2410.00037, section 3.3. Not as there: the mean of the teacher's vectors is taken
out and their spread evened, as a cosine would see little else; the loss of mel spectra may be used beside the
adversarial ones (`mel=0` leaves it out, as the paper's last model does); encoder and codebooks may learn from a sketch
of the sound, at first with nothing quantised, before there is any sound (`sketch`, `quantized`). That is what a short
training needs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.checkpoints.codecs import load_codec, save_codec
from duologue.codecs.mimi import Mimi, MimiConfig
from duologue.codecs.rvq import Quantized
from duologue.errors import ConfigError
from duologue.nn.conv import StepConvTranspose1d
from duologue.train import codec_data
from duologue.train.balance import Balance
from duologue.train.codec_data import STEP, CodecData, Crops
from duologue.train.codec_teacher import Teacher, load_teacher
from duologue.train.discriminators import DiscriminatorConfig, Discriminators, found_out, told_apart, unlike
from duologue.train.distributed import to_device
from duologue.train.mel_loss import mel_distance
from duologue.train.parts import load_part, save_part
from duologue.train.progress import Bar
from duologue.train.sketch import Sketch
from duologue.train.whole_codec import encode_whole, sound_whole, steps_whole

SEMANTIC_HEAD, SKETCH = "semantic_head", "sketch"  # what guesses the teacher's vectors and the spectra, beside a codec
PER_CODE = 20  # vectors for each code that begins by k-means


@dataclass(frozen=True, kw_only=True)
class MimiTask:
    """The codec, from nothing or from an exported one."""

    data: tuple[str, ...]  # data folders; a row's answer is heard, or its question where it has no answer's sound
    shares: tuple[float, ...] = ()  # how much of the crops each gives; empty: as much as it has
    teacher: str = "mini"  # see `codec_teacher.load_teacher`
    cache: str = ""  # where the sounds and what the teacher heard are kept; empty: in the data folders
    codec: MimiConfig = field(default_factory=MimiConfig)
    start: str = ""  # a codec folder that the stage before exported; empty: from nothing
    decoder_only: bool = False  # the codes stay what they mean: encoder and codebooks do not learn
    quantized: bool = True  # off: codebooks wait; the stage that starts from this one's codec begins them by k-means
    discriminators: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    rows: int = 16  # crops in a micro-batch
    frames: int = 150  # of a crop
    as_said: bool = False  # crops are rows from their beginning, as loud as they are, nothing under them
    judged: int = 0  # frames of each crop that the discriminators hear; 0: all
    mel: float = 0.0  # shares of the gradient at the codec's sound; all of them 0: none is made
    adversarial: float = 4.0
    matching: float = 4.0  # of the discriminators' features; with adversarial
    sketch: float = 0.0  # weights beside them
    commitment: float = 1.0
    semantic: float = 1.0  # 0: without a teacher
    held_out: int = 48  # crops of the split dev

    def __post_init__(self):
        weights = (self.mel, self.adversarial, self.matching, self.sketch)
        if min(weights) < 0 or not any(weights):
            raise ConfigError(
                "MimiTask: mel, adversarial, matching and sketch need shares of 0 or more, one above 0, got "
                + ", ".join(f"{weight:g}" for weight in weights)
            )
        if bool(self.adversarial) != bool(self.matching):
            raise ConfigError("MimiTask: need shares for both adversarial and matching, or for none of them")
        if self.codec.sample_rate != codec_data.RATE or self.codec.frame_samples % (2 * STEP):
            raise ConfigError(
                f"MimiTask: need a codec of {codec_data.RATE} Hz whose frames are a multiple of {2 * STEP} samples, "
                f"got {self.codec.sample_rate} Hz and frames of {self.codec.frame_samples}"
            )
        if self.decoder_only and not (self.start and self.quantized and self.makes_sound):
            raise ConfigError(
                "MimiTask: decoder_only needs the codec whose codes are to stay and a loss of its sound: set start "
                "and mel or adversarial, and leave quantized on"
            )
        if not 0 <= self.judged <= self.frames:
            raise ConfigError(f"MimiTask: judged must be 0 to {self.frames} frames, got {self.judged}")

    @property
    def makes_sound(self) -> bool:
        """Whether SEANet's half of the decoder is at work."""
        return bool(self.mel or self.adversarial)

    def make(self) -> _Coding:
        """The task."""
        return _Coding(self)


@dataclass(frozen=True)
class Coded:
    """What a batch became; what the task makes no use of is None."""

    sound_BN: Tensor | None
    quantized: Quantized
    sketch: Tensor | None  # how far the guessed spectra are off


class Training(nn.Module):
    """The codec and what teaches it."""

    def __init__(self, config: MimiTask, mimi: Mimi, teacher_dim: int | None):
        super().__init__()
        shares = {"mel": config.mel, "adversarial": config.adversarial, "matching": config.matching}
        self.mimi, self.decoder_only, self.quantized = mimi, config.decoder_only, config.quantized
        self.makes_sound = config.makes_sound
        self.semantic_head = None if teacher_dim is None else nn.Linear(config.codec.seanet.dim, teacher_dim)
        self.balance = Balance({name: share for name, share in shares.items() if share})
        self.discriminators = Discriminators(config.discriminators) if config.adversarial else None
        step = config.codec.frame_samples // config.codec.resample
        self.sketch = (
            Sketch(config.codec.seanet.dim, step=step, rate=config.codec.sample_rate) if config.sketch else None
        )
        if not self.makes_sound:
            mimi.decoder.seanet.requires_grad_(False)
        if self.decoder_only:
            for part in (mimi.encoder, mimi.quantizer, self.semantic_head):
                if part is not None:
                    part.requires_grad_(False)

    def code(self, audio_BN: Tensor) -> Coded:
        """What comes out of the codec on its way back to the audio."""
        quantized = self.quantize(audio_BN)
        steps_BTD = steps_whole(self.mimi.decoder, quantized.x_BTD)
        return Coded(
            sound_BN=sound_whole(self.mimi.decoder, steps_BTD) if self.makes_sound else None,
            quantized=quantized,
            sketch=None if self.sketch is None else self.sketch(steps_BTD, audio_BN),
        )

    def quantize(self, audio_BN: Tensor) -> Quantized:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.decoder_only):
            x_BTD = encode_whole(self.mimi.encoder, audio_BN)
            with torch.autocast(x_BTD.device.type, enabled=False):
                quantizer = self.mimi.quantizer
                return (
                    quantizer(x_BTD, self.mimi.config.num_codebooks) if self.quantized else quantizer.unquantized(x_BTD)
                )

    def train(self, mode: bool = True) -> Training:
        super().train(mode)
        self.mimi.quantizer.train(mode and not self.decoder_only)  # in training mode the codebooks move
        return self

    def unlike_teacher(self, quantized: Quantized, taught_BTD: Tensor | None) -> dict[str, Tensor]:
        """Mean cosine distance, 0 to 2, of the first codebooks' guess from what a teacher hears, where there is one."""
        if self.semantic_head is None or taught_BTD is None:
            return {}
        with torch.autocast(taught_BTD.device.type, enabled=False):
            guess_BTD = self.semantic_head(quantized.semantic_BTD)
            return {"semantic": 1 - F.cosine_similarity(guess_BTD, taught_BTD, dim=-1).mean()}


class _Coding:
    """`MimiTask` at work."""

    def __init__(self, config: MimiTask):
        self.config = config

    @functools.cached_property
    def _teacher(self) -> Teacher | None:
        return load_teacher(self.config.teacher) if self.config.semantic else None

    @functools.cached_property
    @torch.autocast("cpu", enabled=False)
    def _data(self) -> tuple[CodecData, CodecData]:
        """For training and held out."""
        c = self.config
        train, dev = codec_data.read(
            c.data,
            self._teacher,
            shares=c.shares,
            frame_steps=c.codec.frame_samples // STEP,
            as_said=c.as_said,
            cache=c.cache,
        )
        return train, dev

    def prepare(self) -> None:
        _ = self._data

    def build(self) -> nn.Module:
        c, teacher_dim = self.config, None if self._teacher is None else self._teacher.dim
        if not c.start:
            module = Training(c, Mimi(c.codec), teacher_dim)
            begin_loud(module.mimi)
            return module
        mimi = load_codec(c.start)
        if mimi.config != c.codec:
            raise ConfigError(f"MimiTask: {c.start} holds another codec than this stage's: {mimi.config}")
        module = Training(c, mimi, teacher_dim)
        if module.semantic_head is not None:
            load_part(module.semantic_head, SEMANTIC_HEAD, Path(c.start))
        if module.sketch is not None and (Path(c.start) / f"{SKETCH}.json").is_file():
            load_part(module.sketch, SKETCH, Path(c.start))
        return module.train()

    @torch.no_grad()
    def begin(self, module: nn.Module) -> None:
        """Codebooks that have not begun begin by k-means, from crops of the training that no step will see."""
        assert isinstance(module, Training)
        c = self.config
        waiting = c.start and c.quantized and not all(module.mimi.quantizer.begun(c.codec.num_codebooks))
        if c.decoder_only or not waiting:
            return
        module.eval()
        crops, rng = -(-PER_CODE * c.codec.quantizer.codebook_size // c.frames), np.random.default_rng(1)
        batches = (self._data[0].batch(c.rows, c.frames, rng) for _ in range(-(-crops // c.rows)))
        bar, found = Bar("codebooks", step=0, steps=crops, every=10 * c.rows), list[Tensor]()
        for batch in batches:
            found.append(encode_whole(module.mimi.encoder, batch.audio_BN))
            bar.step({"step": min(crops, c.rows * len(found))})
        bar.close()
        x_BTD = torch.cat(found)
        module.mimi.quantizer.begin(x_BTD, c.codec.num_codebooks, step=c.rows * c.frames)
        module.train()

    def batches(self, seed: int, position: int) -> Iterator[Any]:
        return self._data[0].batches(self.config.rows, self.config.frames, seed=seed, position=position)

    def loss(self, module: nn.Module, batch: Crops) -> tuple[Tensor, dict[str, float | Tensor]]:
        assert isinstance(module, Training)
        c, coded = self.config, module.code(batch.audio_BN)
        quantized = coded.quantized
        semantic = module.unlike_teacher(quantized, batch.taught_BTD)
        losses: dict[str, Tensor] = {}
        own, weighed, shown = None, list[Tensor](), list[Tensor]()
        if coded.sound_BN is not None:
            copy_BN = coded.sound_BN.detach().requires_grad_()
            losses, own = self._judge(module, batch.audio_BN, copy_BN)
            weighed.append((coded.sound_BN * module.balance(losses, copy_BN)).sum())
            shown += [module.balance.shares[name] * value.detach() for name, value in losses.items()]
        if coded.sketch is not None:
            losses["sketch"] = coded.sketch
            weighed.append(c.sketch * coded.sketch)
            shown.append(weighed[-1].detach())
        if not c.decoder_only:
            weighed += [c.commitment * quantized.commitment, *(c.semantic * each for each in semantic.values())]
        if own is not None:
            losses["discriminators"] = own
            weighed.append(own)
        losses |= {"commitment": quantized.commitment, **semantic}
        numbers: dict[str, float | Tensor] = {name: value.detach() for name, value in losses.items()}
        numbers |= {"revived": float(quantized.revived), "first": perplexity(quantized.codes_BKT[:, 0])}
        through = torch.stack(weighed).sum()
        return through - (through - torch.stack(shown).sum()).detach(), numbers  # its gradient, and a value to be read

    def _judge(self, module: Training, real_BN: Tensor, copy_BN: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """The codec's losses of its sound, and the discriminators'."""
        losses = {"mel": mel_distance(copy_BN, real_BN)} if self.config.mel else {}
        if module.discriminators is None:
            return losses, None
        real_BN, copy_BN = self._window(real_BN, copy_BN)
        real, decoded = module.discriminators(real_BN), module.discriminators(copy_BN)
        losses |= {"adversarial": found_out(decoded), "matching": unlike(real, decoded)}
        return losses, told_apart(real, decoded)

    def _window(self, real_BN: Tensor, copy_BN: Tensor) -> tuple[Tensor, Tensor]:
        """A stretch of each crop, the same of both; not at its beginning, where the codec knows no past."""
        c, frame = self.config, self.config.codec.frame_samples
        if not c.judged or c.judged == c.frames:
            return real_BN, copy_BN
        begins = torch.randint(1, c.frames - c.judged + 1, (len(real_BN),)).tolist()
        cuts = [slice(begin * frame, (begin + c.judged) * frame) for begin in begins]
        return tuple(torch.stack([x[cut] for x, cut in zip(x_BN, cuts, strict=True)]) for x_BN in (real_BN, copy_BN))  # type: ignore[return-value]

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Over crops of voices that are not trained on, everything quantised."""
        assert isinstance(module, Training)
        c, rng, device = self.config, np.random.default_rng(0), next(module.parameters()).device
        found, codes = [], []
        for begin in range(0, c.held_out, c.rows):
            rows = min(c.rows, c.held_out - begin)
            batch = to_device(self._data[1].batch(rows, c.frames, rng), device)
            coded = module.code(batch.audio_BN)
            measured = module.unlike_teacher(coded.quantized, batch.taught_BTD)
            if coded.sound_BN is not None:
                measured["mel"] = mel_distance(coded.sound_BN, batch.audio_BN)
            if coded.sketch is not None:
                measured["sketch"] = coded.sketch
            found.append({name: rows / c.held_out * float(value) for name, value in measured.items()})
            codes.append(coded.quantized.codes_BKT.transpose(1, 2).flatten(0, 1))
        means = {name: sum(each[name] for each in found) for name in found[0]}
        used_K = [perplexity(codes_N) for codes_N in torch.cat(codes).unbind(1)]
        return means | ({"first": used_K[0], "others": float(np.mean(used_K[1:]))} if c.quantized else {})

    def export(self, module: nn.Module, folder: Path) -> None:
        assert isinstance(module, Training)
        save_codec(module.mimi, folder)
        if module.semantic_head is not None:
            save_part(module.semantic_head, SEMANTIC_HEAD, folder, config=self.config.codec)
        if module.sketch is not None:
            save_part(module.sketch, SKETCH, folder, config=self.config.codec)


def perplexity(codes: Tensor) -> float:
    """How many codes are in use, each counted by how often."""
    share_V = torch.bincount(codes.flatten()).float() / codes.numel()
    return float(torch.exp(-(share_V * share_V.clamp(min=1e-12).log()).sum()))


@torch.no_grad()
def begin_loud(mimi: Mimi) -> None:
    """Random weights under which a signal keeps its size through all convolutions: torch's own make it fade.

    Speech is taken to be about 0.1 loud.
    """
    for half in (mimi.encoder.seanet, mimi.decoder.seanet):
        for layer in half.layers:
            for name, parameter in layer.named_parameters():
                if parameter.dim() == 1:
                    parameter.normal_(std=0.1)  # not 0: norms would make a cliff of digital silence
                    continue
                reached = 2 if isinstance(layer, StepConvTranspose1d) else 1  # inputs times this make one output
                parameter.normal_(std=1.2 * (reached * parameter.shape[1]) ** -0.5)
                if name == "out.weight":
                    parameter.mul_(0.3)  # units begin as a small change to what passes by them
    mimi.encoder.seanet.layers[0].taps.weight.mul_(10)  # type: ignore[union-attr, operator]
    mimi.decoder.seanet.layers[-1].taps.weight.mul_(0.1)  # type: ignore[union-attr, operator]
