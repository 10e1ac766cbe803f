"""Spans of turns: numbers, never words."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import ANSWER, EchoConfig, EchoModel, tone
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from realtime_talk import RATE, Desk, message, silence

from duologue.errors import ServerError
from duologue.server.tracing import Tracing
from duologue.streaming.events import Audio, Late, Text

WEATHER = {"type": "function", "name": "weather", "description": "Tells it.", "parameters": {"type": "object"}}


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


def desk_and_spans(exporter, model=None, **options):
    tracing = Tracing(exporter)
    desk = Desk(model, witnesses=lambda kind, name: tracing.open(kind, name, model="echo"), **options)

    def spans():
        desk.connection.close()
        tracing.close()
        return [dict(span.attributes) | {"span": span} for span in exporter.get_finished_spans()]

    return desk, spans


def test_each_turn_is_a_span_with_its_numbers(exporter):
    desk, spans = desk_and_spans(exporter)
    desk.say(tone(1.0, rate=RATE), silence(1.0))
    desk.send("conversation.item.create", item=message("Good morning."))
    desk.send("response.create")
    first, second = spans()
    assert first["span"].name == "duologue.turn" and first["span"].end_time > first["span"].start_time
    assert first["gen_ai.conversation.id"] == desk.connection.id and first["duologue.protocol"] == "realtime"
    assert first["gen_ai.request.model"] == "echo" and first["duologue.outcome"] == "answered"
    assert first["duologue.first_audio_ms"] >= 0 and first["duologue.audio_seconds"] == pytest.approx(0.6)
    assert (
        first["gen_ai.usage.input_tokens"] > 10
        and first["gen_ai.usage.output_tokens"] == -(-len(ANSWER.encode()) // 4) + 12
    )
    assert second["duologue.question_seconds"] == 0
    words = str([[str(value) for value in each.values()] for each in (first, second)])
    assert not any(word in words for word in ("sound for", ANSWER, "morning"))


def test_a_turn_may_end_in_another_way(exporter):
    desk, spans = desk_and_spans(
        exporter,
        EchoModel(EchoConfig(audio_ticks=200)),
        router=lambda transcript, tools, *, forced: ("weather", "{}") if "turn 2" in transcript else None,
    )
    desk.update(tools=[WEATHER])
    desk.say(tone(1.0, rate=RATE), silence(1.0), steps=4)
    desk.say(tone(1.0, rate=RATE), silence(1.0), steps=4)  # over the answer
    assert [span["duologue.outcome"] for span in spans()] == ["interrupted", "called"]


def test_a_collector_is_an_address():
    with pytest.raises(ServerError, match="--otel: need the address"):
        Tracing.over_http("localhost:4318")
    Tracing.over_http("http://localhost:4318").close()


def test_a_conversation_without_turns_is_one_span(exporter):
    tracing = Tracing(exporter)
    witness = tracing.open("live", "live_1", model="echo", rates=(16_000, 24_000))
    for _ in range(10):
        witness.hear(np.zeros(1_600, np.float32))
        witness.happen(Audio(np.zeros(2_400, np.float32)))
        witness.happen(Text("secret"))
    witness.happen(Late(0.25))
    witness.close()
    tracing.close()
    (span,) = exporter.get_finished_spans()
    found = dict(span.attributes)
    assert span.name == "duologue.conversation" and found["gen_ai.conversation.id"] == "live_1"
    assert (found["duologue.heard_seconds"], found["duologue.audio_seconds"]) == (1.0, 1.0)
    assert found["duologue.late_seconds"] == 0.25 and "secret" not in str(found)
