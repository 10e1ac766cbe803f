"""The Realtime API's client events as they should be, and what may stand in their fields: GA, and the beta's names."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Event = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """One field of a valid event, and what may stand in it."""

    path: str
    kind: str  # object, array, text, number, flag, choice, base64
    required: bool = False
    wrong: tuple[Any, ...] = ()  # values of the right type that are none


ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}
_TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
_VAD = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "create_response": False,
    "interrupt_response": True,
}
_SESSION = {
    "type": "realtime",
    "instructions": "Be brief.",
    "output_modalities": ["audio"],
    "max_output_tokens": 100,
    "tools": [_TOOL],
    "tool_choice": "auto",
    "truncation": "auto",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24_000},
            "turn_detection": _VAD,
            "transcription": {"model": "m"},
        },
        "output": {"format": {"type": "audio/pcm", "rate": 24_000}, "voice": "mini", "speed": 1.0},
    },
}
SOUND = base64.b64encode(bytes(4_800)).decode()  # a tenth of it
_INPUT, _OUTPUT = "session.audio.input", "session.audio.output"

VALID: dict[str, Event] = {
    "session.update": {"session": _SESSION},
    "input_audio_buffer.append": {"audio": SOUND},
    "conversation.item.create": {"item": ITEM, "previous_item_id": "root"},
    "conversation.item.retrieve": {"item_id": "item_0"},
    "conversation.item.truncate": {"item_id": "item_0", "content_index": 0, "audio_end_ms": 0},
    "conversation.item.delete": {"item_id": "item_0"},
    "response.create": {"response": {"conversation": "auto", "metadata": {"a": "b"}, "max_output_tokens": 5}},
    "response.cancel": {"response_id": "resp_0"},
}
FIELDS: dict[str, Sequence[Field]] = {
    "session.update": (
        Field("session", "object", required=True),
        Field("session.type", "choice", required=True, wrong=("live", "Realtime", "")),
        Field("session.instructions", "text", wrong=("x" * 20_000,)),
        Field("session.output_modalities", "array", wrong=(["audio", "text"], [], ["video"], [["audio"]])),
        Field("session.max_output_tokens", "number", wrong=(0, -1, 4_097, 2**70, 10**400, 1.5, "INF")),
        Field("session.tools", "array", wrong=([5], [{}], [{"type": "mcp"}], [{**_TOOL, "name": ""}], [_TOOL] * 200)),
        Field("session.tool_choice", "choice", wrong=("maybe", {"type": "mcp"}, {"type": "function", "name": 5})),
        Field(
            "session.truncation",
            "choice",
            wrong=("x", {"type": "x"}, {"type": "retention_ratio", "retention_ratio": 9}),
        ),
        Field("session.audio", "object"),
        Field(_INPUT, "object"),
        Field(f"{_INPUT}.format", "object"),
        Field(f"{_INPUT}.format.type", "choice", wrong=("audio/mp3", "pcm16", "")),
        Field(f"{_INPUT}.format.rate", "choice", wrong=(0, -1, 8_000, 48_000, 10**400, 23_999.9)),
        Field(f"{_INPUT}.transcription", "object"),
        Field(f"{_INPUT}.turn_detection", "object"),
        Field(f"{_INPUT}.turn_detection.type", "choice", wrong=("none", "vad", "")),
        Field(f"{_INPUT}.turn_detection.threshold", "number", wrong=(-0.1, 1.1, 10**400, -(10**400), 1e308)),
        Field(f"{_INPUT}.turn_detection.prefix_padding_ms", "number", wrong=(-1, 10**9, 10**400, 0.5)),
        Field(f"{_INPUT}.turn_detection.silence_duration_ms", "number", wrong=(-1, 10**9, 10**400, 1e308)),
        Field(f"{_INPUT}.turn_detection.create_response", "flag"),
        Field(f"{_INPUT}.turn_detection.interrupt_response", "flag"),
        Field(_OUTPUT, "object"),
        Field(f"{_OUTPUT}.format", "object"),
        Field(f"{_OUTPUT}.format.type", "choice", wrong=("audio/opus",)),
        Field(f"{_OUTPUT}.voice", "choice", wrong=("v" * 300,)),
        Field(f"{_OUTPUT}.speed", "number", wrong=(0, -1, 1.6, 10**400)),
    ),
    "input_audio_buffer.append": (
        Field(
            "audio",
            "base64",
            required=True,
            wrong=("%%%", "AAAA=", "AA", "A", "AAAA", "AA==A", "\u00e4\u00e4\u00e4\u00e4", "AAA A"),
        ),
    ),
    "conversation.item.create": (
        Field("item", "object", required=True),
        Field("item.type", "choice", required=True, wrong=("note", "mcp_call", "")),
        Field("item.role", "choice", required=True, wrong=("robot", "developer", "")),
        Field(
            "item.content",
            "array",
            required=True,
            wrong=([5], ["x"], [{}], [[]], [{"type": "x"}], [{"type": "input_text"}]),
        ),
        Field("item.id", "text", wrong=("x" * 100,)),
        Field("item.status", "choice", wrong=("done", "")),
    ),
    "conversation.item.retrieve": (Field("item_id", "text", required=True),),
    "conversation.item.truncate": (
        Field("item_id", "text", required=True),
        Field("content_index", "number", required=True),
        Field("audio_end_ms", "number", required=True),
    ),
    "conversation.item.delete": (Field("item_id", "text", required=True),),
    "response.create": (
        Field("response", "object"),
        Field("response.conversation", "choice", wrong=("all", "conv_1", "")),
        Field(
            "response.metadata",
            "object",
            wrong=({"a": 1}, {"a" * 65: "b"}, {"a": "b" * 600}, {str(n): "" for n in range(17)}),
        ),
        Field("response.max_output_tokens", "number", wrong=(0, 5_000, 10**400)),
        Field("response.output_modalities", "array", wrong=(["text", "audio"],)),
        Field(
            "response.input",
            "array",
            wrong=([5], [{}], [{"type": "item_reference", "id": "no"}], [{"type": "message"}]),
        ),
        Field("response.instructions", "text", wrong=("x" * 20_000,)),
        Field("response.tools", "array", wrong=([{"type": "web_search"}],)),
        Field("response.audio", "object"),
    ),
    "response.cancel": (Field("response_id", "text"),),
}
OLD_VALID: dict[str, Event] = {
    **VALID,
    "session.update": {
        "session": {
            "instructions": "Be brief.",
            "modalities": ["text", "audio"],
            "input_audio_format": "pcm16",
            "output_audio_format": "pcm16",
            "turn_detection": _VAD,
            "tools": [_TOOL],
        }
    },
    "transcription_session.update": {"session": {"input_audio_format": "pcm16", "turn_detection": _VAD}},
    "response.create": {"response": {"conversation": "auto", "metadata": {"a": "b"}}},
}
_OLD_VAD = "session.turn_detection"
OLD_FIELDS: dict[str, Sequence[Field]] = {
    **FIELDS,
    "session.update": (
        Field("session", "object", required=True),
        Field("session.instructions", "text", wrong=("x" * 20_000,)),
        Field("session.modalities", "array", wrong=(["video"], [], [["audio"]])),
        Field("session.input_audio_format", "choice", wrong=("mp3", "audio/mp3", "")),
        Field("session.output_audio_format", "choice", wrong=("mp3",)),
        Field("session.turn_detection", "object"),
        Field(f"{_OLD_VAD}.type", "choice", wrong=("none", "vad")),
        Field(f"{_OLD_VAD}.threshold", "number", wrong=(-0.1, 1.1, 10**400)),
        Field(f"{_OLD_VAD}.silence_duration_ms", "number", wrong=(-1, 10**400)),
        Field("session.tools", "array", wrong=([5], [{}], [{"type": "mcp"}])),
        Field("session.tool_choice", "choice", wrong=("maybe",)),
    ),
    "transcription_session.update": (
        Field("session", "object", required=True),
        Field("session.input_audio_format", "choice", wrong=("mp3",)),
        Field("session.turn_detection", "object"),
    ),
    "response.create": tuple(
        field for field in FIELDS["response.create"] if "output_" not in field.path and field.path != "response.audio"
    ),
}
