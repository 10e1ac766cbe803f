"""Every line of the table that a model is held to, one task each.

A task is given a `Context` and gives an `Outcome`: the measured value of its rows, with intervals, and all raw numbers.
What each must and should reach stands in its `Row`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from duologue.errors import DataError
from duologue.eval import testsets
from duologue.eval.context import Context, answer_text, answered, heard
from duologue.eval.metrics import (
    Edits,
    Interval,
    bootstrap,
    character_edits,
    contains_answer,
    count_words,
    error_rate,
    exact_match,
    mean,
    rouge_l,
    word_edits,
)
from duologue.eval.testsets import Clip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    key: str
    title: str
    unit: str = ""  # "%" shows a ratio as a percentage
    must: float | None = None
    aim: float | None = None
    higher: bool = False  # more is better

    def reaches(self, value: float, goal: float | None) -> bool | None:
        """Whether a value is as good as a goal; None where there is no goal."""
        if goal is None:
            return None
        return value >= goal if self.higher else value <= goal


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a task found: `values` by the key of its rows, and everything behind them in plain JSON types."""

    values: dict[str, Interval]
    count: int
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One measurement that can be run, kept and skipped by itself."""

    name: str
    rows: tuple[Row, ...]
    run: Callable[[Context], Outcome]


def transcript_synthetic(context: Context) -> Outcome:
    return _transcripts("wer_synthetic", context, context.disturbed(300))


def transcript_real(context: Context) -> Outcome:
    clips = testsets.real(context.real_speech(), cache=context.cache)
    return _transcripts("wer_real", context, clips[: context.count(len(clips))])


def _transcripts(key: str, context: Context, clips: Sequence[Clip]) -> Outcome:
    pipe, rows, scored = context.pipe(), [], []
    for clip in context.each(clips):
        hypothesis = heard(pipe, clip.path)
        judged = context.judge.transcribe(clip.audio(), testsets.RATE)
        edits, reference = word_edits(clip.text, hypothesis), word_edits(clip.text, judged)
        scored.append((clip, edits, reference))
        rows.append(
            {
                "voice": clip.voice,
                "condition": clip.condition,
                "text": clip.text,
                "heard": hypothesis,
                "judge_heard": judged,
                "edits": asdict(edits),
                "judge_edits": asdict(reference),
            }
        )
    details = {
        "rows": rows,
        "judge_wer": error_rate([reference for _, _, reference in scored]),
        "by_voice": _grouped(scored, lambda clip: clip.voice),
        "by_condition": _grouped(scored, lambda clip: clip.condition),
    }
    interval = bootstrap([edits for _, edits, _ in scored], error_rate)
    return Outcome(values={key: interval}, count=len(clips), details=details)


def _grouped(scored: Sequence[tuple[Clip, Edits, Edits]], name: Callable[[Clip], str]) -> dict[str, dict[str, float]]:
    groups: dict[str, list[tuple[Edits, Edits]]] = {}
    for clip, edits, reference in scored:
        groups.setdefault(name(clip), []).append((edits, reference))
    return {
        group: {
            "wer": error_rate([edits for edits, _ in pairs]),
            "judge_wer": error_rate([reference for _, reference in pairs]),
            "clips": len(pairs),
        }
        for group, pairs in sorted(groups.items())
    }


def invented_words(context: Context) -> Outcome:
    clips = testsets.nonspeech(context.count(100), cache=context.cache, real=context.real_sounds())
    pipe = context.pipe()
    rows = [
        {"kind": clip.condition, "source": clip.voice, "heard": heard(pipe, clip.path)} for clip in context.each(clips)
    ]
    wrong = [float(count_words(row["heard"]) > 0) for row in rows]
    interval = bootstrap(wrong, lambda items: float(sum(items)))
    return Outcome(values={"invented": interval}, count=len(clips), details={"rows": rows})


def answer_from_speech(context: Context) -> Outcome:
    clips = context.clean(200)
    pipe = context.pipe(speak=False)
    rows = []
    for clip in context.each(clips):
        found, truth = answered(pipe, clip.path), answer_text(pipe, clip.text)
        rows.append(_pair(clip, truth, found.text, found.transcript))
    values = {
        "rouge": bootstrap([row["rouge"] for row in rows], mean),
        "exact": bootstrap([row["exact"] for row in rows], mean),
    }
    return Outcome(values=values, count=len(clips), details={"rows": rows})


def _pair(clip: Clip, truth: str, text: str, transcript: str) -> dict[str, Any]:
    return {
        "question": clip.text,
        "condition": clip.condition,
        "transcript": transcript,
        "from_text": truth,
        "from_speech": text,
        "rouge": rouge_l(truth, text),
        "exact": float(exact_match(truth, text)),
    }


def answer_in_noise(context: Context) -> Outcome:
    """The states path against the recognised-text path on the same noisy clips, each against the true text's answer."""
    clips = context.noisy(200, db=10.0)
    truths: list[str] = []
    paths: dict[str, list[dict[str, Any]]] = {}
    for listen in ("states", "text"):
        pipe = context.pipe(listen=listen, speak=False)
        truths = truths or [answer_text(pipe, clip.text) for clip in clips]
        found = [answered(pipe, clip.path) for clip in context.each(clips)]
        paths[listen] = [
            _pair(clip, truth, metrics.text, metrics.transcript)
            for clip, truth, metrics in zip(clips, truths, found, strict=True)
        ]
    gains = [states["rouge"] - text["rouge"] for states, text in zip(paths["states"], paths["text"], strict=True)]
    values = {"noise_gain": bootstrap(gains, mean)}
    for listen, rows in paths.items():
        values[f"noise_rouge_{listen}"] = bootstrap([row["rouge"] for row in rows], mean)
    return Outcome(values=values, count=len(clips), details=dict(paths))


