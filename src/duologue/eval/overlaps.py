"""Speech over an answer, measured: how soon the answer stands still, what stops it that should not, and what does not
stop it that should.

The engine as it is served, driven step by step with a clock by hand: the client sends its microphone's sound in blocks
of 20 to 80 ms, and its loudspeaker plays what it was sent, late, into the same room. Times are of the clock: what the
model needs to compute is not in them, and the network is not either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from duologue.audio.io import Resampler
from duologue.audio.vad import VoiceActivity
from duologue.engine import Engine, SessionConfig
from duologue.errors import DataError
from duologue.eval.metrics import Interval, bootstrap, mean, percentile
from duologue.eval.overlap_cases import RATE, Case
from duologue.streaming.events import Audio, Done, Event, Failed, Interrupted, Paused, Resumed
from duologue.streaming.protocol import StreamingModel
from duologue.streaming.turns import OverlapConfig, TurnConfig

LONG = 1.0  # seconds that an answer may stand still without having been stopped
_AFTER = 2.0  # seconds after the sound in which something may still happen
_BUFFERED = 0.4  # of a client's delay that is its own buffer, which a pause does not wait for

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one case. Milliseconds from the onset of the clean sound."""

    kind: str
    text: str
    voice: str
    echo_db: float | None
    paused_ms: float | None
    interrupted_ms: float | None
    stood: tuple[float, ...]  # seconds for which it stood still each time, if it went on; or to the end
    before: int  # times it stood still before there was anything: by its own echo
    cut_before: bool  # ... or was even stopped

    @property
    def stopped(self) -> bool:
        """Interrupted, or made to stand still for so long that it comes to the same."""
        return self.interrupted_ms is not None or self.cut_before or max(self.stood, default=0.0) > LONG


@dataclass
class Client:
    """A loudspeaker and a microphone in one room."""

    case: Case
    rate: int  # of the answers, Hz
    queue: list[Array] = field(default_factory=list)
    todo: list[tuple[float, str]] = field(default_factory=list)  # when its loudspeaker goes, stands or is emptied
    playing: bool = False

    def __post_init__(self) -> None:
        self._resample = Resampler(self.rate, RATE)
        self._tail = np.zeros(len(self.case.room) - 1, np.float32)
        self._rng = np.random.default_rng(self.case.seed)
        self._begun = False

    def take(self, event: Event, now: float) -> None:
        soon = now + self.case.delay * (1 - _BUFFERED)
        match event:
            case Audio(samples):
                self.queue.append(self._resample(samples))
                if not self._begun:
                    self._begun = True
                    self.todo.append((now + self.case.delay, "go"))
            case Resumed():
                self.todo.append((soon, "go"))
            case Paused():
                self.todo.append((soon, "stand"))
            case Interrupted():
                self.todo.append((soon, "empty"))

    def hear(self, now: float, count: int) -> Array:
        """The microphone's next samples: the room's noise and the loudspeaker."""
        for when, what in [each for each in self.todo if each[0] <= now]:
            self.playing = what == "go"
            if what == "empty":
                self.queue.clear()
            self.todo.remove((when, what))
        noise = self._rng.standard_normal(count).astype(np.float32) * np.float32(10 ** (self.case.floor_db / 20))
        played = self._play(count)
        if self.case.echo_db is None:
            return noise
        sound = np.convolve(played, self.case.room)
        sound[: len(self._tail)] += self._tail
        self._tail = sound[count:].astype(np.float32)
        return noise + sound[:count].astype(np.float32) * np.float32(10 ** (self.case.echo_db / 20))

    def _play(self, count: int) -> Array:
        waiting = np.concatenate([np.zeros(0, np.float32), *self.queue])
        played = waiting[: count if self.playing else 0]
        self.queue = [waiting[len(played) :]]
        return np.pad(played, (0, count - len(played)))


