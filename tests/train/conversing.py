"""Tiny conversations, and a run of a few steps on them. As a program it runs one that may die."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tiny_duplex import codec
from train import tiny
from train.mortal import Dying, apart, as_program, run_of

from duologue.checkpoints.codecs import save_codec
from duologue.data.dialogue.manifest import Conversation, encode_stereo, write_conversations
from duologue.data.manifest import shard_name
from duologue.models.moshi.config import DepthConfig
from duologue.nn.window_transformer import WindowConfig
from duologue.train import OptimizerConfig, TrainConfig
from duologue.train.duplex_start import NewModel
from duologue.train.duplex_task import DuplexTask, _Conversing

SCRIPT = Path(__file__)
RATE, FRAME = 24_000, 1920
BOOKS = 3
DEPTH = DepthConfig(steps=BOOKS, dim=16, layers=2, heads=2, ffn_dims=(24,) * BOOKS)
SHAPE = WindowConfig(dim=32, layers=2, heads=4, kv_heads=2, ffn_dim=48, norm_eps=1e-5)


def talk(number: int, *, frames: int = 40, split: str = "train", answered: bool = True) -> Conversation:
    """The user hums, then the assistant says three words, each a hum of its own."""
    rng, seconds = np.random.default_rng(number), np.arange(FRAME * frames) / RATE
    audio_CN = 1e-3 * rng.standard_normal((2, FRAME * frames)).astype(np.float32)
    asked = 8 + number % 5  # frames
    audio_CN[1, : asked * FRAME] += 0.2 * np.sin(2 * np.pi * (150 + 40 * number) * seconds[: asked * FRAME])
    words = [["hello", 0.1, asked * 0.08, "user"]]
    for place, word in enumerate(("sun", "sea", "red") if answered else ()):
        begin = asked + 6 + 6 * place
        here = slice(begin * FRAME, (begin + 4) * FRAME)
        audio_CN[0, here] += 0.2 * np.sin(2 * np.pi * (200 + 90 * place) * seconds[here])
        words.append([word, begin * 0.08 + 0.01, (begin + 4) * 0.08, "assistant"])
    if not answered:
        audio_CN[0] = 0.0
    return Conversation(
        id=f"talk-{number}",
        split=split,
        audio=encode_stereo(audio_CN),
        seconds=frames * 0.08,
        words=json.dumps(words),
    )


def save_talks(folder: Path, *, count: int = 6) -> Path:
    """Two shards; the last conversation of each is held out."""
    for shard in range(2):
        rows = [talk(number, split="dev" if number >= count - 2 else "train") for number in range(shard, count, 2)]
        write_conversations(folder / "shards" / shard_name(shard), rows)
    return folder


def duplex_task(folder: Path, **changes: Any) -> DuplexTask:
    """A task whose data and parts are made in `folder` where they are not there yet."""
    if not (folder / "talks").exists():
        save_talks(folder / "talks")
        save_codec(codec(), folder / "codec")
        tiny.save_llm(folder / "llama", "llama", tiny.LLAMA)
        lines = [{"question": f"who is {word}", "answer": f"the {word} is red"} for word in tiny.WORDS]
        (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    new = NewModel(temporal=SHAPE, tokenizer=str(folder / "llama" / "tokenizer.json"), depth=DEPTH, context=64)
    task = DuplexTask(
        data=(str(folder / "talks"),),
        codec=str(folder / "codec"),
        new=new,
        rows=3,
        seconds=24 * 0.08,
        texts=(str(folder / "texts.jsonl"),),
        text_share=0.34,
        text_mask=0.3,
        ahead=(-0.2, 0.2),
        depth_share=0.5,
        held_out=4,
    )
    return dataclasses.replace(task, **changes)


@dataclass(frozen=True, kw_only=True)
class Mortal(DuplexTask):
    """Dies when it is to make a batch."""

    kill_at: int = -1

    def make(self) -> _Conversing:
        return _Mortal(self)


class _Mortal(Dying, _Conversing):
    pass


def duplex_config(folder: Path, out: Path, *, kill_at: int = -1, **changes: Any) -> TrainConfig:
    of_task, of_run = apart(changes)
    optimizer = OptimizerConfig(lr=3e-3, warmup=2, rates=(("depth.", 2.0),))
    run = {"optimizer": optimizer, "shard_layers": ("WindowBlock", "DepthBlock"), **of_run}
    return run_of("duplex", duplex_task(folder, **of_task), Mortal, out, kill_at=kill_at, **run)


if __name__ == "__main__":
    as_program(duplex_config)
