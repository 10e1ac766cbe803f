"""A small full-duplex model, meant for ten hours on two cores: data, eight stages of training, a folder.

duologue train duplex_mini --resume            # all of this; stopped and begun again, it goes on
duologue serve --model runs/duplex_mini/model

Moshi's shape: 8 of the 30 layers of SmolLM2-135M hear 8 codebooks of the user, think in the first 8,192 pieces of its
vocabulary, and say 8 codebooks of their own through a depth transformer of 3 layers; some 70 million parameters. Its
codec is the packaged mimi_mini. Stages are the paper's: text, each side alone, both sides, and at last both sides as
they will be when it is served. What the paper does not have: users alone before all that, a head that has to write
down what they say and reads it again, and answers that are written in one go, ahead of their sound. The weights in
models/ came of these stages by a longer way, which their card tells; it has not been run whole like this yet.

Not as in the paper: a delay of one frame throughout, a closed set of some 250 questions with short answers, words that
are never cut off, thousandths of its hours of sound.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from duologue.models.moshi.config import DepthConfig
from duologue.models.moshi.generation import Sampling
from duologue.train import OptimizerConfig, TrainConfig
from duologue.train.duplex_losses import LossWeights
from duologue.train.duplex_start import NewModel
from duologue.train.duplex_task import DuplexTask
from duologue.train.duplex_work import DialogueStage, DuplexStage, TurnsStage
from duologue.train.mimi_task import MimiTask
from duologue.train.mimi_work import SpeechStage
from duologue.train.stages import Work
from recipes import mimi_mini
from recipes.data_duplex import closed

RUNS = "runs/duplex_mini"
CODEC = "mimi_mini"  # the packaged one; runs/mimi_mini/codec: your own
HERE = Path(__file__).parent
TEXTS = tuple(str(HERE / "data" / f"{name}.jsonl") for name in ("statements", "sampled"))
LAYERS = (*range(4), *range(26, 30))  # of SmolLM2's 30


def new() -> NewModel:
    """The first four layers and the last four: ends like these read best of the subsets of twelve that were tried."""
    return NewModel(
        llm="smollm2-135m-instruct",
        layers=LAYERS,
        pieces=8192,
        depth=DepthConfig(steps=8, dim=256, layers=3, heads=4, ffn_dims=(704,) * 8),
        context=1500,
        loud=4.0,
    )


def talks(out: str = RUNS) -> DialogueStage:
    """Many people asking some 250 questions that have short answers."""
    return DialogueStage(name="talks", recipe=f"{HERE / 'data_duplex.py'}:closed", out=f"{out}/data/talks")


def asked(out: str = RUNS) -> DialogueStage:
    """The same questions, asked one behind the other by many more people: to hear by."""
    return DialogueStage(name="asked", recipe=f"{HERE / 'data_duplex.py'}:asked", out=f"{out}/data/asked")


def read(out: str = RUNS) -> TrainConfig:
    """Text alone: what is left of the language model grows together again."""
    return TrainConfig(
        name="read",
        task=DuplexTask(
            new=new(),
            codec=CODEC,
            texts=(f"{out}/data/talks", *TEXTS),
            text_share=1.0,
            rows=8,
            seconds=20.0,
        ),
        steps=100,
        optimizer=OptimizerConfig(lr=4e-4, betas=(0.9, 0.95), weight_decay=0.1, warmup=20, final=0.5),
        precision="auto",
        eval_every=50,
        save_every=50,
        out=f"{out}/read",
    )


def hear(out: str = RUNS) -> TrainConfig:
    """Users alone, without a pause to speak of: a head has to write down what they say, half a second behind them. The
    embeddings of codes, which begin as what the codec makes of them, learn fastest."""
    base = read(out)
    task = replace(
        base.task,
        start=f"{out}/read/export",
        new=NewModel(),
        codec="",
        data=(f"{out}/data/asked",),
        streams="two",
        apart=1.0,
        hear_delay=6,
        heard_drop=0.3,
        unread=1.0,
        misread=0.0,
        rows=4,
        seconds=24.0,
        texts=(),
        text_share=0.0,
        weights=LossWeights(padding=0.3),
    )
    return replace(
        base,
        name="hear",
        task=task,
        steps=1500,
        optimizer=replace(base.optimizer, lr=6e-4, warmup=100, final=0.1, rates=(("audio_embedding.", 2.5),)),
        eval_every=300,
        save_every=100,
        out=f"{out}/hear",
    )


def one(out: str = RUNS) -> TrainConfig:
    """Each side alone. The assistant's words come in one go when it begins; what it is told of its own sound is partly
    wrong or missing, so that it goes by them."""
    base = hear(out)
    task = replace(
        base.task,
        start=f"{out}/hear/export",
        data=(f"{out}/data/talks",),
        texts=read(out).task.texts,
        rows=8,
        text_share=0.125,
        words_share=0.375,
        unread=0.2,
        misread=0.2,
        text_lead=25,
        misspoken=0.3,
        unspoken=0.1,
        depth_share=0.5,
        still_share=0.2,
        weights=LossWeights(semantic=5.0, padding=0.3, text=3.0),
    )
    optimizer = replace(base.optimizer, lr=4e-4, final=0.5, rates=(("depth.", 2.5),))
    return replace(base, name="one", task=task, steps=250, optimizer=optimizer, save_every=50, out=f"{out}/one")


def two(out: str = RUNS) -> TrainConfig:
    """Both sides, each in its stream, and some rows of one side alone still. In some rows the user's later codebooks
    are missing: the first ones are much the same whoever speaks."""
    base = one(out)
    task = replace(
        base.task,
        start=f"{out}/one/export",
        apart=0.25,
        text_share=0.0,
        texts=(),
        words_share=0.25,
        depth_share=0.35,
        still_share=0.15,
    )
    optimizer = replace(base.optimizer, lr=3e-4, final=0.2)
    return replace(base, name="two", task=task, steps=600, optimizer=optimizer, ema=0.99, out=f"{out}/two")


def answer(out: str = RUNS) -> TrainConfig:
    """Both sides, but in some rows nothing of the user except what the head wrote down, read again: what is answered
    must come from there. Without such rows the words are hardly used where there is sound beside them."""
    base = two(out)
    task = replace(base.task, start=f"{out}/two/export", words_share=0.125, unheard=0.3, apart=0.15)
    optimizer = replace(base.optimizer, warmup=15)
    return replace(base, name="answer", task=task, steps=600, optimizer=optimizer, out=f"{out}/answer")


def own_speech(out: str = RUNS) -> SpeechStage:
    """The assistant's voice, saying all kinds of things."""
    return SpeechStage(
        name="own_speech",
        out=f"{out}/data/own",
        texts=tuple(str(HERE / "data" / f"{name}.jsonl") for name in ("spoken_qa", "statements", "sampled")),
        voices=(closed().assistant,),
        rows=2000,
        held_out=60,
    )