class Bench:
    """One engine for all cases, one conversation after the other."""

    def __init__(
        self,
        model: StreamingModel,
        *,
        turns: TurnConfig | None = None,
        overlap: OverlapConfig | None = None,
        echo: bool = True,
        voice: VoiceActivity | None = None,
    ):
        self.time = 0.0
        self.engine = Engine(model, slots=1, voice=voice, clock=lambda: self.time)
        self._config = SessionConfig(turns=turns or TurnConfig(), overlap=overlap or OverlapConfig(), echo=echo)

    def run(self, case: Case) -> Outcome:
        """Raises:
        DataError: the conversation failed, or the answer was over before the case began.
        """
        client = Client(case, self.engine.runner.spec.output_rate)
        events: list[tuple[float, Event]] = []

        def sink(event: Event) -> None:
            events.append((self.time, event))
            client.take(event, self.time)

        session = self.engine.open(sink, self._config)
        session.say(case.answer)
        self._drive()
        begun = next((when for when, event in events if isinstance(event, Audio)), None)
        if begun is None:
            raise DataError(f"overlaps: the model did not say {case.answer[:40]!r}: {[e for _, e in events][-1:]}")
        said = sum(len(event.samples) for _, event in events if isinstance(event, Audio)) / client.rate
        if said < case.start and any(isinstance(event, Done) for _, event in events):
            raise DataError(f"overlaps: {case.answer[:40]!r} was over before {case.start:.1f} s, after {said:.1f} s")
        onset, size = begun + case.start, round(case.block * RATE)
        end = onset + len(case.audio) / RATE + _AFTER
        while self.time < end and not any(isinstance(event, Interrupted) for _, event in events):
            sound = client.hear(self.time, size)
            self._add(sound, case.audio, round((onset - self.time) * RATE))
            self.time += size / RATE
            session.listen(np.clip(sound, -1, 1).astype(np.float32))
            self._drive()
        session.close()
        self._drive()
        if failed := [event for _, event in events if isinstance(event, Failed)]:
            raise DataError(f"overlaps: the conversation failed: {failed[0].message}")
        return self._outcome(case, events, onset)

    @staticmethod
    def _add(sound: Array, audio: Array, at: int) -> None:
        """Adds audio that begins `at` samples after the sound does."""
        first, last = max(at, 0), min(at + len(audio), len(sound))
        if first < last:
            sound[first:last] += audio[first - at : last - at]

    def _drive(self) -> None:
        self.engine._take_posts(wait=None)
        while self.engine.step():
            self.engine._take_posts(wait=None)

    def _outcome(self, case: Case, events: list[tuple[float, Event]], onset: float) -> Outcome:
        def since(kind: type[Event]) -> float | None:
            found = [when for when, event in events if isinstance(event, kind) and (when >= onset)]
            return round(1000 * (found[0] - onset), 1) if found else None

        stood, paused = [], None
        for when, event in events:
            if isinstance(event, Paused):
                paused = when
            elif isinstance(event, (Resumed, Interrupted)) and paused is not None:
                if when >= onset and isinstance(event, Resumed):
                    stood.append(round(when - paused, 3))
                paused = None
        if paused is not None:
            stood.append(round(self.time - paused, 3))
        return Outcome(
            kind=case.kind,
            text=case.text,
            voice=case.voice,
            echo_db=case.echo_db,
            paused_ms=since(Paused),
            interrupted_ms=since(Interrupted),
            stood=tuple(stood),
            before=sum(isinstance(event, Paused) and when < onset for when, event in events),
            cut_before=any(isinstance(event, Interrupted) and when < onset for when, event in events),
        )


def measure(
    cases: Sequence[Case], bench: Bench, *, tell: Callable[[int, Case, Outcome], None] = lambda *_: None
) -> list[Outcome]:
    """All cases in order; `tell` is told of each."""
    outcomes = []
    for number, case in enumerate(cases):
        outcomes.append(bench.run(case))
        tell(number, case, outcomes[-1])
    return outcomes


def summary(outcomes: Sequence[Outcome]) -> dict[str, Interval]:
    """The figures, those without a case left out. Shares are of 1, times milliseconds."""
    groups = {kind: [each for each in outcomes if each.kind == kind] for kind in ("sign", "noise", "echo", "request")}
    over = [*groups["sign"], *groups["noise"], *groups["echo"]]
    echoing = [each for each in outcomes if each.echo_db is not None]
    requests = groups["request"]
    paused = [each.paused_ms for each in requests if each.paused_ms is not None]
    stopped = [each.interrupted_ms for each in requests if each.interrupted_ms is not None]
    hesitated = [max(each.stood) for each in over if each.stood and not each.stopped]

    def share(test: Callable[[Outcome], bool]) -> Callable[[list[Outcome]], float]:
        return lambda items: mean([float(test(each)) for each in items])

    def at(percent: float) -> Callable[[list[float]], float]:
        return lambda items: percentile(items, percent)

    figures: dict[str, tuple[list, Callable[[list], float]]] = {
        "false_stops": (over, share(lambda each: each.stopped)),
        "false_stops_signs": (groups["sign"], share(lambda each: each.stopped)),
        "false_stops_noises": (groups["noise"], share(lambda each: each.stopped)),
        "false_stops_echo": (groups["echo"], share(lambda each: each.stopped)),
        "hesitations": (over, share(lambda each: bool(each.stood) and not each.stopped)),
        "hesitation_p50": (hesitated, lambda items: 1000 * percentile(items, 50)),
        "stood_before": (echoing, share(lambda each: each.before > 0)),
        "missed_stops": (requests, share(lambda each: each.interrupted_ms is None)),
        "paused_p50": (paused, at(50)),
        "paused_p95": (paused, at(95)),
        "interrupted_p50": (stopped, at(50)),
        "interrupted_p95": (stopped, at(95)),
    }
    return {name: bootstrap(items, statistic) for name, (items, statistic) in figures.items() if items}
