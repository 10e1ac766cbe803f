"""mini with the paper's form of listening: encoder and stacking adapter, no recogniser's decoder.

duologue train mini_ctc --resume --out runs/mini   # beside a finished mini: what is there is not made again
duologue train mini_ctc:ctc --resume               # one stage of it

The same data, the same language model with mini's changes, the same speech decoder and vocoder, so that what differs is
the listener. Its encoder is that of mini's listener. Where the numbers come from: docs/training.md.
"""

from __future__ import annotations

from duologue.train import OptimizerConfig, TrainConfig
from duologue.train.ctc_answer_task import CtcAnswerTask
from duologue.train.ctc_task import CtcTask
from duologue.train.stages import Work
from duologue.train.work import ModelStage
from recipes import mini

RUNS = mini.RUNS


def ctc(out: str = RUNS) -> TrainConfig:
    """Stage 0: the adapter's output is aligned with the words in the language model's embedding space."""
    return TrainConfig(
        name="ctc",
        task=CtcTask(
            data=f"{out}/data/taught",
            more=(f"{out}/data/asked", f"{out}/data/questions", f"{out}/data/people"),
            listener=f"{out}/listen/export",
            held_out=240,
        ),
        steps=4000,
        optimizer=OptimizerConfig(
            lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01, warmup=100, schedule="linear", final=0.03
        ),
        precision="auto",
        eval_every=400,
        best_metric="wer_all",
        save_every=200,
        out=f"{out}/ctc",
    )


def ctc_answers(out: str = RUNS) -> TrainConfig:
    """Stage 1: what is read out of the tokens, by cross-entropy on the answers; mini's changes stay as they are."""
    return TrainConfig(
        name="ctc_answers",
        task=CtcAnswerTask(
            data=f"{out}/data/talk", listener=f"{out}/ctc/export", changes=f"{out}/agree/export", heard=1.0
        ),
        steps=600,
        optimizer=OptimizerConfig(lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=20, final=0.05),
        eval_every=100,
        eval_first=True,
        best_metric="states",
        save_every=100,
        out=f"{out}/ctc_answers",
    )


def ctc_model(out: str = RUNS) -> ModelStage:
    """The parts put together: the folder that `duologue talk --model` takes."""
    return ModelStage(
        name="ctc_model",
        listen=f"{out}/ctc",
        answers=f"{out}/ctc_answers",
        speech=f"{out}/speech",
        vocoder=f"{out}/vocoder",
        data=f"{out}/data/talk",
        out=f"{out}/model_ctc",
    )


def mini_ctc(out: str = RUNS) -> list[TrainConfig | Work]:
    """All of it, in order: mini's own stages first, for their data, encoder, changes and voice."""
    own = [stage for stage in mini.mini(out) if stage.name != "model"]
    return [*own, ctc(out), ctc_answers(out), ctc_model(out)]
