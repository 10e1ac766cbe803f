"""Stages round the duplex model's training: conversations to learn from, and the finished model's folder."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from duologue import config as configs
from duologue.checkpoints import open_model, save_model
from duologue.checkpoints.codecs import halved
from duologue.data.dialogue.manifest import read_conversations
from duologue.data.dialogue.texts import ASSISTANT
from duologue.data.manifest import ANSWER_RATE, Turn, encode_flac, shard_name, write_shard
from duologue.errors import DataError, TrainError
from duologue.models.moshi.generation import Sampling
from duologue.models.moshi.loading import CODEC_FILE, MODEL_FILE, TEXT_FILES, DType, FamilyConfig
from duologue.nn.quant import pack_int8
from duologue.train.loop import Result
from duologue.train.mimi_work import SHARD
from duologue.train.progress import Bar
from duologue.train.stages import find


@dataclass(frozen=True, kw_only=True)
class DialogueStage:
    """Makes a folder of conversations from a recipe for them."""

    name: str
    recipe: str  # FILE.py:FUNCTION, as for `duologue data dialogue`
    out: str
    settings: tuple[str, ...] = ()  # changes to the recipe, a.b=c

    def run(self) -> None:
        from duologue.data.dialogue import make_dialogues

        make_dialogues(configs.override(find(self.recipe)(), list(self.settings)), Path(self.out))


@dataclass(frozen=True, kw_only=True)
class TurnsStage:
    """The assistant's turns, cut out of conversations as rows of a data folder: what a codec for its voice learns from.

    Each has silence before and after it, as in the conversation, and begins on the same place of a frame.
    """

    name: str
    data: str  # a folder of conversations
    out: str
    frame: int = 1920  # samples of the codec's frame at 24 kHz
    before: int = 10  # frames of silence, at most
    after: int = 5

    def run(self) -> None:
        out, done = Path(self.out), Path(self.out) / "done.json"
        if done.exists() and json.loads(done.read_text(encoding="utf-8")) == configs.to_dict(self):
            return
        total = sum(1 for _ in read_conversations(Path(self.data), columns=()))
        bar = Bar(self.name, step=0, steps=total, every=max(1, total // 20))
        turns, shards = self._turns(bar), 0
        while found := list(itertools.islice(turns, SHARD)):
            write_shard(out / "shards" / shard_name(shards), found)
            shards += 1
        bar.close()
        if not shards:
            raise DataError(f"{self.data}: the assistant says nothing in these conversations")
        configs.save(self, done)

    def _turns(self, bar: Bar) -> Iterator[Turn]:
        for done, row in enumerate(read_conversations(Path(self.data)), 1):
            bar.step({"step": done})
            spoken = [each for each in row.utterances_made() if each.role == ASSISTANT]
            words, audio_N = row.words_of(ASSISTANT), row.sound()[0]
            free = 0  # up to here the channel belongs to the turn before
            for number, turn in enumerate(spoken):
                next_start = spoken[number + 1].start * ANSWER_RATE if number + 1 < len(spoken) else len(audio_N)
                start, end = (round(each * ANSWER_RATE / self.frame) for each in (turn.start, turn.end))
                last = min(end + 1 + self.after, int(next_start) // self.frame)
                first, free = max(start - self.before, free), last
                said = [word.text for word in words if turn.start - 0.01 <= word.start < turn.end]
                if last <= start or not said:
                    continue
                piece_N = audio_N[first * self.frame : last * self.frame]
                yield Turn(
                    id=f"{row.id}-{number}",
                    split=row.split,
                    source=row.source,
                    answer=" ".join(said),
                    answer_audio=encode_flac(piece_N, ANSWER_RATE),
                    answer_seconds=len(piece_N) / ANSWER_RATE,
                    answer_speaker=row.assistant,
                )


@dataclass(frozen=True, kw_only=True)
class DuplexStage:
    """The folder of the finished model, with a card that says how it was made."""

    name: str
    stages: tuple[str, ...]  # the folders of its runs, in order; the last one's model is taken
    data: tuple[str, ...]  # folders of conversations
    out: str
    recipe: str  # the name of the recipe, for the card
    sampling: Sampling = field(default_factory=Sampling)
    dtype: DType = "bfloat16"  # that it is run in
    packed: bool = False  # int8 linear layers and embeddings, everything else in float16: half of bfloat16's size

    def run(self) -> None:
        last = Path(self.stages[-1]) / "export"
        if not last.is_dir():
            raise TrainError(f"{last}: nothing is there. Run the stages of training to their end first.")
        found = open_model(last)
        found.require_family("moshi")
        config = configs.from_dict(FamilyConfig, found.model, where=f"{last}/config.json: model")
        tensors = {name: found.tensors(name) for name in (MODEL_FILE, CODEC_FILE)}
        if self.packed:
            tensors[MODEL_FILE] = pack_int8(tensors[MODEL_FILE], rest=torch.float16)
            tensors[CODEC_FILE] = halved(tensors[CODEC_FILE])
        save_model(
            self.out,
            family="moshi",
            model=replace(config, sampling=self.sampling, dtype=self.dtype),
            tensors=tensors,
            files={name: found.file(name) for name in TEXT_FILES if name in found.files},
            card="\n".join(self._card()) + "\n",
        )

    def _card(self) -> Iterator[str]:
        yield from (f"# {Path(self.out).name}", "", f"A small full-duplex model, trained by {self.recipe}.", "")
        yield from ("| stage | steps | time | held-out measures | trained on |", "| --- | --- | --- | --- | --- |")
        for folder in map(Path, self.stages):
            if (folder / "result.json").is_file():
                r = configs.load(Result, folder / "result.json")
                names = [name for name in r.evaluation if not name.startswith(("code_", "right_"))]
                measures = ", ".join(f"{name} {r.evaluation[name]:.4g}" for name in names)
                yield f"| {r.name} | {r.exported_step} | {r.seconds / 60:.0f} min | {measures} | {r.machine} |"
        yield from ("", "Conversations from:", "")
        files = [Path(folder) / "config.json" for folder in self.data]
        made = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
        named = [each for kind in ("sources", "voices") for recipe in made for each in recipe.get(kind, [])]
        yield from dict.fromkeys(f"- {each['name']} ({each['licence'] or 'no licence noted'})" for each in named)
