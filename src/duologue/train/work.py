"""Stages that are no training: data to be made, and the finished parts put together as a model.

Each is a `stages.Work`: begun by `stages.run` like the others, and what is done is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from duologue import config as configs
from duologue.checkpoints import save_model
from duologue.data.manifest import QUESTION_RATE, Turn, encode_flac, read_rows, shard_name, write_shard
from duologue.data.recordings import Split
from duologue.errors import DataError, TrainError
from duologue.models.llama_omni.adapter import ReadoutConfig
from duologue.models.llama_omni.ctc_listener import CtcListenerConfig
from duologue.models.llama_omni.listener import ListenerConfig
from duologue.models.llama_omni.loading import OmniConfig
from duologue.models.llama_omni.speech_decoder import SpeechDecoderConfig
from duologue.models.llama_omni.turn_head import TurnHeadConfig
from duologue.nn.quant import pack_int8
from duologue.train.answer_task import SYSTEM
from duologue.train.features import to_card
from duologue.train.loop import Result
from duologue.train.parts import CTC_LISTENER, TOKENIZER, find, load_language_model, load_tensors
from duologue.train.progress import Bar
from duologue.train.state import write_whole
from duologue.vocoders.spectral import SpectralVocoderConfig

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class DataStage:
    """Synthesises a data folder from a recipe for data."""

    name: str
    recipe: str  # FILE.py:FUNCTION, as for `duologue data synth`
    out: str
    text_model: str = "smollm2-135m-instruct"  # who writes text, where the recipe wants it
    settings: tuple[str, ...] = ()  # changes to the recipe, a.b=c

    def run(self) -> None:
        from duologue.data.synthesis import synthesise
        from duologue.models.text_model import LocalTextModel
        from duologue.train.stages import find as find_recipe

        recipe = configs.override(find_recipe(self.recipe)(), list(self.settings))
        writer = None
        if recipe.text_model:
            llm, codec = load_language_model(self.text_model, "bf16")
            writer = LocalTextModel(to_card(llm), codec)
        synthesise(recipe, Path(self.out), text_model=writer)


@dataclass(frozen=True, kw_only=True)
class RecordingsStage:
    """Real people and real sounds as rows of a data folder, for the listener, as they are; see `data.recordings`."""

    name: str
    out: str
    only: tuple[str, ...] = ()  # sources; empty: all that are to be had
    longest: float = 16.0  # seconds; longer clips are left out
    sounds: int = 600  # clips without words, the same number of each source
    dev_sounds: int = 40  # one sound of so many is held out; of speech, the split dev of `data.recordings`

    def run(self) -> None:
        out = Path(self.out)
        done = out / "done.json"
        if done.exists() and json.loads(done.read_text(encoding="utf-8")) == configs.to_dict(self):
            return
        rows: list[Turn] = []
        number = 0
        for row in self._rows():
            rows.append(row)
            if len(rows) == 256:
                write_shard(out / "shards" / shard_name(number), rows)
                rows, number = [], number + 1
        if rows:
            write_shard(out / "shards" / shard_name(number), rows)
        configs.save(self, done)

    def _rows(self) -> Iterator[Turn]:
        rng = np.random.default_rng(0)
        held_out = list(self._people("dev"))
        for place in rng.permutation(len(held_out)):  # who takes the first few of them hears all of the speakers
            name, audio, text, speaker = held_out[place]
            yield _row(name, audio, text, speaker, split="dev")
        sounds = [(name, audio, "", "") for name, audio in self._sounds(rng)] if self.sounds else []
        for name, audio, _, _ in sounds[:: self.dev_sounds]:
            yield _row(name, audio, "", "", split="dev")
        del sounds[:: self.dev_sounds]
        clips = [*self._people("train"), *sounds]
        bar = Bar(self.name, step=0, steps=len(clips), every=500)
        for number, (name, audio, text, speaker) in enumerate(clips, start=1):
            yield _row(name, audio, text, speaker, split="train")
            bar.step({"step": number})
        bar.close()

    def _people(self, split: Split) -> Iterator[tuple[str, Array, str, str]]:
        """(name, audio, text, speaker) of each clip."""
        from duologue.data.recordings import iterate_recordings

        for clip in iterate_recordings(split, only=self.only or None):
            audio = _at(QUESTION_RATE, clip.audio, clip.sample_rate)
            if clip.text.strip() and 0.5 <= len(audio) / QUESTION_RATE <= self.longest:
                yield f"{clip.source}/{clip.name}", audio, clip.text.strip(), clip.speaker

    def _sounds(self, rng: np.random.Generator) -> Iterator[tuple[str, Array]]:
        """(name, audio) of clips of 0.5 to 6 s: a piece of one sound, or several of one source after one another."""
        from duologue.data.recordings import iterate_sounds

        sources: dict[str, list[tuple[str, Array]]] = {}
        for sound in iterate_sounds("train"):
            audio = _at(QUESTION_RATE, sound.audio, sound.sample_rate)
            sources.setdefault(sound.source, []).append((f"{sound.source}/{sound.name}", audio))
        for number in range(self.sounds if sources else 0):
            found = sources[sorted(sources)[number % len(sources)]]
            size, several = int(rng.uniform(0.5, 6) * QUESTION_RATE), rng.random() < 0.3
            name, audio = found[number // len(sources) % len(found)]
            begin = int(rng.integers(0, max(1, len(audio) - size)))
            audio = audio[begin : begin + size]
            while len(audio) < size and (several or len(audio) < QUESTION_RATE // 2):
                pause = np.zeros(int(rng.uniform(0.02, 0.4) * QUESTION_RATE), np.float32)
                audio = np.concatenate([audio, pause, found[int(rng.integers(len(found)))][1]])[:size]
            yield f"{name}~{number}", audio


def _at(rate: int, audio: Array, found: int) -> Array:
    if found == rate:
        return audio
    import soxr

    return soxr.resample(audio, found, rate)


def _row(name: str, audio: Array, text: str, speaker: str, split: str) -> Turn:
    return Turn(
        id=name,
        split=split,
        source=name.partition("/")[0],
        question=text,
        question_spoken=text,
        question_audio=encode_flac(audio, QUESTION_RATE),
        question_seconds=len(audio) / QUESTION_RATE,
        question_speaker=speaker,
    )


@dataclass(frozen=True, kw_only=True)
class TextsStage:
    """The answers of data folders as a text file, a line each, for the vocoder."""

    name: str
    data: tuple[str, ...]
    out: str  # the file
    most: int = 4000

    def run(self) -> None:
        lines: dict[str, None] = {}
        for folder in self.data:
            for row in read_rows(Path(folder), split="train", columns=("answer",)):
                lines.setdefault(" ".join(row.answer.split()), None)
        kept = [line for line in lines if line]
        if not kept:
            raise DataError(f"{', '.join(self.data)}: no answers to make texts of")
        every = max(1, len(kept) // self.most)  # from all over the data
        text = "\n".join(kept[::every][: self.most]) + "\n"
        write_whole(Path(self.out), lambda part: part.write_text(text, encoding="utf-8"))


@dataclass(frozen=True, kw_only=True)
class ModelStage:
    """A model folder from what the stages exported."""

    name: str
    listen: str  # the folders of the runs; this one of the stage `listen`, or of the stage `ctc`
    answers: str
    speech: str
    vocoder: str
    out: str  # the model folder
    turns: str = ""  # of the head that tells whether a question sounds complete; empty: none
    llm: str = "smollm2-135m-instruct"
    system: str = SYSTEM
    data: str = ""  # a data folder: a question of its split test becomes hello.wav
    int8: bool = True  # large matrices of listener and speech decoder
    changes: tuple[str, ...] = field(default=())  # settings of the model's config, such as omega=20

    def run(self) -> None:
        roles = ("listen", "answers", "speech", "vocoder", *(("turns",) if self.turns else ()))
        folders = {role: Path(getattr(self, role)) / "export" for role in roles}
        for role, folder in folders.items():
            if not folder.is_dir():
                raise TrainError(f"{folder}: nothing is there. Run the stage {role!r} to its end first.")
        hears, head = _listener_of(folders["listen"]), folders.get("turns")
        model = OmniConfig(
            **hears.config,
            adapter=configs.load(ReadoutConfig, folders["answers"] / "adapter.json"),
            speech_decoder=configs.load(SpeechDecoderConfig, folders["speech"] / "speech_decoder.json"),
            vocoder=configs.load(SpectralVocoderConfig, folders["vocoder"] / "vocoder.json"),
            system=self.system,
            turn_head=configs.load(TurnHeadConfig, head / "turn_head.json") if head else None,
        )
        files: dict[str, bytes | Path] = {name: folders["listen"] / name for name in hears.files}
        hello = self._hello()
        if hello:
            files["hello.wav"] = hello
        llm = Path(self.llm).expanduser()
        save_model(
            self.out,
            family="llama_omni",
            model=configs.override(model, list(self.changes)),
            tensors={
                "listener.safetensors": self._packed(folders["listen"] / hears.weights),
                "adapter.safetensors": _half(load_tensors(folders["answers"] / "adapter.safetensors")),
                "llm_lora.safetensors": _half(load_tensors(folders["answers"] / "llm_lora.safetensors")),
                "speech_decoder.safetensors": self._packed(folders["speech"] / "speech_decoder.safetensors"),
                "vocoder.safetensors": _half(load_tensors(folders["vocoder"] / "vocoder.safetensors")),
                **({"turn_head.safetensors": _half(load_tensors(head / "turn_head.safetensors"))} if head else {}),
            },
            files=files,
            artefacts={"llm": str(find(self.llm).resolve()) if llm.exists() else self.llm},
            card=self._card(),
        )

    def _packed(self, path: Path) -> dict[str, Tensor]:
        tensors = load_tensors(path)
        return pack_int8(tensors, rest=torch.float16) if self.int8 else _half(tensors)

    def _hello(self) -> bytes:
        """A spoken question, as a WAV file."""
        import io

        import soundfile

        rows = read_rows(Path(self.data), split="test", columns=("question_audio",)) if self.data else iter(())
        for row in rows:
            if row.question_audio:
                audio, rate = soundfile.read(io.BytesIO(row.question_audio), dtype="int16")
                out = io.BytesIO()
                soundfile.write(out, audio, rate, format="WAV", subtype="PCM_16")
                return out.getvalue()
        return b""

    def _card(self) -> str:
        """What each part was trained from, for how long, and how good it is by its own measure."""
        lines = [f"# {Path(self.out).name}", "", f"Language model: {self.llm}, with low-rank changes.", ""]
        lines += ["| part | steps | time | held-out measures | trained on |", "| --- | --- | --- | --- | --- |"]
        for role in ("listen", "turns", "answers", "speech", "vocoder"):
            path = Path(getattr(self, role)) / "result.json"
            if getattr(self, role) and path.is_file():
                result = configs.load(Result, path)
                found = ", ".join(f"{key} {value:.4g}" for key, value in result.evaluation.items())
                lines.append(
                    f"| {role} | {result.exported_step} | {result.seconds / 60:.0f} min | {found} | {result.machine} |"
                )
        return "\n".join([*lines, "", "What it was trained on, under which licences:", self._data()])

    def _data(self) -> str:
        card = Path(self.data) / "README.md" if self.data else None
        return "\n" + card.read_text(encoding="utf-8") if card and card.is_file() else ""


@dataclass(frozen=True)
class _Hears:
    """A listener of either kind, as a stage exported it."""

    config: dict[str, Any]  # its part of `OmniConfig`
    weights: str  # file names
    files: tuple[str, ...]


def _listener_of(folder: Path) -> _Hears:
    ctc = folder / f"{CTC_LISTENER}.json"
    if ctc.is_file():
        config = {"listener_kind": "ctc", "ctc": configs.load(CtcListenerConfig, ctc)}
        return _Hears(config, f"{CTC_LISTENER}.safetensors", ())
    listener = configs.load(ListenerConfig, folder / "listener.json")
    return _Hears({"listener": listener}, "listener.safetensors", (TOKENIZER,))


def _half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
