"""How a model behaves on a line that never closes: `duologue eval duplex --model FOLDER`.

Full-Duplex-Bench's four situations (pauses, backchannels, turns, interruptions), the speech statistics of Moshi's table
9 and the inner monologue's perplexity, on cases made here and on the benchmark's own folders where they are. Driven
through the engine as it is served; time is simulated (`duplex_driver`), or real with `duologue eval duplex-live`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from duologue.data.dialogue.config import DialogueConfig, DialogueSource
from duologue.data.dialogue.floor import KINDS, Floor, floor, totals
from duologue.data.dialogue.texts import Texts
from duologue.errors import DataError
from duologue.eval import duplex_page
from duologue.eval.context import Context
from duologue.eval.duplex_cases import DIALOGUE, INTERRUPTION, PAUSE, TELLING, TURN, Case, make_cases
from duologue.eval.duplex_dialogues import make_dialogues
from duologue.eval.duplex_driver import Line, Take
from duologue.eval.duplex_monologue import Scored, has_monologue, perplexity, scored
from duologue.eval.duplex_observed import EDGE, Found, Values, observe, summarise
from duologue.eval.duplex_official import FOLDERS, read_official
from duologue.eval.metrics import Edits, Interval, bootstrap, error_rate, exact_match, mean, word_edits
from duologue.eval.tasks import Outcome, Row, Task, judged
from duologue.streaming.protocol import StreamingModel

COUNT, QUICK = 60, 4  # cases of each kind
ANSWERS = 120  # questions with known answers
SHORT = 7  # words of those, as in recipes/data_duplex.py:closed
OFFICIAL = "full-duplex-bench"  # folder beside the test sets, with v1_0 and v1_5
SEED = 1  # of a model that draws, where its config leaves it open


def opened(context: Context, *, real_time: bool = False) -> Line:
    """The model on a line. One that draws does so from the same seed in every run."""
    model = context.pipe().model
    if getattr(model, "seed", 0) is None:
        model.seed = SEED  # type: ignore[attr-defined]
    return Line(model, real_time=real_time)


def behaviour(context: Context, kind: str, *, real_time: bool = False) -> Outcome:
    """One of the four situations, on cases made here."""
    cases = make_cases(
        kind,
        QUICK if context.quick else COUNT,
        speakers=context.speakers(),
        questions=context.questions(500),
        cache=context.cache,
        progress=context.tell,
    )
    rows = _driven(context, cases, kind, real_time=real_time)
    return Outcome(values=summarise(kind, rows), count=len(rows), details={"rows": rows, "real_time": real_time})


def answers(context: Context, *, real_time: bool = False) -> Outcome:
    """Questions of the project whose known answers are short, by voices that no training heard: is the right one
    given, and is what is said what was thought? The closed set of recipes/duplex_mini.py; other models may have heard
    of none of them."""
    known = short_answers(context.data)
    cases = make_cases(
        TURN,
        context.count(ANSWERS),
        speakers=context.speakers(),
        questions=list(known),
        cache=context.cache,
        progress=context.tell,
    )

    def judge(case: Case, take: Take) -> Found:
        text = "".join(text for _, text in take.texts).strip()
        right, sound = known[case.said[0][0]], np.zeros(0, np.float32)
        if take.spans:
            sound = take.piece(take.spans[0][0] - EDGE, take.spans[-1][1] + EDGE)
        found = judged(context, text, sound, take.rate)
        wrote = " ".join(words for _, words in take.heard).strip()
        found |= {"wrote": wrote, "written": asdict(word_edits(case.said[0][0], wrote))}
        return {**found, "known": right, "right": exact_match(right, text), "told": exact_match(right, found["said"])}

    rows = _driven(context, cases, "answers", real_time=real_time, more=judge)
    spoke = [row for row in rows if row["text"]]
    values = {f"answers_{key}": bootstrap([float(row[key]) for row in rows], mean) for key in ("over", "right", "told")}
    if spoke:
        values["answers_wer"] = bootstrap([Edits(**row["words"]) for row in spoke], error_rate)
        values["answers_dnsmos"] = bootstrap([row["dnsmos"] for row in spoke], mean)
    if any(row["wrote"] for row in rows):
        values["answers_heard"] = bootstrap([Edits(**row["written"]) for row in rows], error_rate)
    latencies = [1000 * row["latency"] for row in rows if row["latency"] is not None]
    if latencies:
        values["answers_latency"] = bootstrap(latencies, mean)
    return Outcome(values=values, count=len(rows), details={"rows": rows, "real_time": real_time})


def short_answers(data: Path) -> dict[str, str]:
    """Questions as they are said -> their answers of `SHORT` words or fewer.

    Raises:
        DataError: the file is not there, or holds none.
    """
    path = data / "spoken_qa.jsonl"
    source = DialogueSource(path=str(path), name=path.stem, kind="pairs", licence="", longest_answer=SHORT)
    found = {pair.question: pair.answer for pair in Texts(DialogueConfig(name="answers", sources=(source,))).pairs()}
    if not found:
        raise DataError(f"{path}: no answer of {SHORT} words or fewer in it")
    return found


def _driven(
    context: Context,
    cases: Sequence[Case],
    name: str,
    *,
    real_time: bool,
    more: Callable[[Case, Take], Found] | None = None,
) -> list[Found]:
    """Plays every case, and says what was seen; `more`: what is seen beside."""
    line, rows = opened(context, real_time=real_time), []
    page = duplex_page.Gathered(context.out, name if not real_time else f"{name}, in real time")
    try:
        for case in context.each(cases):
            take = line.run(case)
            rows.append(observe(case, take, context.judge.transcribe) | (more(case, take) if more else {}))
            page.add(case, take, rows[-1])
    finally:
        line.close()
    page.write()
    return rows


def dialogue(context: Context, *, real_time: bool = False) -> Outcome:
    """Who speaks when in whole conversations: the user's side of made ones, the model's own."""
    cases = _dialogues(context)
    rows = _driven(context, cases, DIALOGUE, real_time=real_time)
    floors = [floor(case.user, row["own"], seconds=row["seconds"]) for case, row in zip(cases, rows, strict=True)]
    made = totals([floor(case.user, [(s, e) for _, s, e in case.words], seconds=case.seconds) for case in cases])
    values = {}
    for kind in KINDS:
        for place, what in enumerate(("count", "seconds")):
            values[f"{kind}_{what}"] = bootstrap(floors, functools.partial(_total, kind=kind, place=place))
            values[f"{kind}_{what}_made"] = Interval(*[made[kind][place]] * 3)
    return Outcome(values=values, count=len(rows), details={"rows": rows, "made": made, "real_time": real_time})


def _total(floors: list[Floor], *, kind: str, place: int) -> float:
    return totals(floors)[kind][place]


def _dialogues(context: Context) -> list[Case]:
    return make_dialogues(
        QUICK if context.quick else COUNT,
        speakers=context.speakers(),
        data=context.data,
        cache=context.cache,
        progress=context.tell,
    )


def monologue(context: Context) -> Outcome:
    """What the inner monologue makes of the assistant's words, given all that was heard and said before."""
    model: StreamingModel = context.pipe().model
    if not has_monologue(model):
        return Outcome(values={}, count=0, details={"left out": f"{type(model).__name__} has no inner monologue"})
    found = [scored(model, case) for case in context.each(_dialogues(context))]

    def of_words(items: list[Scored]) -> float:
        return perplexity(items, words=True)

    values = {"perplexity": bootstrap(found, perplexity)}
    if any(each.words for each in found):
        values["perplexity_words"] = bootstrap(found, of_words)
    return Outcome(values=values, count=len(found), details={"rows": [vars(each) for each in found]})


