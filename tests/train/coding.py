"""A tiny codec's training: speech to learn from, and a run of a few steps. As a program it runs one that may die."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from tiny_mimi import CONFIG, speech
from torch import Tensor
from train import tiny
from train.mortal import Dying, apart, as_program, run_of

from duologue.data.manifest import Turn, encode_flac, write_shard
from duologue.train import OptimizerConfig, TrainConfig
from duologue.train.discriminators import DiscriminatorConfig
from duologue.train.mimi_task import MimiTask, _Coding

SCRIPT = Path(__file__)
TINY = dataclasses.replace(CONFIG, seanet=dataclasses.replace(CONFIG.seanet, filters=2))


def save_speech(folder: Path, *, rows: int = 8) -> Path:
    """Pieces of a spoken question as answers, and two at 16 kHz as questions."""
    turns = []
    for number in range(rows):
        audio_N = speech(8, rows=number % 4 + 1)[-1].numpy() * (0.5 + number / rows)
        flac = {"answer_audio": encode_flac(audio_N, 24_000)}
        if number < 2:
            flac = {"question_audio": encode_flac(audio_N[: 6 * 1280], 16_000)}
        turns.append(Turn(id=f"said-{number}", split="dev" if number % 4 == 3 else "train", **flac))
    write_shard(folder / "shards" / "shard-00000.parquet", turns)
    return folder


def mimi_task(folder: Path, **changes: Any) -> MimiTask:
    """A task whose data and teacher are made in `folder` where they are not there yet."""
    if not (folder / "data").exists():
        save_speech(folder / "data")
        tiny.save_whisper(folder / "teacher")
    task = MimiTask(
        data=(str(folder / "data"),),
        teacher=str(folder / "teacher"),
        codec=TINY,
        discriminators=DiscriminatorConfig(windows=(128, 64), channels=2),
        rows=3,
        frames=5,
        judged=2,
        mel=1.0,
        held_out=4,
    )
    return dataclasses.replace(task, **changes)


@dataclass(frozen=True, kw_only=True)
class Mortal(MimiTask):
    """Dies when it is to make a batch."""

    kill_at: int = -1

    def make(self) -> _Coding:
        return _Mortal(self)


class _Mortal(Dying, _Coding):
    pass


def mimi_config(folder: Path, out: Path, *, kill_at: int = -1, **changes: Any) -> TrainConfig:
    of_task, of_run = apart(changes)
    task = mimi_task(folder, **of_task)
    rates = (("discriminators.", 0.5),) if task.adversarial else ()
    optimizer = OptimizerConfig(lr=3e-3, betas=(0.5, 0.9), warmup=2, rates=rates)
    return run_of("codec", task, Mortal, out, kill_at=kill_at, **{"optimizer": optimizer, **of_run})


def exported(out: Path) -> dict[str, Tensor]:
    found = load_file(out / "export" / "mimi.safetensors")
    return {**found, **load_file(out / "export" / "semantic_head.safetensors")}


if __name__ == "__main__":
    as_program(mimi_config)
