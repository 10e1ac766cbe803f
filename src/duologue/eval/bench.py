"""How fast and how small: latency, real-time factor, memory, start, the chunk size sweep, and the cascade beside it.

Everything is timed in one process with a fixed number of threads, after a warm-up, one question after the other. The
sweep is table 2 of LLaMA-Omni (arXiv:2409.06666) for this model.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from duologue.errors import DataError, PartError
from duologue.eval.cascade import Cascade
from duologue.eval.context import OMEGA_OFFLINE, WARM_UP, Context, Spoken, stream_text
from duologue.eval.metrics import Edits, Interval, bootstrap, error_rate, mean, percentile
from duologue.eval.probe import probe
from duologue.eval.tasks import Outcome, Row, Task, judged
from duologue.pipeline import Pipeline

OMEGAS = (10, 20, 40, 80, OMEGA_OFFLINE)
PROBES = 3  # starts of the program
SEAM = 0.005  # seconds around a seam in which the waveform is looked at


def median(values: list[float]) -> float:
    return percentile(values, 50)


def latency(context: Context) -> Outcome:
    answers = _that_spoke(context.spoken(100))
    times = [float(answer.metrics["first_audio_ms"]) for answer in answers]
    texts = [float(answer.metrics["first_text_ms"]) for answer in answers]
    values = {
        "first_audio": bootstrap(times, median),
        "first_audio_p90": bootstrap(times, lambda items: percentile(items, 90)),
        "first_text": bootstrap(texts, median),
        "lagging_words": bootstrap([float(answer.metrics["lagging_words"]) for answer in answers], mean),
        "real_time_factor": bootstrap([answer.metrics for answer in answers], real_time_factor),
    }
    return Outcome(values=values, count=len(answers), details={"rows": [answer.metrics for answer in answers]})


def real_time_factor(rows: list[dict[str, Any]]) -> float:
    """Time spent answering over seconds of speech, of all answers together."""
    spoken = sum(row["audio_seconds"] for row in rows)
    return sum(row["real_time_factor"] * row["audio_seconds"] for row in rows) / spoken


def _that_spoke(answers: list[Spoken]) -> list[Spoken]:
    spoke = [answer for answer in answers if answer.metrics["first_audio_ms"] is not None]
    if not spoke:
        raise DataError(
            "none of the answers had any sound, so there is nothing to time; look at answers/ in the report"
        )
    return spoke


def footprint(context: Context) -> Outcome:
    """Another process is started some times, as its memory and its start are what is measured."""
    paths = [clip.path for clip in context.clean(8)]
    context.drop_pipes()
    runs = [
        probe(context.name, paths, threads=context.threads) for _ in context.each(range(1 if context.quick else PROBES))
    ]
    values = {
        "memory": _worst([run["talking_peak"] for run in runs]),
        "memory_talking": _worst([run["talking_answering"] for run in runs]),
        "start": _worst([run["start_seconds"] for run in runs]),
    }
    return Outcome(values=values, count=len(runs), details={"rows": runs})


def _worst(values: list[float]) -> Interval:
    return Interval(max(values), min(values), max(values))


def cascade(context: Context) -> Outcome:
    """The cascade and the model on the same questions in turn, so that both meet the same state of the machine."""
    clips, pipe = context.clean(100), context.pipe()
    baseline = Cascade(context.fast, lambda question: stream_text(pipe, question), context.teacher)
    for clip in clips[:WARM_UP]:
        baseline.first_sound(clip.audio(), 16_000)
        pipe(clip.path)
    rows = []
    for clip in context.each(clips):
        found = baseline.first_sound(clip.audio(), 16_000)
        own = pipe(clip.path).metrics.first_audio_ms
        if own is not None and found.sentence:
            rows.append({"question": clip.text, **asdict(found), "own_first_audio_ms": own})
    if not rows:
        raise DataError("neither the cascade nor the model answered any question; look at transcript_synthetic first")

    def ratio(items: list[dict[str, Any]]) -> float:
        return median([row["own_first_audio_ms"] for row in items]) / median([row["first_audio_ms"] for row in items])

    parts = ("first_audio_ms", "recognise_ms", "think_ms", "speak_ms")
    values = {f"cascade_{part}": bootstrap([row[part] for row in rows], median) for part in parts}
    values["cascade_ratio"] = bootstrap(rows, ratio)
    values["cascade_own"] = bootstrap([row["own_first_audio_ms"] for row in rows], median)
    return Outcome(values=values, count=len(rows), details={"rows": rows})


def sweep(context: Context) -> Outcome:
    """Chunk sizes of the speech decoder, each with its latency, intelligibility, quality and lag of the speech."""
    table: list[dict[str, Any]] = []
    for omega in OMEGAS:
        tag = "offline" if omega == OMEGA_OFFLINE else str(omega)
        answers = _that_spoke(context.spoken(30, tag=f"omega-{tag}", omega=omega))
        scored = [judged(context, answer.text, *answer.audio) for answer in context.each(answers)]
        metrics = [answer.metrics for answer in answers]
        table.append(
            {
                "omega": tag,
                "first_audio_ms": median([row["first_audio_ms"] for row in metrics]),
                "first_audio_p90_ms": percentile([row["first_audio_ms"] for row in metrics], 90),
                "answer_wer": error_rate([Edits(**row["words"]) for row in scored]),
                "answer_cer": error_rate([Edits(**row["letters"]) for row in scored]),
                "dnsmos": mean([row["dnsmos"] for row in scored]),
                "lagging_words": mean([row["lagging_words"] for row in metrics]),
                "real_time_factor": real_time_factor(metrics),
                "answers": len(answers),
            }
        )
    return Outcome(values={}, count=sum(row["answers"] for row in table), details={"table": table})


def seams(context: Context) -> Outcome:
    """Chunks vocoded each on its own, as LLaMA-Omni does, against chunks that carry their context."""
    pipe, omega = context.pipe(), 10
    vocoder, encode = _vocoder(pipe), _units(context)
    rows = []
    for text in context.each(context.questions(40)):
        units = encode(text)
        if len(units) < 2 * omega:
            continue
        whole, _ = vocode(vocoder, units, len(units))
        carried, _ = vocode(vocoder, units, omega)
        alone, borders = vocode(vocoder, units, omega, independent=True)
        row: dict[str, Any] = {"text": text, "difference": float(np.abs(whole - carried).max())}
        for name, audio in (("carried", carried), ("independent", alone)):
            row[name] = judged(context, text, audio, vocoder.sample_rate)
            places = [round(border * len(audio) / max(len(alone), 1)) for border in borders[:-1]]
            row[name]["jump"] = jump(audio, places, vocoder.sample_rate)
        rows.append(row)
    if not rows:
        raise DataError("no text was long enough to be vocoded in chunks")
    values = {"seam_difference": _worst([row["difference"] for row in rows])}
    for name in ("carried", "independent"):
        values[f"seam_wer_{name}"] = bootstrap([Edits(**row[name]["words"]) for row in rows], error_rate)
        values[f"seam_dnsmos_{name}"] = bootstrap([row[name]["dnsmos"] for row in rows], mean)
        values[f"seam_jump_{name}"] = bootstrap([row[name]["jump"] for row in rows], mean)
    return Outcome(values=values, count=len(rows), details={"rows": rows, "omega": omega})


def _vocoder(pipe: Pipeline) -> Any:
    parts = getattr(pipe.model, "parts", None)
    found = dict(parts()).get("vocoder") if callable(parts) else None
    if found is None:
        raise PartError(f"{type(pipe.model).__name__}: it has no part 'vocoder' whose seams could be measured")
    return found


def _units(context: Context) -> Any:
    from duologue.data.teacher import HibariTeacher

    return context.open_units() if context.open_units else HibariTeacher().units


@torch.inference_mode()
def vocode(vocoder: Any, units: list[int], chunk: int, *, independent: bool = False) -> tuple[np.ndarray, list[int]]:
    """Vocodes units in chunks, and tells where each chunk's samples end.

    Args:
        independent: every chunk is a stream of its own.
    """
    live_B, pieces, borders = torch.tensor([True]), [], []
    state = vocoder.init_state(1)
    for start in range(0, len(units), chunk):
        some_BT = torch.tensor([units[start : start + chunk]])
        last = independent or start + chunk >= len(units)
        if independent:
            state = vocoder.init_state(1)
        counts_B = torch.tensor([some_BT.shape[1]])
        audio_BN, samples_B = vocoder.forward(some_BT, counts_B, state, live_B, torch.tensor([last]))
        pieces.append(audio_BN[0, : int(samples_B[0])].float().numpy())
        borders.append(sum(len(piece) for piece in pieces))
    return np.concatenate(pieces), borders


def jump(audio: np.ndarray, places: list[int], rate: int) -> float:
    """How much louder the change of sound is at the places than everywhere: mean step of the log energy, as a ratio.

    1 means that nothing is to be noticed there.
    """
    size = max(1, int(SEAM * rate))
    energy = np.log(np.square(audio[: len(audio) // size * size].reshape(-1, size)).mean(1) + 1e-8)
    steps = np.abs(np.diff(energy))
    near = [steps[max(0, place // size - 1) : place // size + 1] for place in places if place // size <= len(steps)]
    found = np.concatenate(near) if near else np.zeros(0)
    return float(found.mean() / (steps.mean() + 1e-9)) if len(found) else 1.0


BENCH: tuple[Task, ...] = (
    Task(
        name="latency",
        run=latency,
        rows=(
            Row(key="first_audio", title="first sound after the question's end, p50", unit="ms", must=350, aim=226),
            Row(key="first_audio_p90", title="the same, p90", unit="ms"),
            Row(key="first_text", title="first text after the question's end, p50", unit="ms"),
            Row(key="lagging_words", title="words of text when the first sound comes", unit="words"),
            Row(key="real_time_factor", title="real-time factor of answering", must=0.5, aim=0.25),
        ),
    ),
    Task(
        name="cascade",
        run=cascade,
        rows=(
            Row(key="cascade_ratio", title="first sound, p50, as a ratio to the cascade's", must=1 / 3, aim=1 / 5),
            Row(key="cascade_own", title="first sound beside the cascade, p50", unit="ms"),
            Row(key="cascade_first_audio_ms", title="first sound of the cascade, p50", unit="ms"),
            Row(key="cascade_recognise_ms", title="of it: recognition", unit="ms"),
            Row(key="cascade_think_ms", title="of it: the first sentence's text", unit="ms"),
            Row(key="cascade_speak_ms", title="of it: the first sentence's sound", unit="ms"),
        ),
    ),
    Task(
        name="footprint",
        run=footprint,
        rows=(
            Row(
                key="memory",
                title="resident memory, greatest from start to the last answer",
                unit="GiB",
                must=1.5,
                aim=0.8,
            ),
            Row(key="memory_talking", title="resident memory while answering, greatest", unit="GiB"),
            Row(key="start", title="start to ready, parts cached", unit="s", must=10, aim=4),
        ),
    ),
    Task(name="sweep", run=sweep, rows=()),
    Task(
        name="seams",
        run=seams,
        rows=(
            Row(key="seam_difference", title="chunked waveform against the whole one, greatest difference", must=1e-4),
            Row(key="seam_wer_carried", title="ASR-WER, chunks of 10 units with context", unit="%"),
            Row(key="seam_wer_independent", title="ASR-WER, chunks of 10 units each on its own", unit="%"),
            Row(key="seam_dnsmos_carried", title="DNSMOS OVRL, chunks with context", higher=True),
            Row(key="seam_dnsmos_independent", title="DNSMOS OVRL, chunks on their own", higher=True),
            Row(key="seam_jump_carried", title="change of loudness at a seam, chunks with context (1: as elsewhere)"),
            Row(key="seam_jump_independent", title="change of loudness at a seam, chunks on their own"),
        ),
    ),
)
