"""Stages round the codec's training: speech at its rate to learn from, and the finished codec's folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from duologue import config as configs
from duologue.checkpoints.codecs import load_codec, save_codec
from duologue.data.manifest import ANSWER_RATE, Turn, encode_flac, shard_name, write_shard
from duologue.data.speakers import Speaker, Voice, choose_voice, make_speaker
from duologue.errors import DataError, TrainError
from duologue.train.loop import Result
from duologue.train.progress import Bar

SHARD = 250  # rows
KEYS = ("question", "answer", "text")  # of a text file's objects: what is said
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SpeechStage:
    """Texts read aloud by many voices at the codec's rate, as answers of a data folder; nobody answers anybody."""

    name: str
    out: str
    texts: tuple[str, ...]  # JSONL files; every question, answer and text in them may be said
    voices: tuple[Voice, ...]  # those with the split dev alone are held out
    rows: int  # utterances
    held_out: int = 200  # of them, by held-out voices
    seed: int = 0

    def run(self) -> None:
        out = Path(self.out)
        done = out / "done.json"
        if done.exists() and json.loads(done.read_text(encoding="utf-8")) == configs.to_dict(self):
            return
        lines, speakers = self._lines(), dict[str, Speaker]()
        bar = Bar(self.name, step=0, steps=self.rows, every=SHARD)
        for number, begin in enumerate(range(0, self.rows, SHARD)):
            path = out / "shards" / shard_name(number)
            if not path.exists():
                spoken = (self._row(row, lines, speakers) for row in range(begin, min(begin + SHARD, self.rows)))
                write_shard(path, [turn for turn in spoken if turn is not None])
            bar.step({"step": min(begin + SHARD, self.rows)})
        bar.close()
        configs.save(self, done)

    def _lines(self) -> list[str]:
        found: dict[str, None] = {}
        for name in self.texts:
            try:
                objects = [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines() if line]
            except (OSError, ValueError) as error:
                raise DataError(f"{name}: cannot be read as lines of JSON ({error})") from error
            for each in objects:
                found |= {str(each[key]): None for key in KEYS if each.get(key) and "{" not in str(each[key])}
        if not found:
            raise DataError(f"{', '.join(self.texts) or 'no file'}: there is nothing to say in it")
        return list(found)

    def _row(self, number: int, lines: list[str], speakers: dict[str, Speaker]) -> Turn | None:
        rng = np.random.default_rng((self.seed, number))
        split = "dev" if number < self.held_out else "train"
        voice, text = choose_voice(self.voices, split, rng), lines[int(rng.integers(len(lines)))]
        speaker = speakers.setdefault(voice.name, make_speaker(voice))
        try:
            audio = speaker.speak(text, int(rng.integers(2**31)))
        except DataError as error:
            logger.warning("%s: row %d is left out: %s", self.name, number, error)
            return None
        if speaker.sample_rate != ANSWER_RATE:
            audio = soxr.resample(audio, speaker.sample_rate, ANSWER_RATE)
        return Turn(
            id=f"{self.name}-{number:05d}",
            split=split,
            source=self.name,
            answer=text,
            answer_audio=encode_flac(audio, ANSWER_RATE),
            answer_seconds=len(audio) / ANSWER_RATE,
            answer_speaker=voice.name,
        )


@dataclass(frozen=True, kw_only=True)
class CodecStage:
    """The finished codec's folder, with a card that says how it was made."""

    name: str
    stages: tuple[str, ...]  # the folders of its runs, in order; the last one's codec is taken
    data: tuple[str, ...]  # the data folders
    out: str

    def run(self) -> None:
        last = Path(self.stages[-1]) / "export"
        if not last.is_dir():
            raise TrainError(f"{last}: nothing is there. Run the stages of training to their end first.")
        save_codec(load_codec(last), self.out, card="\n".join(self._card()) + "\n", half=True)

    def _card(self) -> Iterator[str]:
        yield from (f"# {Path(self.out).name}", "", "A Mimi trained from nothing by recipes/mimi_mini.py.", "")
        yield from ("| stage | steps | time | held-out measures | trained on |", "| --- | --- | --- | --- | --- |")
        for folder in map(Path, self.stages):
            if (folder / "result.json").is_file():
                r = configs.load(Result, folder / "result.json")
                found = ", ".join(f"{key} {value:.4g}" for key, value in r.evaluation.items())
                yield f"| {r.name} | {r.exported_step} | {r.seconds / 60:.0f} min | {found} | {r.machine} |"
        yield from ("", "Speech from:", "")
        for folder in map(Path, self.data):
            made = json.loads((folder / "done.json").read_text(encoding="utf-8")) if folder.is_dir() else {}
            voices = [f"{voice['name']} ({voice['licence'] or 'no licence noted'})" for voice in made.get("voices", [])]
            what = ", ".join(voices) or "recordings, see docs/recordings.md"
            yield f"- {folder.name}: {what}"
