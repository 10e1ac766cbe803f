"""The language model's own answers as targets: what it would say to the true text, greedily.

A question of which only the text is known needs an answer to learn from. One that a stronger model would give pulls the
small one to and fro; its own keeps what it knows, makes its choices firm, and is what an answer from speech is held to:
the stage after this one learns to give the same answer to the same question however it was heard (sequence-level
distillation, Kim and Rush 2016, arXiv:1606.07947, with the model as its own teacher).
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duologue import config as configs
from duologue.codecs.text import Message
from duologue.data.manifest import Turn, read_rows, shard_name, write_shard
from duologue.data.teacher import HibariTeacher
from duologue.errors import DataError
from duologue.models.llama_omni.loading import fill_in
from duologue.models.llama_omni.prepared import merge
from duologue.models.text_model import LocalTextModel
from duologue.train.answer_task import SYSTEM
from duologue.train.features import to_card
from duologue.train.parts import find, load_language_model, load_tensors
from duologue.train.progress import Bar
from duologue.train.rows import FIRST_DAY, day_of

SPEAKABLE = re.compile(r"[A-Za-z' ,.?!;:-]+")
SHARD = 500  # rows


@dataclass(frozen=True, kw_only=True)
class OwnAnswersStage:
    """Joins data folders; rows of other sources than `keep` get the tuned model's own greedy answers.

    A question whose own answer is too long, unspeakable or an apology is left out. The teacher says every answer, so
    that the rows have units and prosody for the speech decoder.
    """

    name: str
    data: tuple[str, ...]
    answers: str  # an export of the stage `answers`: the low-rank changes
    out: str
    keep: tuple[str, ...] = ()  # sources whose answers were written with care and stay
    llm: str = "smollm2-135m-instruct"
    system: str = SYSTEM
    words: int = 36  # of the longest answer
    tokens: int = 56
    batch: int = 96
    refused: str = r"\b(sorry|apolog|As an AI)"  # an answer in which this is found is left out

    def run(self) -> None:
        out = Path(self.out)
        done = out / "done.json"
        if done.exists() and json.loads(done.read_text(encoding="utf-8")) == configs.to_dict(self):
            return
        turns = [turn for folder in self.data for turn in read_rows(Path(folder))]
        if not turns:
            raise DataError(f"{', '.join(self.data)}: no rows; make the data first")
        said = self._answers(sorted({self._asked(turn) for turn in turns if self._is_open(turn)}))
        kept = []
        for turn in turns:
            answer = said.get(self._asked(turn)) if self._is_open(turn) else turn.answer
            if answer:
                kept.append(dataclasses.replace(turn, answer=answer))
        self._say(kept)
        for number, first in enumerate(range(0, len(kept), SHARD)):
            write_shard(out / "shards" / shard_name(number), kept[first : first + SHARD])
        configs.save(self, done)

    def _say(self, turns: list[Turn]) -> None:
        """Units and prosody of every answer; the same answer is said once."""
        spoken: dict[str, tuple[list[int], list[float]]] = {}
        teacher, bar = HibariTeacher(), Bar("say", step=0, steps=len(turns), every=1000)
        for number, turn in enumerate(turns, start=1):
            if turn.answer not in spoken:
                said = teacher.speak(turn.answer)
                prosody = np.asarray(said.prosody_UP, np.float32).reshape(-1)
                spoken[turn.answer] = ([int(unit) for unit in said.units], [float(value) for value in prosody])
            turn.units, turn.unit_prosody = spoken[turn.answer]
            bar.step({"step": number})
        bar.close()

    def _is_open(self, turn: Turn) -> bool:
        return turn.source not in self.keep and bool(turn.question.strip())

    @staticmethod
    def _asked(turn: Turn) -> tuple[str, str]:
        """The question and its day, in ISO form."""
        return turn.question, (day_of(turn.id) or FIRST_DAY).isoformat()

    def _answers(self, asked: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Speakable answers, by question and day."""
        llm, codec = load_language_model(self.llm, "fp32")
        merge(llm, load_tensors(find(self.answers) / "llm_lora.safetensors"), where=self.answers)
        writer = LocalTextModel(to_card(llm.bfloat16()), codec, batch=self.batch)
        found: dict[tuple[str, str], str] = {}
        asked = sorted(asked, key=lambda pair: (pair[1], len(pair[0])))
        bar = Bar(self.name, step=0, steps=len(asked), every=10 * self.batch)
        for first in range(0, len(asked), self.batch):
            pairs = asked[first : first + self.batch]
            prompts = [codec.chat(self._chat(*pair)) for pair in pairs]
            for pair, ids in zip(pairs, writer.continue_ids(prompts, max_tokens=self.tokens), strict=True):
                text = codec.decode(ids).strip()
                if len(ids) < self.tokens and self._is_speakable(text):
                    found[pair] = text
            bar.step({"step": first + len(pairs), "kept": len(found)})
        bar.close()
        return found

    def _chat(self, question: str, day: str) -> list[Message]:
        instructions = fill_in(self.system, datetime.date.fromisoformat(day))
        return [Message("system", instructions), Message("user", question)]

    def _is_speakable(self, text: str) -> bool:
        return bool(SPEAKABLE.fullmatch(text)) and len(text.split()) <= self.words and not re.search(self.refused, text)