def official(context: Context, *, real_time: bool = False) -> Outcome:
    """Full-Duplex-Bench's own recordings, those of its folders that are there."""
    root = context.cache / OFFICIAL
    there = [folder for folder in FOLDERS if (root / folder).is_dir()]
    if not there:
        return Outcome(values={}, count=0, details={"left out": f"there is no folder {OFFICIAL} beside the test sets"})
    values: Values = {}
    rows: list[Found] = []
    for folder in there:
        cases = read_official(root, folder)
        cases = cases[: QUICK if context.quick else len(cases)]
        found = _driven(context, cases, folder.replace("/", " "), real_time=real_time)
        values |= summarise(FOLDERS[folder], found, prefix=_short(folder))
        rows += found
    return Outcome(values=values, count=len(rows), details={"rows": rows, "real_time": real_time})


def _short(folder: str) -> str:
    return folder.replace("/", "_")


_TITLES: dict[str, dict[str, tuple[str, str, bool]]] = {  # measure: title, unit, whether more is better
    PAUSE: {"tor": ("take-over while the user pauses", "%", False)},
    TELLING: {
        "tor": ("take-over while the user tells something", "%", False),
        "a_minute": ("backchannels a minute", "", True),
        "jsd": ("their timing against the reference, Jensen-Shannon divergence in bits", "", False),
        "jsd_published": ("... as Full-Duplex-Bench prints it", "", False),
    },
    TURN: {
        "tor": ("take-over after the user's turn", "%", True),
        "latency": ("... from the user's end to the first sound", "ms", False),
    },
    INTERRUPTION: {
        "tor": ("take-over after an interruption", "%", True),
        "latency": ("... from the interruption's end to the first sound", "ms", False),
        "speaking": ("interruptions that came while the model spoke", "%", True),
        "stop": ("... from their first sound to the model's silence", "ms", False),
    },
}


