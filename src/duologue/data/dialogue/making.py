"""Makes conversations from a recipe, shard by shard.

    make_dialogues(config, Path("data_out/duplex"))

Every shard is written whole or not at all, and each conversation's seed follows from the recipe's seed and its own
name: a run that was ended goes on where it was, and gives the same bytes in one process or in several.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from duologue.config import from_dict, to_dict
from duologue.data.dialogue.card import write_dialogue_card
from duologue.data.dialogue.channels import draw_microphone, mix
from duologue.data.dialogue.clips import RATE, Clip, Clips
from duologue.data.dialogue.config import DialogueConfig
from duologue.data.dialogue.manifest import (
    Conversation,
    encode_stereo,
    read_conversations,
    with_timeline,
    write_conversations,
)
from duologue.data.dialogue.stereo import read_stereo, write_lists, write_stereo
from duologue.data.dialogue.texts import ASSISTANT, Phrases, Script, Texts
from duologue.data.dialogue.timeline import lay_out
from duologue.data.manifest import SHARDS, read_metadata, shard_name, write_text
from duologue.data.prompts import Prompts
from duologue.data.speakers import Speaker, Voice, choose_voice
from duologue.data.steps.base import seed_of
from duologue.data.synthesis import Progress, claim, reporting
from duologue.errors import DataError

TEXTS = "texts.json"  # what the texts were when the folder was begun


@dataclass(frozen=True)
class Summary:
    """What a finished run holds."""

    folder: Path
    conversations: int
    hours: float
    dropped: dict[str, int]


@dataclass(frozen=True)
class ImportConfig:
    """A folder of conversations that were made elsewhere."""

    name: str
    path: str
    shard_rows: int = 16
    workers: int = 1


class Maker:
    """Makes conversations one by one; what was said for one is there for the next."""

    def __init__(self, config: DialogueConfig, *, speakers: Mapping[str, Speaker] | None = None):
        self.config, self.clips = config, Clips(speakers=speakers)
        self.phrases = Phrases.read(Prompts(config.prompts))

    def make(self, script: Script) -> Conversation:
        """One conversation.

        Raises:
            ConfigError: a voice whose program is missing.
            DataError: a synthesiser failed.
        """
        config, seed = self.config, seed_of(self.config.seed, "conversation", script.id)
        rng = np.random.default_rng(seed)
        user, person = self._person(script, rng)
        counted = True

        def say(role: str, text: str) -> Clip:
            nonlocal counted
            voice, voice_seed = (config.assistant, self._own_seed()) if role == ASSISTANT else (user, person)
            clip = self.clips.get(voice, text, voice_seed)
            counted &= role != ASSISTANT or self.clips.counted(voice, text, voice_seed)
            return clip

        timeline = lay_out(script, say, timing=config.timing, phrases=self.phrases, rng=rng)
        microphone = draw_microphone(config.channels, rng)
        audio_CN = mix(
            timeline.utterances,
            timeline.clips,
            seconds=timeline.seconds,
            microphone=microphone,
            config=config.channels,
            rng=rng,
        )
        row = Conversation(
            id=script.id,
            split=script.split,
            source=script.source,
            audio=encode_stereo(audio_CN),
            seconds=audio_CN.shape[1] / RATE,
            assistant=config.assistant.name,
            user=f"{user.name} {person % 10**6:06d}",
            word_times="counted" if counted else "spread",
            microphone=microphone.to_json(),
            seed=seed,
        )
        return with_timeline(row, timeline)

    def _own_seed(self) -> int:
        return seed_of(self.config.seed, "assistant")

    def _person(self, script: Script, rng: np.random.Generator) -> tuple[Voice, int]:
        """A voice, and the seed of the person who has it: the same one throughout a conversation."""
        people = self.config.people
        name = str(int(rng.integers(people))) if people else script.id
        person = seed_of(self.config.seed, "person", script.split, name)
        return choose_voice(self.config.voices, script.split, np.random.default_rng(person)), person

    def make_shard(self, scripts: list[Script], target: Path) -> None:
        """Writes a shard; what was dropped is noted in it."""
        rows, dropped = [], Counter[str]()
        for script in scripts:
            try:
                rows.append(self.make(script))
            except DataError:  # a synthesiser that is not there is a ConfigError and ends the run
                dropped["the synthesiser failed"] += 1
        notes = {"dropped": json.dumps(dropped), "rows": str(len(scripts))}
        write_conversations(target, rows, metadata=notes)


def make_dialogues(
    config: DialogueConfig,
    out: Path,
    *,
    stereo: bool = False,
    progress: bool | Progress = True,
    speakers: Mapping[str, Speaker] | None = None,
) -> Summary:
    """Runs a recipe, or what is left of it.

    Args:
        stereo: also write moshi-finetune's layout, into `out`/stereo.
        progress: True for a bar on the terminal, or a function that is told how far it is.
        speakers: ready-made speakers by the voice's name, for the work of this process.
    Raises:
        ConfigError: a voice whose program is missing, or that nobody may use in a split.
        DataError: `out` holds another recipe's data, a source is bad, the disk is full, or nothing is left of the data.
    """
    out = Path(out)
    claim(config, out)
    texts = Texts(config)
    scripts = texts.scripts()
    _check_texts(out, scripts)
    pieces = [scripts[start : start + config.shard_rows] for start in range(0, len(scripts), config.shard_rows)]
    todo = [(piece, out / SHARDS / shard_name(number)) for number, piece in enumerate(pieces)]
    todo = [(piece, path) for piece, path in todo if not path.is_file()]
    with reporting(progress) as report:
        done = len(pieces) - len(todo)
        report("dialogue", done, len(pieces))
        for _ in _made(todo, config, speakers):
            done += 1
            report("dialogue", done, len(pieces))
        return _finish(out, config, texts.dropped, stereo=stereo, report=report)


def import_stereo(path: Path, out: Path, *, progress: bool | Progress = True) -> Summary:
    """Reads a list of moshi-finetune's layout into shards of conversations.

    Raises:
        DataError: as `stereo.read_stereo`, or `out` holds other data.
    """
    config = ImportConfig(name=path.stem, path=str(path.resolve()))
    count = sum(1 for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    claim(config, out)
    starts = range(0, count, config.shard_rows)
    with reporting(progress) as report:
        for number, start in enumerate(starts):
            target = out / SHARDS / shard_name(number)
            if not target.is_file():
                rows = list(read_stereo(path, start=start, stop=start + config.shard_rows))
                write_conversations(target, rows, metadata={"rows": str(len(rows))})
            report("import", number + 1, len(starts))
        return _finish(out, config, Counter(), stereo=False, report=report)


def _check_texts(out: Path, scripts: list[Script]) -> None:
    """Refuses to go on with other texts than those that the folder was begun with."""
    plain = json.dumps([asdict(script) for script in scripts]).encode()
    mine = {"conversations": len(scripts), "sha256": hashlib.sha256(plain).hexdigest()}
    path = out / TEXTS
    if not path.is_file():
        write_text(path, json.dumps(mine))
        return
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete the folder and run again") from error
    if theirs != mine:
        raise DataError(f"{out} was begun with other texts than its sources hold now; choose another --out")


_maker: list[Maker] = []  # of this process, if it is one of the pool's


def _start_worker(config: dict[str, Any]) -> None:
    _maker[:] = [Maker(from_dict(DialogueConfig, config))]


def _work(scripts: list[Script], target: Path) -> None:
    _maker[0].make_shard(scripts, target)


def _made(
    todo: list[tuple[list[Script], Path]], config: DialogueConfig, speakers: Mapping[str, Speaker] | None
) -> Iterator[None]:
    if config.workers == 1 or len(todo) < 2:
        maker = Maker(config, speakers=speakers)
        for scripts, target in todo:
            maker.make_shard(scripts, target)
            yield
        return
    import multiprocessing
    from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed

    spawn = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of the libraries
    workers = min(config.workers, len(todo))
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker, initargs=(to_dict(config),))
    try:
        for future in as_completed([pool.submit(_work, scripts, target) for scripts, target in todo]):
            future.result()
            yield
    except BrokenExecutor as error:
        raise DataError(
            "a worker process died, perhaps for want of memory: run again with fewer workers, it goes on from here"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _finish(
    out: Path, config: DialogueConfig | ImportConfig, dropped: Counter[str], *, stereo: bool, report: Progress
) -> Summary:
    """The stereo layout, the data card and the sums."""
    dropped = dropped.copy()
    for path in sorted((out / SHARDS).glob("shard-*.parquet")):
        dropped.update(json.loads(read_metadata(path).get("dropped", "{}")))
    rows = list(read_conversations(out, columns=[name for name in Conversation.__annotations__ if name != "audio"]))
    if not rows:
        raise DataError(f"recipe {config.name}: nothing is left of its conversations ({dict(dropped)})")
    if stereo:
        lines = []
        for number, row in enumerate(read_conversations(out), start=1):
            lines.append(write_stereo(out / "stereo", row))
            report("stereo", number, len(rows))
        write_lists(out / "stereo", lines)
    write_dialogue_card(out, config, rows, dropped=dropped)
    return Summary(out, len(rows), sum(row.seconds for row in rows) / 3600, dict(dropped))
