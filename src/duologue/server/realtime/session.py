"""What a client has set for its session: defaults, changes, and what must not change."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from duologue.server.realtime.audio import FORMATS, PCM16, Format
from duologue.server.realtime.events import ClientError, missing, of_type
from duologue.server.realtime.fields import Fields, size
from duologue.server.realtime.limits import RealtimeLimits
from duologue.streaming.turns import TurnConfig

_TOP = {
    *("type", "model", "instructions", "output_modalities", "max_output_tokens", "tools", "tool_choice", "audio"),
    *("parallel_tool_calls", "reasoning", "prompt", "tracing", "truncation", "include", "id", "object", "expires_at"),
}
_INPUT = {"format", "noise_reduction", "transcription", "turn_detection"}
_OUTPUT = {"format", "voice", "speed"}
_RESPONSE = {
    *("instructions", "output_modalities", "max_output_tokens", "tools", "tool_choice", "parallel_tool_calls"),
    *("reasoning", "prompt", "audio", "metadata", "conversation", "input"),
}
_FLAGS = ("create_response", "interrupt_response")
_SERVER_VAD = ("type", "threshold", "prefix_padding_ms", "silence_duration_ms", "idle_timeout_ms", *_FLAGS)
_SEMANTIC_VAD = ("type", "eagerness", *_FLAGS)
_PATIENCE = {"low": (0.6, 1.0, 8.0), "medium": (0.4, 0.6, 4.0), "high": (0.25, 0.4, 2.0)}  # complete, unknown, not
_PAUSE, _EAGER_PAUSE = 0.2, 0.128  # seconds of silence after which an answer is prepared


@dataclass(frozen=True, kw_only=True)
class TurnDetection:
    """How the user's turns are found."""

    type: str = "server_vad"  # or "semantic_vad"
    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    idle_timeout_ms: int | None = None
    eagerness: str = "auto"
    create_response: bool = True
    interrupt_response: bool = True

    def turns(self) -> TurnConfig:
        """For the engine."""
        before = self.prefix_padding_ms / 1000
        if self.type == "semantic_vad":
            complete, unknown, incomplete = _PATIENCE["medium" if self.eagerness == "auto" else self.eagerness]
            ends = {"end": unknown, "end_complete": complete, "end_incomplete": incomplete}
        else:
            end = self.silence_duration_ms / 1000
            ends = {"end": end, "end_complete": end, "end_incomplete": end}
        threshold = min(0.99, max(0.01, self.threshold))
        eager = self.type == "semantic_vad" and self.eagerness == "high"
        pause = min(_EAGER_PAUSE if eager else _PAUSE, *ends.values())
        return TurnConfig(threshold=threshold, before=before, pause=pause, **ends)

    def as_dict(self) -> dict[str, Any]:
        names = _SEMANTIC_VAD if self.type == "semantic_vad" else _SERVER_VAD
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A session's settings. Values that the model cannot follow are taken and reported as what is in effect."""

    type: str = "realtime"  # or "transcription"
    model: str = ""
    instructions: str = ""
    modality: str = "audio"  # or "text"
    max_output_tokens: int | str = "inf"
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: str | dict[str, Any] = "auto"
    truncation: Any = "auto"
    include: tuple[str, ...] | None = None
    input_format: Format = PCM16
    transcription: dict[str, Any] | None = None
    turn_detection: TurnDetection | None = field(default_factory=TurnDetection)
    output_format: Format = PCM16
    voice: str = "mini"
    omega: int = 0  # size of the answers' chunks; 0: the model's own
    omegas: tuple[int, int, int] | None = None  # the least, the most and the model's own, where the client may choose

    def as_dict(self) -> dict[str, Any]:
        """The session object, without its id."""
        turns = self.turn_detection
        incoming = {
            "format": self.input_format.as_dict(),
            "noise_reduction": None,
            "transcription": self.transcription,
            "turn_detection": turns.as_dict() if turns else None,
        }
        include = list(self.include) if self.include else None
        if self.type == "transcription":
            return {"type": self.type, "audio": {"input": incoming}, "include": include}
        return {
            "type": self.type,
            "model": self.model,
            "instructions": self.instructions,
            "output_modalities": [self.modality],
            "max_output_tokens": self.max_output_tokens,
            "tools": list(self.tools),
            "tool_choice": self.tool_choice,
            "truncation": self.truncation,
            "tracing": None,
            "prompt": None,
            "include": include,
            "audio": {
                "input": incoming,
                "output": {"format": self.output_format.as_dict(), "voice": self.voice, "speed": 1.0},
            },
            **self._beyond(),
        }

    def _beyond(self) -> dict[str, Any]:
        """What the protocol has no field for."""
        if self.omegas is None:
            return {}
        least, most, own = self.omegas
        return {"duologue": {"omega": {"min": least, "max": most, "value": self.omega or own}}}