def spoken_answer(context: Context) -> Outcome:
    """The judge reads back what was said; the quality score is set against the teacher's voice on the same text."""
    answers = [answer for answer in context.spoken(100) if answer.text]
    if not answers:
        raise DataError(
            "the model answered none of the questions, so there is no speech to judge; see transcript_synthetic"
        )
    rows = [judged(context, answer.text, *answer.audio) for answer in context.each(answers)]
    for row in rows:
        row["teacher"] = context.quality.score(*context.teacher(row["text"]))
    words, letters = ([Edits(**row[key]) for row in rows] for key in ("words", "letters"))
    values = {
        "answer_wer": bootstrap(words, error_rate),
        "answer_cer": bootstrap(letters, error_rate),
        "dnsmos": bootstrap([row["dnsmos"] for row in rows], mean),
        "dnsmos_teacher": bootstrap([row["teacher"] for row in rows], mean),
        "dnsmos_gap": bootstrap([row["teacher"] - row["dnsmos"] for row in rows], mean),
    }
    return Outcome(values=values, count=len(rows), details={"rows": rows})


def judged(context: Context, text: str, audio: np.ndarray, rate: int) -> dict[str, Any]:
    """Speech against the text that it should say: errors of words and letters, and the quality score."""
    said = context.judge.transcribe(audio, rate)
    return {
        "text": text,
        "said": said,
        "words": asdict(word_edits(text, said)),
        "letters": asdict(character_edits(text, said)),
        "dnsmos": context.quality.score(audio, rate) if len(audio) else 1.0,
    }


def closed_book(context: Context) -> Outcome:
    """Short factual questions asked in text: does the answer contain an accepted one?"""
    items = testsets.read_lines(context.data / "closed_book.jsonl", "question", "answers")
    items = items[: context.count(len(items))]
    pipe = context.pipe(speak=False)
    askers: dict[str, Callable[[str], str]] = {"closed_book": lambda question: answer_text(pipe, question)}
    if context.before is not None:
        askers["closed_book_before"] = context.before
    values, details = {}, {}
    for key, ask in askers.items():
        rows = []
        for item in context.each(items):
            answer = ask(item["question"])
            right = contains_answer(answer, item["answers"])
            rows.append({"question": item["question"], "answer": answer, "right": float(right)})
        values[key] = bootstrap([row["right"] for row in rows], mean)
        details[key] = rows
    return Outcome(values=values, count=len(items), details=details)


TASKS: tuple[Task, ...] = (
    Task(
        name="transcript_synthetic",
        run=transcript_synthetic,
        rows=(
            Row(
                key="wer_synthetic",
                title="transcript WER, held-out questions, unseen voices and conditions",
                unit="%",
                must=0.05,
                aim=0.02,
            ),
        ),
    ),
    Task(
        name="transcript_real",
        run=transcript_real,
        rows=(
            Row(
                key="wer_real",
                title="transcript WER, real recordings never trained on",
                unit="%",
                must=0.08,
                aim=0.04,
            ),
        ),
    ),
    Task(
        name="invented_words",
        run=invented_words,
        rows=(Row(key="invented", title="clips without speech in which words are heard", unit="clips", must=2, aim=0),),
    ),
    Task(
        name="answer_from_speech",
        run=answer_from_speech,
        rows=(
            Row(
                key="rouge",
                title="answer from speech against answer from the true text, ROUGE-L",
                must=0.85,
                aim=0.95,
                higher=True,
            ),
            Row(key="exact", title="the same, exactly equal", unit="%", higher=True),
        ),
    ),
    Task(
        name="answer_in_noise",
        run=answer_in_noise,
        rows=(
            Row(
                key="noise_gain",
                title="the same at 10 dB noise, states path minus recognised-text path",
                must=0.0,
                aim=0.05,
                higher=True,
            ),
            Row(key="noise_rouge_states", title="at 10 dB noise, ROUGE-L of the states path", higher=True),
            Row(key="noise_rouge_text", title="at 10 dB noise, ROUGE-L of the recognised-text path", higher=True),
        ),
    ),
    Task(
        name="spoken_answer",
        run=spoken_answer,
        rows=(
            Row(
                key="answer_wer",
                title="ASR-WER of the spoken answer against its text",
                unit="%",
                must=0.08,
                aim=0.03,
            ),
            Row(
                key="answer_cer",
                title="ASR-CER of the spoken answer against its text",
                unit="%",
                must=0.08,
                aim=0.03,
            ),
            Row(
                key="dnsmos_gap",
                title="DNSMOS OVRL, teacher voice minus spoken answer",
                must=0.35,
                aim=0.1,
            ),
            Row(key="dnsmos", title="DNSMOS OVRL of the spoken answer", higher=True),
            Row(key="dnsmos_teacher", title="DNSMOS OVRL of the teacher voice", higher=True),
        ),
    ),
    Task(
        name="closed_book",
        run=closed_book,
        rows=(
            Row(key="closed_book", title="closed-book questions answered rightly", unit="%", higher=True),
            Row(key="closed_book_before", title="the same before tuning", unit="%", higher=True),
        ),
    ),
)
