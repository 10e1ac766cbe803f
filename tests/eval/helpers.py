"""A small evaluation: the echo family, buzzing speakers, and judges that know what they should hear."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import torch
from fakes import ANSWER, EchoConfig, EchoModel, Tone

from duologue.eval.context import Context
from duologue.pipeline import Pipeline

QUESTIONS = [f"What is the number after {number}, please?" for number in range(12)]


class AskableEcho(EchoModel):
    """The echo that can be asked in text too, and has a vocoder of units."""

    def answer_text(self, question):
        return self.config.answer

    def stream_text(self, question):
        yield from (f"{word} " for word in ("It", "is", "a", "good", "question.", "And", "more."))

    def parts(self):
        return {"vocoder": UnitTone()}


class UnitTone:
    """Ten samples a unit, whose phase goes on only where the context is carried."""

    sample_rate, num_units = 24_000, 8

    def init_state(self, slots):
        return {"begun": 0}

    def forward(self, units_BT, counts_B, state, live_B, final_B, prosody_BTP=None):
        count = int(counts_B[0])
        at = torch.arange(state["begun"] * 10, (state["begun"] + count) * 10)
        state["begun"] += count
        return torch.sin(at / 7)[None], torch.tensor([count * 10])


class Buzz:
    """Speaks a buzz."""

    sample_rate = 16_000

    def __init__(self, name):
        self.name = name

    def speak(self, text, seed):
        return (0.3 * np.sign(np.sin(np.arange(8_000) / 20))).astype(np.float32)


class KnowsAnswer:
    """A recogniser that hears the echo's answer in everything."""

    def transcribe(self, audio, rate):
        return ANSWER


class LouderIsBetter:
    """A quality score."""

    def score(self, audio, rate):
        return 1.0 + 4.0 * float(np.abs(audio).mean())


def recorded(kind, text):
    """A stand-in for both a Recording and a Sound."""
    audio = (0.2 * np.sin(np.arange(12_000) / 3)).astype(np.float32)
    return SimpleNamespace(audio=audio, sample_rate=22_050, text=text, source="somebody", name=text, kind=kind)


def make_context(folder, **changes):
    """An evaluation in a temporary folder."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    lines = [json.dumps({"question": question}) for question in QUESTIONS]
    (data / "heldout_questions.jsonl").write_text("\n".join(lines))
    book = [{"question": "How?", "answers": ["a tone"]}, {"question": "Who?", "answers": ["nobody at all"]}]
    (data / "closed_book.jsonl").write_text("\n".join(json.dumps(row) for row in book))
    told = {"told": "I am a bird.", "question": "What am I?", "answers": ["a tone"], "split": "test"}
    (data / "told_facts.jsonl").write_text(json.dumps(told))
    loaded = []

    def load(settings):
        loaded.append(dict(settings))
        config = EchoConfig(omega=min(settings.get("omega", 4), 40))
        return Pipeline(AskableEcho(config, vocoder=Tone()))

    options = {
        "name": "echo",
        "model": "abc",
        "out": folder / "report",
        "cache": folder / "cache",
        "data": data,
        "load": load,
        "open_judge": KnowsAnswer,
        "open_quality": LouderIsBetter,
        "open_teacher": lambda: lambda text: (np.full(2_400, 0.5, np.float32), 24_000),
        "open_fast": KnowsAnswer,
        "open_units": lambda: lambda text: [1, 2, 3, 4] * 10,
        "speakers": lambda: [Buzz("one"), Buzz("two")],
        "real_speech": lambda: [recorded("reading", f"Words number {number}.") for number in range(3)],
        "real_sounds": lambda: [recorded("keyboard", "")] * 9,
        "quick": True,
    }
    context = Context(**{**options, **changes})
    return context, loaded
