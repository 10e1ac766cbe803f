"""What hostile and broken clients send: the right error, and the session goes on as before."""

from __future__ import annotations

import base64
import json
import random

import numpy as np
import pytest
from fakes import tone
from realtime_talk import RATE, Desk, message, one, silence

from duologue.audio import io
from duologue.server.realtime import RealtimeLimits
from duologue.server.realtime.events import CLIENT_EVENTS

WORKING = ["session.created", "conversation.created"]


@pytest.mark.parametrize(
    "raw, code, param",
    [
        ("", "invalid_json", None),
        ("{", "invalid_json", None),
        (b"\xff\xfe", "invalid_json", None),
        ("[" * 100_000, "invalid_json", None),
        ("[]", "invalid_type", None),
        ("5", "invalid_type", None),
        ('{"type": "conversation.item.create", "item": {"id": "\\ud800"}}', "invalid_json", None),
        ('{"type": "session.update", "session": {"type": "realtime", "x": NaN}}', "invalid_json", None),
        ('{"type": "session.update", "session": {"type": "realtime", "x": 1e999}}', "invalid_json", None),
        ('{"type": "session.update", "session": ' + '{"a":' * 900 + "1" + "}" * 901, "invalid_json", None),
        ("{}", "missing_required_parameter", "type"),
        ('{"type": 5}', "invalid_value", "type"),
        ('{"type": ["a"]}', "invalid_value", "type"),
        ('{"type": "response.done"}', "invalid_value", "type"),
        ('{"type": "session.update"}', "missing_required_parameter", "session"),
        ('{"type": "session.update", "session": 5}', "invalid_type", "session"),
        ('{"type": "input_audio_buffer.append"}', "missing_required_parameter", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": 5}', "invalid_type", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "%%%"}', "invalid_value", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "AAAA"}', "invalid_value", "audio"),
        ('{"type": "conversation.item.truncate", "item_id": "x"}', "missing_required_parameter", "content_index"),
        (
            '{"type": "conversation.item.truncate", "item_id": "x", "content_index": true, "audio_end_ms": 0}',
            "invalid_type",
            "content_index",
        ),
        ('{"type": "response.create", "response": []}', "invalid_type", "response"),
        ('{"type": "response.create", "response": {"metadata": {"a": 1}}}', "invalid_value", "response.metadata"),
        ('{"type": "output_audio_buffer.clear"}', "unsupported_event", None),
        (
            '{"type": "session.update", "session": {"type": "realtime", "max_output_tokens": 1' + "0" * 400 + "}}",
            "invalid_value",
            "session.max_output_tokens",
        ),
        *(
            (
                '{"type": "session.update", "session": {"type": "realtime", "truncation": ' + value + "}}",
                code,
                f"session.{param}",
            )
            for value, code, param in (
                ('"x"', "invalid_value", "truncation"),
                ("[]", "invalid_value", "truncation"),
                ("{}", "missing_required_parameter", "truncation.type"),
                ('{"type": "retention_ratio"}', "missing_required_parameter", "truncation.retention_ratio"),
                ('{"type": "retention_ratio", "retention_ratio": 2}', "invalid_value", "truncation.retention_ratio"),
            )
        ),
        ('{"type": "x", "pad": "' + "x" * 70_000 + '"}', "event_too_large", None),
    ],
)
def test_what_is_wrong_is_said_and_the_session_goes_on(raw, code, param):
    desk = Desk(limits=RealtimeLimits(event=66_000) if len(raw) < 100_000 else None)
    desk.connection.receive(raw)
    (error,) = desk.events[2:]
    assert (error["error"]["code"], error["error"]["param"]) == (code, param)
    assert one(desk.say(tone(1.0, rate=RATE), silence(1.0)), "response.done")["response"]["output"]


def test_too_much_audio_at_once_is_refused():
    desk = Desk(limits=RealtimeLimits(backlog=1.0))
    audio = base64.b64encode(io.encode_pcm16(np.zeros(2 * RATE))).decode()
    (error,) = desk.send("input_audio_buffer.append", audio=audio)
    assert error["error"]["code"] == "input_audio_buffer_full"
    assert one(desk.say(tone(1.0, rate=RATE), silence(1.0)), "response.done")


def test_a_buffer_that_is_never_committed_keeps_the_latest_alone():
    desk = Desk(limits=RealtimeLimits(longest_turn=1.0))
    desk.update(audio={"input": {"turn_detection": None, "transcription": {}}})
    desk.say(silence(3.0), tone(0.5, rate=RATE))
    said = one(desk.send("input_audio_buffer.commit"), "conversation.item.input_audio_transcription.completed")
    assert said["transcript"].startswith("sound for 8 ticks") and said["usage"]["input_tokens"] == 10


WORDS = [
    "",
    "x",
    "one",
    "realtime",
    "root",
    "none",
    "audio/pcm",
    "AAAA",
    "item",
    "text",
    "audio",
    "server_vad",
    "\ud800",
]


def anything(chance: random.Random, depth: int = 0):
    kind = chance.randrange(9 if depth < 3 else 6)
    if kind == 7:
        return [anything(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 8:
        return {chance.choice(NAMES): anything(chance, depth + 1) for _ in range(chance.randrange(5))}
    simple = [None, True, chance.choice([0, -1, 2**70, 100]), chance.choice([1e308, float("nan"), 0.5])]
    return [*simple, chance.choice(WORDS), chance.choice(NAMES), message("one")][kind]


NAMES = [
    *(
        "type",
        "session",
        "audio",
        "item",
        "item_id",
        "content_index",
        "audio_end_ms",
        "response",
        "response_id",
        "role",
    ),
    *("previous_item_id", "content", "text", "input", "output", "format", "turn_detection", "threshold", "tools"),
    *("name", "parameters", "tool_choice", "instructions", "metadata", "conversation", "id", "call_id", "arguments"),
    *("transcription", "event_id", "voice", "status", "output_modalities", "max_output_tokens", "message", "user"),
]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_comes_the_session_goes_on(seed):
    chance, desk = random.Random(seed), Desk()
    for _ in range(500):
        event = {"type": chance.choice(CLIENT_EVENTS), "event_id": "x"}
        for name in chance.sample(NAMES, 6):
            event.setdefault(name, anything(chance))
        desk.connection.receive(json.dumps(event))
        if chance.random() < 0.1:
            desk.run()
    desk.run()
    desk.send("response.cancel")
    desk.update(output_modalities=["audio"], tools=[], audio={"input": {"turn_detection": {"type": "server_vad"}}})
    desk.say(silence(0.2))
    desk.send("input_audio_buffer.clear")
    desk.wait(20)
    desk.update(audio={"input": {"format": {"type": "audio/pcm"}}, "output": {"format": {"type": "audio/pcm"}}})
    count = len(desk.events)
    desk.say(tone(1.0, rate=RATE), silence(1.0))
    events = desk.events[count:] + desk.wait(10)
    assert any(event["type"] == "response.done" and event["response"]["output"] for event in events)


def test_a_long_life_leaves_little_behind():
    desk = Desk(limits=RealtimeLimits(items=6, kept_audio=2.0))
    for _ in range(6):
        desk.say(tone(0.5, rate=RATE), silence(1.5))
    items = desk.connection.conversation.items
    assert len(items) == 6 and sum(len(part.audio) for item in items for part in item.parts) <= 2.0 * RATE * 2
    assert desk.kinds()[:2] == WORKING