def sound(out: str = RUNS) -> TrainConfig:
    """The codec's decoder learns to sound like that one voice, by distances of mel spectra; what the codes mean stays
    as it is. With discriminators from the start it forgot how to speak (docs/log.md)."""
    return TrainConfig(
        name="sound",
        task=MimiTask(
            data=(f"{out}/data/own",),
            start=CODEC,
            codec=mimi_mini.codec(),
            decoder_only=True,
            rows=4,
            frames=16,
            mel=1.0,
            adversarial=0.0,
            matching=0.0,
            semantic=0.0,
        ),
        steps=1000,
        optimizer=OptimizerConfig(lr=6e-4, betas=(0.8, 0.95), weight_decay=0.01, warmup=50, final=0.05),
        precision="auto",
        eval_every=500,
        save_every=250,
        ema=0.99,
        out=f"{out}/sound",
    )


def own_turns(out: str = RUNS) -> TurnsStage:
    """What the assistant says in conversations, out of silence and into it."""
    return TurnsStage(name="own_turns", data=f"{out}/data/talks", out=f"{out}/data/turns")


def said(out: str = RUNS) -> TrainConfig:
    """Then just that: until now it began in the middle of words, at any level, with noise under it."""
    base = sound(out)
    task = replace(base.task, start=f"{out}/sound/export", data=(f"{out}/data/turns",), as_said=True, rows=2, frames=48)
    optimizer = replace(base.optimizer, lr=4e-4)
    return replace(base, name="said", task=task, steps=2500, optimizer=optimizer, out=f"{out}/said")


def live(out: str = RUNS) -> TrainConfig:
    """Both sides as they are when it is served, every frame of speech said in full."""
    base = answer(out)
    task = replace(
        base.task,
        start=f"{out}/answer/export",
        codec=f"{out}/said/export",
        apart=0.1,
        heard_drop=0.15,
        words_share=0.0,
        unheard=0.2,
        misspoken=0.2,
        unspoken=0.0,
        depth_share=1.0,
        still_share=0.3,
        weights=replace(base.task.weights, padding=0.5, text=2.0),
    )
    optimizer = replace(base.optimizer, lr=2.5e-4, final=0.05)
    return replace(base, name="live", task=task, steps=850, optimizer=optimizer, eval_every=150, out=f"{out}/live")


def model(out: str = RUNS) -> DuplexStage:
    """The folder that `duologue serve --model` takes."""
    return DuplexStage(
        name="model",
        stages=tuple(f"{out}/{name}" for name in ("read", "hear", "one", "two", "answer", "sound", "said", "live")),
        data=(f"{out}/data/asked", f"{out}/data/talks"),
        out=f"{out}/model",
        recipe="recipes/duplex_mini.py",
        sampling=Sampling(text_temperature=0.4, text_top_k=25, temperature=0.6, top_k=100),
        dtype="int8",
        packed=True,
    )


def duplex_mini(out: str = RUNS) -> list[TrainConfig | Work]:
    """All of it, in order."""
    data = [asked(out), talks(out), own_speech(out), own_turns(out)]
    voice = [sound(out), said(out)]
    return [*data, read(out), hear(out), one(out), two(out), answer(out), *voice, live(out), model(out)]