def update(settings: Settings, patch: Any, limits: RealtimeLimits, *, spoken: bool, begun: bool = True) -> Settings:
    """The settings after a change that a client wants.

    Args:
        spoken: whether there has been speech of the model's; its voice stays then.
        begun: whether there has been anything at all; the kind of the session stays then.
    Raises:
        ClientError: the change makes no sense or comes too late; nothing is changed.
    """
    top = Fields(patch, "session", _TOP if settings.omegas is None else {*_TOP, "duologue"})
    if top.get("type") is None:
        raise missing("session.type")
    kind = top.choice("type", "", ("realtime", "transcription"))
    if begun and kind != settings.type:
        raise top.refused("type", f"a session of type '{settings.type}' cannot become '{kind}'")
    model = top.text("model", settings.model, longest=200)
    if begun and settings.model and model != settings.model:
        raise top.refused("model", f"the model of a session cannot be changed, and is '{settings.model}'")
    audio = Fields(top.get("audio", {}), "session.audio", ("input", "output"))
    changed = replace(
        settings,
        type=kind,
        model=model,
        truncation=_truncation(top, settings.truncation),
        include=_include(top, settings.include),
        omega=_omega(top, settings),
        **_common(top, settings, limits),
    )
    return _output(_input(changed, audio), audio, spoken=spoken)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a client wants of one response."""

    settings: Settings
    apart: bool = False  # outside the conversation
    input: tuple[Any, ...] | None = None  # items instead of the conversation's
    metadata: dict[str, str] | None = None
    instructions: str | None = None  # those of this response alone


def response(settings: Settings, patch: Any, limits: RealtimeLimits, *, spoken: bool) -> Wanted:
    """What a response is to be like.

    Raises:
        ClientError: it makes no sense.
    """
    top = Fields(patch, "response", _RESPONSE)
    audio = Fields(top.get("audio", {}), "response.audio", ("output",))
    conversation = top.choice("conversation", "auto", ("auto", "none"))
    items = top.objects("input", most=limits.items)
    own = replace(settings, **_common(top, settings, limits))
    return Wanted(
        settings=_output(own, audio, spoken=spoken),
        apart=conversation == "none",
        input=None if items is None else tuple(items),
        metadata=_metadata(top),
        instructions=top.text("instructions", None, longest=limits.instructions),
    )


def _common(top: Fields, settings: Settings, limits: RealtimeLimits) -> dict[str, Any]:
    """What a session and a response have in common."""
    return {
        "instructions": top.text("instructions", settings.instructions, longest=limits.instructions),
        "modality": _modality(top, settings.modality),
        "max_output_tokens": "inf"
        if top.get("max_output_tokens") == "inf"
        else top.number("max_output_tokens", settings.max_output_tokens, 1, 4096, whole=True),
        "tools": _tools(top, settings.tools, limits),
        "tool_choice": _tool_choice(top, settings.tool_choice),
    }


def _modality(top: Fields, default: str) -> str:
    value = top.get("output_modalities", [default])
    if value not in (["audio"], ["text"]):
        raise top.refused("output_modalities", "supported combinations are ['text'] and ['audio']")
    return value[0]


def _tools(top: Fields, default: tuple[dict[str, Any], ...], limits: RealtimeLimits) -> tuple[dict[str, Any], ...]:
    tools = top.objects("tools", most=limits.tools)
    if tools is None:
        return default
    if size(tools) > limits.tools_size:
        raise top.refused("tools", f"expected at most {limits.tools_size} characters, but got {size(tools)}")
    return tuple(_tool(each, f"{top.name('tools')}[{index}]") for index, each in enumerate(tools))


def _tool(tool: dict[str, Any], path: str) -> dict[str, Any]:
    fields = Fields(tool, path, ("type", "name", "description", "parameters", "strict"))
    if tool.get("type") != "function":
        raise fields.refused("type", "the only kind of tool is 'function'")
    if not fields.text("name", "", longest=64):
        raise missing(f"{path}.name")
    fields.text("description", "", longest=16_384)
    of_type(fields.get("parameters", {}), dict, f"{path}.parameters")
    return {name: value for name, value in tool.items() if name != "strict" and value is not None}


def _tool_choice(top: Fields, default: str | dict[str, Any]) -> str | dict[str, Any]:
    value = top.get("tool_choice", default)
    function = isinstance(value, dict) and value.get("type") == "function" and isinstance(value.get("name"), str)
    if not function and (not isinstance(value, str) or value not in ("none", "auto", "required")):
        raise top.refused("tool_choice", "expected 'none', 'auto', 'required' or a function")
    return {"type": "function", "name": value["name"]} if function else value


def _metadata(top: Fields) -> dict[str, str] | None:
    value = top.get("metadata")
    if value is None:
        return None
    of_type(value, dict, top.name("metadata"))
    good = all(isinstance(text, str) and len(text) <= 512 and len(name) <= 64 for name, text in value.items())
    if len(value) > 16 or not good:
        raise top.refused("metadata", "expected at most 16 pairs of strings, names to 64 and values to 512 characters")
    return value


def _truncation(top: Fields, default: Any) -> Any:
    """Checked and reported, as the model's own memory is cut in its own way."""
    value = top.get("truncation", default)
    if not isinstance(value, dict):
        return top.choice("truncation", default, ("auto", "disabled"))
    fields = Fields(value, top.name("truncation"), ("type", "retention_ratio", "token_limits"))
    if fields.choice("type", None, ("retention_ratio",)) is None:
        raise missing(fields.name("type"))
    if fields.number("retention_ratio", None, 0, 1) is None:
        raise missing(fields.name("retention_ratio"))
    limits = Fields(fields.get("token_limits", {}), fields.name("token_limits"), ("post_instructions",))
    limits.number("post_instructions", 0, 0, 1_000_000, whole=True)
    return value


