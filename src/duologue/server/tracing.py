"""A span for each turn of a conversation, or for all of one without turns, for whoever collects OpenTelemetry: how
soon it was answered and how much was said, never what. Needs the extra `otel`, loaded only with `--otel`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from duologue.errors import ServerError
from duologue.server.realtime.usage import input_audio_tokens, output_audio_tokens, text_tokens
from duologue.server.witness import Called, Happening
from duologue.streaming.events import Audio, Done, Failed, Heard, Interrupted, Late, Metrics, SpeechStarted, Text

_MISSING = "--otel: this needs the package {}; pip install 'duologue[otel]'"


class Tracing:
    """The traces of a server.

    Args:
        exporter: takes the spans, in batches on a thread of its own.
        wall: nanoseconds since 1970.
    Raises:
        ServerError: the extra is not installed.
    """

    def __init__(self, exporter: Any, *, wall: Callable[[], int] = time.time_ns):
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as error:
            raise ServerError(_MISSING.format(error.name)) from error
        about = Resource.create({"service.name": "duologue"})
        self._provider = TracerProvider(resource=about, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer, self._wall = self._provider.get_tracer("duologue"), wall

    @staticmethod
    def over_http(endpoint: str) -> Tracing:
        """To a collector, such as http://localhost:4318.

        Raises:
            ServerError: this is no address, or the extra is not installed.
        """
        if not endpoint.startswith(("http://", "https://")):
            raise ServerError(
                f"--otel: need the address of a collector such as http://localhost:4318, got {endpoint!r}"
            )
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ModuleNotFoundError as error:
            raise ServerError(_MISSING.format(error.name)) from error
        return Tracing(OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces"))

    def open(self, kind: str, name: str, *, model: str, rates: tuple[int, int] | None = None) -> Turns | Whole:
        """The witness of a conversation.

        Args:
            rates: Hz of the user's and of the model's sound, in a conversation without turns.
        """
        about = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "duologue",
            "gen_ai.request.model": model,
            "gen_ai.conversation.id": name,
            "duologue.protocol": kind,
        }
        return Whole(self._tracer, about, self._wall, rates) if rates else Turns(self._tracer, about, self._wall)

    def close(self) -> None:
        """Sends what waits."""
        self._provider.shutdown()


class Turns:
    """A witness that makes a span of each turn when it is over. Tokens are counted as in the Realtime API's usage."""

    def __init__(self, tracer: Any, about: dict[str, str], wall: Callable[[], int]):
        self._tracer, self._about, self._wall = tracer, about, wall
        self._begin: int | None = None  # of the turn, nanoseconds

    def hear(self, samples: np.ndarray) -> None:
        pass

    def happen(self, event: Happening) -> None:
        match event:
            case SpeechStarted() | Heard() | Text() if self._begin is None:
                self._begin = self._wall()
            case Done(metrics):
                self._end("answered", **_numbers(metrics))
            case Called(name):
                self._end("called", **{"gen_ai.tool.name": name})
            case Interrupted():
                self._end("interrupted")
            case Failed():
                self._end("failed")

    def close(self) -> None:
        self._end("abandoned")

    def _end(self, outcome: str, **more: Any) -> None:
        begin, self._begin = self._begin, None
        if begin is None:
            return
        attributes = {**self._about, "duologue.outcome": outcome, **more}
        span = self._tracer.start_span("duologue.turn", start_time=begin, attributes=attributes)
        if outcome == "failed":
            from opentelemetry.trace import StatusCode

            span.set_status(StatusCode.ERROR)
        span.end(end_time=self._wall())


class Whole:
    """A witness that makes one span of a conversation without turns."""

    def __init__(self, tracer: Any, about: dict[str, str], wall: Callable[[], int], rates: tuple[int, int]):
        self._wall, self._rates = wall, rates
        self._span = tracer.start_span("duologue.conversation", start_time=wall(), attributes=about)
        self._heard = self._said = 0  # samples
        self._late = 0.0  # seconds

    def hear(self, samples: np.ndarray) -> None:
        self._heard += len(samples)

    def happen(self, event: Happening) -> None:
        match event:
            case Audio(samples):
                self._said += len(samples)
            case Late(seconds):
                self._late += seconds
            case Failed():
                from opentelemetry.trace import StatusCode

                self._span.set_status(StatusCode.ERROR)

    def close(self) -> None:
        heard, said = self._heard / self._rates[0], self._said / self._rates[1]
        self._span.set_attributes(
            {"duologue.heard_seconds": heard, "duologue.audio_seconds": said, "duologue.late_seconds": self._late}
        )
        self._span.end(end_time=self._wall())


def _numbers(metrics: Metrics) -> dict[str, Any]:
    heard, said = metrics.question_seconds, metrics.audio_seconds
    times = {
        "duologue.question_seconds": heard,
        "duologue.audio_seconds": said,
        "duologue.first_text_ms": metrics.first_text_ms,
        "duologue.first_audio_ms": metrics.first_audio_ms,
        "duologue.real_time_factor": metrics.real_time_factor,
        "gen_ai.usage.input_tokens": text_tokens(metrics.transcript) + input_audio_tokens(heard * 1000),
        "gen_ai.usage.output_tokens": text_tokens(metrics.text) + output_audio_tokens(said * 1000),
    }
    return {name: value for name, value in times.items() if value is not None}
