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
from duologue.train.own_answers import OwnAnswersStage
from duologue.train.speech_task import SpeechTask
from duologue.train.stages import Work
from duologue.train.turn_task import TurnTask
from duologue.train.vocoder_task import VocoderTask
from duologue.train.work import DataStage, ModelStage, RecordingsStage, TextsStage

RUNS = "runs/mini"


def data(out: str = RUNS) -> list[Work]:
    """What is heard: questions with answers written for mini, sampled ones, all in many voices, and real people."""
    return [
        DataStage(name="taught", recipe="recipes/data_mini.py:mini", out=f"{out}/data/taught"),
        DataStage(name="asked", recipe="recipes/data_mini.py:asked", out=f"{out}/data/asked"),
        DataStage(name="questions", recipe="recipes/data_mini.py:questions", out=f"{out}/data/questions"),
        DataStage(name="words", recipe="recipes/data_mini.py:words", out=f"{out}/data/words"),
        RecordingsStage(name="people", out=f"{out}/data/people"),
    ]


def listen(out: str = RUNS) -> TrainConfig:
    """Stage 0: Whisper tiny.en learns audio without padding, noise, rooms, phones, and to hear nothing in silence."""
    return TrainConfig(
        name="listen",
        task=ListenTask(
            data=f"{out}/data/taught",
            more=(f"{out}/data/asked", f"{out}/data/questions"),
            people=f"{out}/data/people",
            seconds=112.0,
            rows=64,
            held_out=240,
        ),
        steps=2600,
        optimizer=OptimizerConfig(
            lr=3e-5, betas=(0.9, 0.98), weight_decay=0.01, warmup=60, final=0.02, rates=(("whisper.encoder.", 0.6),)
        ),
        precision="auto",
        eval_every=200,
        best_metric="wer_all",
        save_every=100,
        out=f"{out}/listen",
    )


def turns(out: str = RUNS) -> TrainConfig:
    """Stage 0, after that: the head that tells whether a question sounds complete."""
    return TrainConfig(
        name="turns",
        task=TurnTask(
            data=f"{out}/data/taught",
            more=(f"{out}/data/people",),
            listener=f"{out}/listen/export",
            share=0.25,
            rows=384,
        ),
        steps=600,
        optimizer=OptimizerConfig(lr=2e-3, betas=(0.9, 0.98), weight_decay=0.05, warmup=20, final=0.02),
        eval_every=100,
        best_metric="loss",
        save_every=200,
        out=f"{out}/turns",
    )


def answers(out: str = RUNS) -> TrainConfig:
    """Stage 1, first half: the language model learns from text how mini answers."""
    return TrainConfig(
        name="answers",
        task=AnswerTask(data=f"{out}/data/taught", heard=0.0),
        steps=700,
        optimizer=OptimizerConfig(lr=5e-4, betas=(0.9, 0.99), weight_decay=0.01, warmup=20, final=0.05),
        eval_every=100,
        eval_first=True,
        best_metric="text",
        save_every=100,
        out=f"{out}/answers",
    )


def talk(out: str = RUNS) -> OwnAnswersStage:
    """What is talked about: the sampled questions get the tuned model's own answers, and the teacher says them all."""
    return OwnAnswersStage(
        name="talk",
        data=(f"{out}/data/taught", f"{out}/data/asked"),
        answers=f"{out}/answers/export",
        keep=("spoken-qa", "spoken-templates", "about-mini", "wordnet"),
        out=f"{out}/data/talk",
    )


def agree(out: str = RUNS) -> TrainConfig:
    """Stage 1, second half: the adapter too; the same answer to a question, read or heard."""
    return TrainConfig(
        name="agree",
        task=AnswerTask(
            data=f"{out}/data/talk", listener=f"{out}/listen/export", start=f"{out}/answers/export", heard=0.6
        ),
        steps=400,
        optimizer=OptimizerConfig(lr=2e-4, betas=(0.9, 0.99), weight_decay=0.01, warmup=20, final=0.05),
        eval_every=100,
        eval_first=True,
        best_metric="states",
        save_every=100,
        out=f"{out}/agree",
    )


def speech(out: str = RUNS) -> TrainConfig:
    """Stage 2: the speech decoder, everything else frozen."""
    return TrainConfig(
        name="speech",
        task=SpeechTask(data=f"{out}/data/talk", more=(f"{out}/data/words",), answers=f"{out}/agree/export"),
        steps=3000,
        optimizer=OptimizerConfig(
            lr=1.2e-3, betas=(0.9, 0.98), weight_decay=0.01, warmup=100, schedule="linear", final=0.03
        ),
        precision="auto",
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
        precision="auto",
        eval_every=500,
        save_every=250,
        out=f"{out}/vocoder",
    )


def model(out: str = RUNS) -> ModelStage:
    """The parts put together: the folder that `duologue talk --model` takes."""
    return ModelStage(
        name="model",
        listen=f"{out}/listen",
        turns=f"{out}/turns",
        answers=f"{out}/agree",
        speech=f"{out}/speech",
        vocoder=f"{out}/vocoder",
        data=f"{out}/data/talk",
        out=f"{out}/model",
    )


def texts(out: str = RUNS) -> TextsStage:
    """What the vocoder is to say."""
    return TextsStage(name="texts", data=(f"{out}/data/talk", f"{out}/data/words"), out=f"{out}/data/texts.txt")


def mini(out: str = RUNS) -> list[TrainConfig | Work]:
    """All of it, in order."""
    return [
        *data(out),
        answers(out),
        talk(out),
        listen(out),
        turns(out),
        agree(out),
        speech(out),
        texts(out),
        vocoder(out),
        model(out),
    ]
