"""What a user does on a full-duplex line, made once on the spot: pauses, tells something, asks, interrupts, converses.

Each case is the user's channel and what is marked in it. The voices are those that no training heard. What is said is
the same for the same seed; it is kept in a cache folder, as `eval.testsets` does.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from duologue.data.audio_augment import active_rms
from duologue.data.dialogue.clips import RATE, Clip, Clips
from duologue.data.dialogue.config import TimingConfig
from duologue.data.dialogue.floor import Span
from duologue.data.dialogue.texts import ASSISTANT, USER, Line, Phrases, Script
from duologue.data.dialogue.timeline import BACKCHANNEL, lay_out
from duologue.data.prompts import Prompts
from duologue.data.speakers import Speaker, Voice
from duologue.data.word_times import Word
from duologue.errors import DataError
from duologue.eval.duplex_measures import WINDOW, histogram
from duologue.eval.duplex_texts import BEGINNINGS, STORIES
from duologue.eval.overlap_cases import REQUESTS
from duologue.eval.testsets import Progress

Array = np.ndarray
PAUSE, TELLING, TURN, INTERRUPTION, DIALOGUE = "pause", "backchannel", "turn", "interruption", "dialogue"
KINDS = (PAUSE, TELLING, TURN, INTERRUPTION)  # those of Full-Duplex-Bench
VERSION = 1  # of how cases are made; a new one builds anew
LEAD = 0.5  # seconds before the first word
LEVEL_DB, FLOOR_DB = -26.0, -70.0  # of the speech, of the microphone's noise; full scale
DRAWS = 400  # conversations from which the reference of backchannels is counted
_TAIL = {PAUSE: 1.0, TELLING: 1.0, TURN: 6.0, INTERRUPTION: 8.0}  # seconds after the last word


@dataclass(frozen=True, kw_only=True)
class Case:
    """The user's channel of one conversation. Seconds from its first sample."""

    kind: str
    name: str
    voice: str
    path: Path  # mono
    seconds: float
    end: float  # of the user's last word
    said: tuple[tuple[str, float, float], ...]  # the user's stretches: text, start, end; empty: not known
    marked: tuple[Span, ...] = ()  # the pauses; the interruption; where the turn ends, twice the same
    expected: tuple[float, ...] = ()  # of backchannels: shares of windows of 0.2 s
    other: Path | None = None  # the assistant's channel as it was made
    words: tuple[tuple[str, float, float], ...] = ()  # the assistant's, in `other`

    @property
    def user(self) -> list[Span]:
        return [(start, end) for _, start, end in self.said]

    def sound(self) -> tuple[Array, int]:
        """The user's samples in [-1, 1], and their rate in Hz."""
        audio, rate = soundfile.read(self.path, dtype="float32")
        return (audio if audio.ndim == 1 else audio.mean(1)), rate


@dataclass
class _Line:
    """The user's channel as it grows."""

    parts: list[tuple[Clip, float]]
    at: float = LEAD

    def say(self, clip: Clip) -> tuple[str, float, float]:
        start, self.at = self.at, self.at + clip.seconds
        self.parts.append((clip, start))
        return clip.text, round(start, 4), round(self.at, 4)

    def sound(self, tail: float, rng: np.random.Generator) -> Array:
        audio_N = np.zeros(round((self.at + tail) * RATE), np.float32)
        for clip, start in self.parts:
            place = audio_N[round(start * RATE) :][: len(clip.audio_N)]
            loud = max(active_rms(clip.audio_N), 1e-9)
            place += clip.audio_N[: len(place)] * np.float32(10 ** (LEVEL_DB / 20) / loud)
        audio_N += rng.standard_normal(len(audio_N)).astype(np.float32) * np.float32(10 ** (FLOOR_DB / 20))
        return np.clip(audio_N, -1, 1)


def make_cases(
    kind: str,
    count: int,
    *,
    speakers: Sequence[Speaker],
    questions: Sequence[str],
    cache: Path,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Case]:
    """So many cases of one of `KINDS`, each voice in turn.

    Raises:
        DataError: an unknown kind, no questions, or a voice that cannot speak here.
    """
    if kind not in KINDS:
        raise DataError(f"duplex cases: there is no kind {kind!r}; there are: {', '.join(KINDS)}")
    if not questions or not speakers:
        raise DataError("duplex cases: need at least one question and one voice")
    clips = Clips(speakers={speaker.name: speaker for speaker in speakers})
    build = {PAUSE: _pause, TELLING: _telling, TURN: _turn, INTERRUPTION: _interruption}[kind]

    def make(number: int, folder: Path) -> Case:
        rng = np.random.default_rng([seed, KINDS.index(kind), number])
        speaker, person = speakers[number % len(speakers)].name, int(rng.integers(2**31))
        line = _Line([])

        def say(text: str) -> Clip:
            return clips.get(Voice(kind="hibari", name=speaker), text, person)

        case = build(number, line, say, questions, rng)
        audio_N = line.sound(_TAIL[kind], rng)
        path = folder / f"{number:04d}.flac"
        soundfile.write(path, audio_N, RATE, subtype="PCM_16")
        return replace(case, name=f"{kind}-{number:03d}", voice=speaker, path=path, seconds=len(audio_N) / RATE)

    key = [VERSION, kind, count, [speaker.name for speaker in speakers], list(questions), seed]
    return cached(cache, kind, key, count, make, progress)