def _include(top: Fields, default: tuple[str, ...] | None) -> tuple[str, ...] | None:
    value = top.get("include")
    if value is None:
        return default
    if any(each != "item.input_audio_transcription.logprobs" for each in of_type(value, list, top.name("include"))):
        raise top.refused("include", "supported values are 'item.input_audio_transcription.logprobs'")
    return tuple(value)


def _omega(top: Fields, settings: Settings) -> int:
    if settings.omegas is None:
        return settings.omega
    least, most, _ = settings.omegas
    fields = Fields(top.get("duologue", {}), "session.duologue", ("omega",))
    return fields.number("omega", settings.omega, least, most, whole=True)


def _input(settings: Settings, audio: Fields) -> Settings:
    fields = Fields(audio.get("input", {}), audio.name("input"), _INPUT)
    transcription, turns = settings.transcription, settings.turn_detection
    if "transcription" in fields:
        transcription = fields.get("transcription")
    if transcription is not None and size(of_type(transcription, dict, fields.name("transcription"))) > 16_384:
        raise fields.refused("transcription", "expected at most 16384 characters")
    if "turn_detection" in fields:
        turns = _turn_detection(fields)
    format = _format(fields, settings.input_format)
    return replace(settings, input_format=format, transcription=transcription, turn_detection=turns)


def _output(settings: Settings, audio: Fields, *, spoken: bool) -> Settings:
    fields = Fields(audio.get("output", {}), audio.name("output"), _OUTPUT)
    fields.number("speed", 1.0, 0.25, 1.5)
    voice = fields.get("voice", settings.voice)
    voice = voice.get("id") if isinstance(voice, dict) else voice
    if not isinstance(voice, str) or len(voice) > 200:
        raise fields.refused("voice", "expected the name of a voice")
    if spoken and voice != settings.voice:
        raise ClientError(
            "Cannot update a conversation's voice if assistant audio is present.",
            code="cannot_update_voice",
            param=fields.name("voice"),
        )
    return replace(settings, output_format=_format(fields, settings.output_format), voice=voice)


def _format(fields: Fields, default: Format) -> Format:
    value = fields.get("format")
    if value is None:
        return default
    own = Fields(value, fields.name("format"), ("type", "rate"))
    format = FORMATS[own.choice("type", PCM16.name, tuple(FORMATS))]
    own.choice("rate", format.rate, (format.rate,))
    return format


def _turn_detection(fields: Fields) -> TurnDetection | None:
    value = fields.get("turn_detection")
    if value is None:
        return None
    path = fields.name("turn_detection")
    kind = Fields(value, path, {*_SERVER_VAD, *_SEMANTIC_VAD}).choice("type", "server_vad", tuple(_KINDS))
    own = Fields(value, path, _KINDS[kind])
    default = TurnDetection()
    return TurnDetection(
        type=kind,
        threshold=own.number("threshold", default.threshold, 0, 1),
        prefix_padding_ms=own.number("prefix_padding_ms", default.prefix_padding_ms, 0, 5_000, whole=True),
        silence_duration_ms=own.number("silence_duration_ms", default.silence_duration_ms, 0, 10_000, whole=True),
        idle_timeout_ms=own.number("idle_timeout_ms", None, 1_000, 600_000, whole=True),
        eagerness=own.choice("eagerness", default.eagerness, ("low", "medium", "high", "auto")),
        create_response=own.flag("create_response", default.create_response),
        interrupt_response=own.flag("interrupt_response", default.interrupt_response),
    )


_KINDS = {"server_vad": _SERVER_VAD, "semantic_vad": _SEMANTIC_VAD}
