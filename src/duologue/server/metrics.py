"""What Prometheus reads at /metrics: sessions, steps, how soon answers come, what went wrong."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from duologue.engine import Engine
from duologue.streaming.events import Done, Event, Failed, Interrupted, Late

_STEP = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)  # seconds
_FIRST = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.5, 5.0)  # seconds


class Metrics:
    """One server's numbers. Calls come on the engine's thread."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._sessions = Gauge("duologue_sessions", "Conversations that hold a place.", registry=registry)
        self._places = Gauge("duologue_places", "Most conversations at once.", registry=registry)
        self._queue = Gauge("duologue_posts_waiting", "Calls that wait for the engine's thread.", registry=registry)
        self._opened = Counter("duologue_sessions_opened", "Conversations begun.", registry=registry)
        self._refused = Counter(
            "duologue_sessions_refused", "Conversations refused for want of a place.", registry=registry
        )
        self._failed = Counter("duologue_sessions_failed", "Conversations that the model failed in.", registry=registry)
        self._answers = Counter("duologue_answers", "Answers given to the end.", registry=registry)
        self._interrupted = Counter("duologue_interruptions", "Answers cut short by the user.", registry=registry)
        self._dry = Counter(
            "duologue_underruns", "Times that speech came later than it was to be played.", registry=registry
        )
        self._missed = Counter(
            "duologue_deadline_misses",
            "Ticks of conversations with a duplex family that were made later than the next was due.",
            registry=registry,
        )
        self._late = Counter(
            "duologue_late_audio_seconds",
            "Audio that came too late for its tick of a duplex family, and was not heard.",
            registry=registry,
        )
        self._step = Histogram(
            "duologue_step_seconds", "Time of one step of the model.", buckets=_STEP, registry=registry
        )
        self._first = Histogram(
            "duologue_first_audio_seconds",
            "From the end of the turn to the first sound.",
            buckets=_FIRST,
            registry=registry,
        )

    def step(self, seconds: float) -> None:
        self._step.observe(seconds)

    def opened(self) -> None:
        self._opened.inc()

    def refused(self) -> None:
        self._refused.inc()

    def underrun(self) -> None:
        self._dry.inc()

    def missed(self, sessions: int) -> None:
        self._missed.inc(sessions)

    def event(self, event: Event) -> None:
        match event:
            case Done(metrics):
                self._answers.inc()
                if metrics.first_audio_ms is not None:
                    self._first.observe(metrics.first_audio_ms / 1000)
            case Interrupted():
                self._interrupted.inc()
            case Late(seconds):
                self._late.inc(seconds)
            case Failed():
                self._failed.inc()

    def text(self, engine: Engine) -> bytes:
        """The present state, in Prometheus' format."""
        self._places.set(engine.runner.slots)
        self._sessions.set(engine.runner.slots - engine.free)
        self._queue.set(engine.waiting)
        return generate_latest(self._registry)