def _rows(kind: str, prefix: str = "", where: str = "") -> tuple[Row, ...]:
    return tuple(
        Row(key=f"{prefix or kind}_{key}", title=f"{where}{title}", unit=unit, higher=higher)
        for key, (title, unit, higher) in _TITLES[kind].items()
    )


_ANSWERS = (
    Row(key="answers_over", title="questions with short answers: take-over", unit="%", higher=True),
    Row(key="answers_latency", title="... from the user's end to the first sound", unit="ms"),
    Row(key="answers_heard", title="... WER of the questions as the model writes them down", unit="%"),
    Row(key="answers_right", title="... the inner monologue is the known answer, word for word", unit="%", higher=True),
    Row(key="answers_told", title="... so is what the judge hears", unit="%", higher=True),
    Row(key="answers_wer", title="... WER of the speech against the inner monologue", unit="%"),
    Row(key="answers_dnsmos", title="... DNSMOS of the speech", higher=True),
)
_NAMES = {"ipu": "inter-pausal units", "pause": "pauses", "gap": "gaps", "overlap": "overlaps"}
_FLOOR = tuple(
    Row(key=f"{kind}_{what}{made}", title=f"{_NAMES[kind]}, {how}{of}")
    for kind in KINDS
    for what, how in (("count", "a minute"), ("seconds", "seconds a minute"))
    for made, of in (("", ""), ("_made", ": the conversations as they were made"))
)
_OFFICIAL = tuple(
    row for folder, kind in FOLDERS.items() for row in _rows(kind, _short(folder), f"Full-Duplex-Bench {folder}: ")
)

_MONOLOGUE = (
    Row(key="perplexity", title="inner monologue, perplexity a frame"),
    Row(key="perplexity_words", title="... of its words alone"),
)


def _tasks(*, real_time: bool) -> tuple[Task, ...]:
    suffix, where = ("_live", "in real time: ") if real_time else ("", "")
    runs: list[tuple[str, Callable[..., Outcome], tuple[Row, ...]]] = [
        *((kind, functools.partial(behaviour, kind=kind), _rows(kind)) for kind in _TITLES),
        ("answers", answers, _ANSWERS),
        (DIALOGUE, dialogue, _FLOOR),
        ("official", official, _OFFICIAL),
    ]
    return tuple(
        Task(
            name=f"duplex_{name}{suffix}",
            run=functools.partial(run, real_time=real_time),
            rows=tuple(replace(row, title=f"{where}{row.title}") for row in rows),
        )
        for name, run, rows in runs
    )


DUPLEX = (*_tasks(real_time=False), Task(name="duplex_monologue", run=monologue, rows=_MONOLOGUE))
DUPLEX_LIVE = _tasks(real_time=True)
