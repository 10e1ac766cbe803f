"""A small Mimi from nothing in about three hours on two cores: its speech, its four stages, and the codec folder.

The packaged `mimi_mini` is what these made, without `voice`, which has not been run on it yet (docs/log.md).

duologue train mimi_mini --resume              # all of it; stopped and begun again, it goes on
duologue eval mimi --model runs/mimi_mini/codec

24 kHz, 12.5 frames a second, 8 codebooks of 1024: 1 kbit/s. The codes come first, from a sketch of the sound, which is
quick; then the decoder learns to make sound of them by spectra, and at last goes on with discriminators, which make it
sound like a voice. The codes keep their meaning from the second stage on, so that models which learn them need not wait
for the others. The paper trains all of it adversarially from the start and, in its best model, without the spectra, for
4 million steps of 128 crops of 12 s; here there are 21,800 steps of 4 crops of 1.3 s: docs/training.md.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from duologue.codecs.mimi import MimiConfig, mimi_transformer
from duologue.codecs.rvq import QuantizerConfig
from duologue.codecs.seanet import SeanetConfig
from duologue.data.speakers import Voice
from duologue.train import OptimizerConfig, TrainConfig
from duologue.train.discriminators import DiscriminatorConfig
from duologue.train.mimi_task import MimiTask
from duologue.train.mimi_work import CodecStage, SpeechStage
from duologue.train.stages import Work
from duologue.train.work import RecordingsStage
from recipes.data_mini import voices

RUNS = "runs/mimi_mini"
OWN = Path(__file__).parent / "data"
TEXTS = ("spoken_qa", "spoken_templates", "statements", "about_mini", "sampled")


def codec() -> MimiConfig:
    """8.7 million parameters, of which the transformers have 6.3 and cost little. They look back 1.2 s, less than a
    crop is long, so that streams of any length are like what was trained on."""
    return MimiConfig(
        num_codebooks=8,
        seanet=SeanetConfig(dim=256, filters=16),
        transformer=replace(mimi_transformer(), dim=256, layers=4, heads=4, ffn_dim=1024, layer_scale=0.1, context=30),
        quantizer=QuantizerConfig(
            dim=256, code_dim=128, codebook_size=1024, codebooks=8, decay=0.995, revive_below=0.05
        ),
    )


def speakers() -> tuple[Voice, ...]:
    """The voices of mini's data; those at full band are heard most."""
    return tuple(
        replace(voice, weight=3 * voice.weight if voice.kind == "hibari" else voice.weight) for voice in voices()
    )


def data(out: str = RUNS) -> list[Work]:
    """About six hours of many synthetic voices, and the real recordings."""
    return [
        SpeechStage(
            name="speech",
            out=f"{out}/data/speech",
            texts=tuple(str(OWN / f"{name}.jsonl") for name in TEXTS),
            voices=speakers(),
            rows=7000,
        ),
        RecordingsStage(name="people", out=f"{out}/data/people"),
    ]


def sketch(out: str = RUNS) -> TrainConfig:
    """Words, pitch and voices reach the quantiser, which lets all of it pass."""
    return TrainConfig(
        name="sketch",
        task=MimiTask(
            data=(f"{out}/data/speech", f"{out}/data/people"),
            shares=(0.75, 0.25),
            codec=codec(),
            rows=4,
            frames=16,
            adversarial=0.0,
            matching=0.0,
            sketch=1.0,
            quantized=False,
        ),
        steps=6000,
        optimizer=OptimizerConfig(lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01, warmup=100, final=0.5),
        precision="auto",
        eval_every=1000,
        save_every=500,
        ema=0.99,
        out=f"{out}/sketch",
    )


def codes(out: str = RUNS) -> TrainConfig:
    """The codebooks begin, and what is needed passes through them."""
    base = sketch(out)
    return replace(
        base,
        name="codes",
        task=replace(base.task, start=f"{out}/sketch/export", quantized=True, commitment=0.25),
        steps=3000,
        optimizer=replace(base.optimizer, lr=4e-4, final=0.05),
        out=f"{out}/codes",
    )


def spectra(out: str = RUNS) -> TrainConfig:
    """The decoder alone learns to make sound of the codes, by distances of mel spectra."""
    base = codes(out)
    return replace(
        base,
        name="spectra",
        task=replace(base.task, start=f"{out}/codes/export", decoder_only=True, mel=1.0, sketch=0.0),
        steps=10200,
        optimizer=OptimizerConfig(lr=8e-4, betas=(0.8, 0.95), weight_decay=0.01, warmup=100, final=0.2),
        out=f"{out}/spectra",
    )


def voice(out: str = RUNS) -> TrainConfig:
    """It goes on with discriminators at three resolutions, which hear half of each crop."""
    base = spectra(out)
    return replace(
        base,
        name="voice",
        task=replace(
            base.task,
            start=f"{out}/spectra/export",
            mel=1.0,
            adversarial=3.0,
            matching=3.0,
            judged=8,
            discriminators=DiscriminatorConfig(windows=(2048, 512, 128), channels=16),
        ),
        steps=2600,
        optimizer=replace(base.optimizer, lr=4e-4, final=0.05, clip=0.0),
        out=f"{out}/voice",
    )


def model(out: str = RUNS) -> CodecStage:
    """The folder that `duologue eval mimi --model` takes."""
    return CodecStage(
        name="codec",
        stages=tuple(f"{out}/{name}" for name in ("sketch", "codes", "spectra", "voice")),
        data=(f"{out}/data/speech", f"{out}/data/people"),
        out=f"{out}/codec",
    )


def mimi_mini(out: str = RUNS) -> list[TrainConfig | Work]:
    """All of it, in order."""
    return [*data(out), sketch(out), codes(out), spectra(out), voice(out), model(out)]
