"""mini from nothing: its data, its stages, and the model folder.

make mini                                              # all of it; stopped and begun again, it goes on
duologue train mini --resume --set llm=models/larger   # the same recipe round another Llama- or Qwen-shaped model
duologue train mini:listen --resume                    # one stage of it

Where the steps, batches and rates come from: docs/training.md.
"""

from __future__ import annotations

from duologue.train import OptimizerConfig, TrainConfig
from duologue.train.answer_task import AnswerTask
from duologue.train.listen_task import ListenTask
from duologue.train.speech_task import SpeechTask
from duologue.train.stages import Work
from duologue.train.vocoder_task import VocoderTask
from duologue.train.work import DataStage, ModelStage, RecordingsStage, TextsStage

RUNS = "runs/mini"


def data(out: str = RUNS) -> list[Work]:
    """Everything that is learnt from: questions and answers, more questions, words, real people, texts."""
    return [
        DataStage(name="talk", recipe="recipes/data_mini.py:mini", out=f"{out}/data/talk"),
        DataStage(name="questions", recipe="recipes/data_mini.py:questions", out=f"{out}/data/questions"),
        DataStage(name="words", recipe="recipes/data_mini.py:words", out=f"{out}/data/words"),
        RecordingsStage(name="people", out=f"{out}/data/people"),
        TextsStage(name="texts", data=(f"{out}/data/talk", f"{out}/data/words"), out=f"{out}/data/texts.txt"),
    ]


def listen(out: str = RUNS) -> TrainConfig:
    """Stage 0: Whisper tiny.en learns audio without padding, noise, rooms, phones, and to hear nothing in silence."""
    return TrainConfig(
        name="listen",
        task=ListenTask(data=f"{out}/data/talk", more=(f"{out}/data/questions", f"{out}/data/people"), held_out=240),
        steps=1200,
        optimizer=OptimizerConfig(lr=3e-5, betas=(0.9, 0.98), weight_decay=0.01, warmup=30, final=0.05),
        precision="bf16",
        eval_every=200,
        best_metric="wer_all",
        save_every=100,
        out=f"{out}/listen",
    )


def answers(out: str = RUNS) -> TrainConfig:
    """Stage 1: the adapter and low-rank changes to the language model."""
    return TrainConfig(
        name="answers",
        task=AnswerTask(data=f"{out}/data/talk", listener=f"{out}/listen/export"),
        steps=1000,
        optimizer=OptimizerConfig(
            lr=6e-4, betas=(0.9, 0.99), weight_decay=0.01, warmup=20, final=0.05, rates=(("adapter", 1.67),)
        ),
        eval_every=100,
        eval_first=True,
        best_metric="states",
        save_every=100,
        out=f"{out}/answers",
    )


def speech(out: str = RUNS) -> TrainConfig:
    """Stage 2: the speech decoder, everything else frozen."""
    return TrainConfig(
        name="speech",
        task=SpeechTask(data=f"{out}/data/talk", more=(f"{out}/data/words",), answers=f"{out}/answers/export"),
        steps=4000,
        optimizer=OptimizerConfig(
            lr=1.2e-3, betas=(0.9, 0.98), weight_decay=0.01, warmup=100, schedule="linear", final=0.03
        ),
        precision="bf16",
        eval_every=200,
        best_metric="unit_error_rate",
        save_every=200,
        out=f"{out}/speech",
    )


def vocoder(out: str = RUNS) -> TrainConfig:
    """Units and prosody to sound."""
    return TrainConfig(
        name="vocoder",
        task=VocoderTask(texts=(f"{out}/data/texts.txt",), cache=f"{out}/data/vocoder"),
        steps=4000,
        optimizer=OptimizerConfig(lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.01, warmup=100, final=0.02),
        precision="bf16",
        eval_every=500,
        save_every=250,
        out=f"{out}/vocoder",
    )


def model(out: str = RUNS) -> ModelStage:
    """The parts put together: the folder that `duologue talk --model` takes."""
    return ModelStage(
        name="model",
        listen=f"{out}/listen",
        answers=f"{out}/answers",
        speech=f"{out}/speech",
        vocoder=f"{out}/vocoder",
        data=f"{out}/data/talk",
        out=f"{out}/model",
    )


def mini(out: str = RUNS) -> list[TrainConfig | Work]:
    """All of it, in order."""
    return [*data(out), listen(out), answers(out), speech(out), vocoder(out), model(out)]