Say = Callable[[str], Clip]


def _case(kind: str, said: Sequence[tuple[str, float, float]], **fields: Any) -> Case:
    return Case(kind=kind, name="", voice="", path=Path(), seconds=0.0, end=said[-1][2], said=tuple(said), **fields)


def _pause(number: int, line: _Line, say: Say, questions: Sequence[str], rng: np.random.Generator) -> Case:
    """One or two pauses inside a question, where it cannot be over by its words."""
    beginning = BEGINNINGS[number % len(BEGINNINGS)]
    question = questions[number % len(questions)]
    said: list[tuple[str, float, float]] = []
    marked: list[Span] = []
    for part in (*beginning[: 1 + number % 2], question):
        if said:
            start, line.at = line.at, line.at + float(rng.uniform(0.6, 2.0))
            marked.append((round(start, 4), round(line.at, 4)))
        said.append(line.say(say(part)))
    return _case(PAUSE, said, marked=tuple(marked))


def _telling(number: int, line: _Line, say: Say, questions: Sequence[str], rng: np.random.Generator) -> Case:
    said: list[tuple[str, float, float]] = []
    words: list[Word] = []
    for sentence in STORIES[number % len(STORIES)]:
        line.at += float(rng.uniform(0.25, 0.7)) if said else 0.0
        clip = say(sentence)
        words += [word.moved(line.at - LEAD) for word in clip.words]
        said.append(line.say(clip))
    told = Clip(np.zeros(round((line.at - LEAD) * RATE), np.float32), tuple(words))
    return _case(TELLING, said, expected=tuple(expected_signs(told, seconds=line.at, seed=number)))


def _turn(number: int, line: _Line, say: Say, questions: Sequence[str], rng: np.random.Generator) -> Case:
    said = line.say(say(questions[(number + 100) % len(questions)]))
    return _case(TURN, [said], marked=((said[2], said[2]),))


def _interruption(number: int, line: _Line, say: Say, questions: Sequence[str], rng: np.random.Generator) -> Case:
    first = line.say(say(questions[(number + 200) % len(questions)]))
    line.at += float(rng.uniform(2.5, 4.5))
    requests = REQUESTS["test"]
    text = (
        requests[number // 2 % len(requests)] if number % 2 else f"Wait. {questions[(number + 300) % len(questions)]}"
    )
    second = line.say(say(text))
    return _case(INTERRUPTION, [first, second], marked=((second[1], second[2]),))


def expected_signs(told: Clip, *, seconds: float, seed: int, draws: int = DRAWS) -> list[float]:
    """When backchannels come while something is told, if they come as in the project's conversations (data.dialogue):
    any time a word ends, not at the edges. Counted over many draws; the telling begins after `LEAD` seconds."""
    sign = Clip(np.zeros(round(0.35 * RATE), np.float32), (Word("Mm-hm.", 0.0, 0.35),))
    script = Script(id="telling", split="test", source="", lines=(Line(USER, told.text), Line(ASSISTANT, "")))
    timing = replace(TimingConfig(), user_pause_chance=0.0, user_hesitation_chance=0.0, interruption_chance=0.0)
    phrases = Phrases.read(Prompts())

    def say(role: str, text: str) -> Clip:
        return told if text == told.text else sign

    found: list[Span] = []
    for draw in range(draws):
        timeline = lay_out(script, say, timing=timing, phrases=phrases, rng=np.random.default_rng([seed, draw]))
        begin = next(each.start for each in timeline.utterances if each.role == USER)
        signs = [each for each in timeline.utterances if each.kind == BACKCHANNEL and each.role == ASSISTANT]
        found += [(each.start - begin + LEAD, each.end - begin + LEAD) for each in signs]
    return histogram(found, seconds) if found else [1.0] * (int(seconds / WINDOW) + 1)


def cached(
    cache: Path, name: str, key: object, count: int, make: Callable[[int, Path], Case], progress: Progress | None
) -> list[Case]:
    """Makes cases, or reads them back where they were made before from the same key."""
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
    folder = Path(cache) / f"duplex-{name}-{digest}"
    if not (folder / "index.json").is_file():
        partial = folder.with_name(folder.name + ".part")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        rows = []
        for number in range(count):
            case = make(number, partial)
            paths = {"path": case.path.name, "other": case.other.name if case.other else None}
            rows.append({**asdict(case), **paths})
            if progress:
                progress(number + 1, count)
        (partial / "index.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    rows = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return [_read(row, folder) for row in rows]


def _read(row: dict[str, Any], folder: Path) -> Case:
    lists = {key: tuple(tuple(each) for each in row[key]) for key in ("said", "marked", "words")}
    other = folder / row["other"] if row["other"] else None
    return Case(**{**row, **lists, "expected": tuple(row["expected"]), "path": folder / row["path"], "other": other})
