"""What a client has set for its Live session. Fields that are unknown, wrong or not supported are refused by name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from duologue.server.openai_live.events import CLIENT_EVENTS, refused
from duologue.server.realtime.audio import FORMATS, PCM16, Format
from duologue.server.realtime.events import ClientError, missing
from duologue.server.realtime.fields import Fields, size
from duologue.server.realtime.limits import RealtimeLimits

_TOP = (*("model", "audio", "client", "delegation", "input", "instructions", "safety_identifier", "store", "triggers"),)
_MESSAGE = ("type", "role", "content", "id", "status")
_PARTS = {"developer": ("input_text",), "user": ("input_text",), "assistant": ("text", "output_text")}
_RESPONSES = (
    *("model", "instructions", "max_output_tokens", "parallel_tool_calls", "reasoning", "service_tier", "text"),
    *("tool_choice", "tools"),
)
_MESSAGES = 128
_RATES = {"audio/pcm": (16_000, 24_000), "audio/pcmu": (8_000,), "audio/pcma": (8_000,)}
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
_TIERS = ("auto", "default", "fast_tier_temp_pilot", "flex", "priority", "ultrafast")


@dataclass(frozen=True, kw_only=True)
class Delegation:
    """Who is given what the model does not do itself."""

    type: str = "client"  # or "responses"
    given: bool = False  # whether the client named it; else the model answers everything itself
    acknowledgement_delay_ms: int = 800  # until "one moment" is said
    responses: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"type": self.type, "acknowledgement_delay_ms": self.acknowledgement_delay_ms}
        return {**shown, "responses": self.responses} if self.type == "responses" else shown

    @property
    def functions(self) -> tuple[dict[str, Any], ...]:
        """The client's functions."""
        return tuple(tool for tool in self.responses.get("tools", ()) if tool["type"] == "function")


@dataclass(frozen=True)
class Permissions:
    """What may pass a data channel; None: everything."""

    client: frozenset[str] | None = None
    server: frozenset[tuple[str, str]] | None = None  # an event's type, and that of the event inside it

    def sends(self, event: dict[str, Any]) -> bool:
        inner = event["event"]["type"] if event["type"] == "response.event" else ""
        return self.server is None or (event["type"], inner) in self.server

    def takes(self, kind: Any) -> bool:
        return self.client is None or kind in self.client


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A session's settings."""

    model: str
    instructions: str = ""
    format: Format | None = PCM16  # None: what carries the sound has its own
    voice: Any = "marin"
    delegation: Delegation = field(default_factory=Delegation)
    input: tuple[dict[str, Any], ...] = ()
    client: dict[str, Any] | None = None
    permissions: Permissions = field(default_factory=Permissions)
    safety_identifier: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The session object, without its id."""
        audio: dict[str, Any] = {"output": {"voice": self.voice}}
        if self.format is not None:
            audio["format"] = {"type": self.format.name, "rate": self.format.rate}
        shown = {
            "model": self.model,
            "instructions": self.instructions,
            "audio": audio,
            "delegation": self.delegation.as_dict(),
            "input": list(self.input),
            "store": False,
        }
        more = {"client": self.client, "safety_identifier": self.safety_identifier}
        return {**shown, **{name: value for name, value in more.items() if value is not None}}

    @property
    def turns(self) -> list[tuple[str, str]]:
        """What the model is to know from the beginning: (role, text), instructions first."""
        texts = [(message["role"], message["content"][0]["text"]) for message in self.input]
        system = [self.instructions.strip(), *(text for role, text in texts if role == "developer")]
        together = "\n".join(text for text in system if text)
        return [("system", together)] * bool(together) + [each for each in texts if each[0] != "developer"]


def start(value: Any, limits: RealtimeLimits, *, media: bool) -> Settings:
    """The settings that a session begins with.

    Args:
        media: the sound does not go through events.
    Raises:
        ClientError: they make no sense.
    """
    top = Fields(value, "session", _TOP)
    model = top.text("model", "", longest=200)
    if not model:
        raise missing("session.model")
    audio = Fields(top.get("audio", {}), "session.audio", ("output",) if media else ("format", "output"))
    output = Fields(audio.get("output", {}), "session.audio.output", ("voice",))
    if top.flag("store", False):
        raise refused(top, "store", "this server keeps no sessions for its clients")
    if top.objects("triggers", most=8):
        raise refused(top, "triggers", "this server has no decisions")
    client = top.get("client")
    return Settings(
        model=model,
        instructions=top.text("instructions", "", longest=limits.instructions),
        format=None if media else _format(audio),
        voice=_voice(output),
        delegation=_delegation(top, Delegation(), limits),
        input=_input(top, limits),
        client=client,
        permissions=Permissions() if client is None else _permissions(client),
        safety_identifier=top.text("safety_identifier", None, longest=512),
    )


def update(settings: Settings, value: Any, limits: RealtimeLimits) -> Settings:
    """The settings after a change that a client wants.

    Raises:
        ClientError: it makes no sense; nothing is changed.
    """
    top = Fields(value, "session", _TOP)
    for name in _TOP:
        if name in top and name not in ("delegation", "triggers"):
            raise ClientError(
                f"Cannot update '{top.name(name)}' of a session that has started.",
                code="immutable_parameter",
                param=top.name(name),
            )
    if top.objects("triggers", most=8):
        raise refused(top, "triggers", "this server has no decisions")
    return replace(settings, delegation=_delegation(top, settings.delegation, limits, begun=True))


def _format(audio: Fields) -> Format:
    value = audio.get("format")
    if value is None:
        return PCM16
    fields = Fields(value, "session.audio.format", ("type", "rate"))
    kind = fields.choice("type", None, tuple(_RATES))
    if kind is None:
        raise missing("session.audio.format.type")
    rate = fields.choice("rate", None, _RATES[kind])
    if rate is None:
        raise missing("session.audio.format.rate")
    return replace(FORMATS[kind], rate=rate)


def _voice(output: Fields) -> Any:
    voice = output.get("voice", "marin")
    if isinstance(voice, dict):
        name = Fields(voice, output.name("voice"), ("id",)).text("id", "", longest=200)
        return voice if name else _raise(missing(f"{output.name('voice')}.id"))
    if not isinstance(voice, str) or not 0 < len(voice) <= 200:
        raise output.refused("voice", "expected the name of a voice")
    return voice


def _raise(error: ClientError) -> Any:
    raise error


def _input(top: Fields, limits: RealtimeLimits) -> tuple[dict[str, Any], ...]:
    messages = top.objects("input", most=_MESSAGES) or []
    room = limits.text
    for number, message in enumerate(messages):
        fields = Fields(message, f"session.input[{number}]", _MESSAGE)
        fields.choice("type", "message", ("message",))
        fields.choice("status", "completed", ("completed", "incomplete"))
        fields.text("id", "", longest=200)
        role = fields.choice("role", None, tuple(_PARTS))
        if role is None:
            raise missing(fields.name("role"))
        parts = fields.objects("content", most=16)
        if parts is None or len(parts) != 1:
            raise fields.refused("content", "expected exactly one part, of text")
        part = Fields(parts[0], f"{fields.name('content')}[0]", ("type", "text"))
        part.choice("type", _PARTS[role][0], _PARTS[role])
        text = part.text("text", None, longest=limits.text)
        if text is None:
            raise missing(part.name("text"))
        room -= len(text)
    if room < 0:
        raise top.refused("input", f"expected at most {limits.text} characters in all")
    return tuple(messages)


def _delegation(top: Fields, before: Delegation, limits: RealtimeLimits, *, begun: bool = False) -> Delegation:
    value = top.get("delegation")
    if value is None:
        return before
    path = top.name("delegation")
    own = Fields(value, path, ("type", "acknowledgement_delay_ms", "responses", "decisions"))
    kind = own.choice("type", None, ("client", "responses", "decisions"))
    if kind is None:
        raise missing(f"{path}.type")
    if kind == "decisions" or "decisions" in own:
        raise refused(own, "decisions" if "decisions" in own else "type", "this server has no decisions")
    if begun and kind != before.type:
        raise own.refused("type", f"a session that delegates to '{before.type}' cannot change to '{kind}'")
    delay = own.number("acknowledgement_delay_ms", before.acknowledgement_delay_ms, 0, 600_000, whole=True)
    responses = before.responses
    if kind == "client" and "responses" in own:
        raise ClientError(
            f"Unknown parameter: '{path}.responses'.", code="unknown_parameter", param=f"{path}.responses"
        )
    if kind == "responses":
        given = own.get("responses")
        if given is None and not begun:
            raise missing(f"{path}.responses")
        responses = {**responses, **_responses(given or {}, f"{path}.responses", limits)}
        if not responses.get("model"):
            raise missing(f"{path}.responses.model")
    return Delegation(type=kind, given=True, acknowledgement_delay_ms=delay, responses=responses)


def _responses(value: Any, path: str, limits: RealtimeLimits) -> dict[str, Any]:
    """The settings of the text model, as far as they are given."""
    own = Fields(value, path, _RESPONSES)
    own.text("model", "", longest=200)
    own.text("instructions", "", longest=4 * limits.instructions)
    own.number("max_output_tokens", None, 1, 1_000_000, whole=True)
    own.flag("parallel_tool_calls", True)
    own.choice("service_tier", None, _TIERS)
    reasoning = Fields(own.get("reasoning", {}), f"{path}.reasoning", ("effort", "summary"))
    reasoning.choice("effort", None, _EFFORTS)
    reasoning.choice("summary", None, ("concise", "detailed", "auto"))
    Fields(own.get("text", {}), f"{path}.text", ("verbosity",)).choice("verbosity", None, ("low", "medium", "high"))
    _tools(own, limits)
    choice = own.get("tool_choice", "auto")
    if isinstance(choice, dict):
        if not isinstance(choice.get("type"), str):
            raise missing(f"{path}.tool_choice.type")
    else:
        own.choice("tool_choice", "auto", ("auto", "none", "required"))
    return {name: value for name, value in value.items() if value is not None}


def _tools(own: Fields, limits: RealtimeLimits) -> None:
    tools = own.objects("tools", most=limits.tools) or []
    for number, tool in enumerate(tools):
        path = f"{own.name('tools')}[{number}]"
        kind = tool.get("type")
        if not isinstance(kind, str):
            raise missing(f"{path}.type")
        if kind != "function":
            raise refused(Fields(tool, path, tuple(tool)), "type", f"this server calls functions, not {kind[:60]!r}")
        function = Fields(tool, path, ("type", "name", "description", "parameters", "strict"))
        if not function.text("name", "", longest=128):
            raise missing(f"{path}.name")
        function.text("description", "", longest=limits.text)
        function.flag("strict", False)
        parameters = function.get("parameters")
        if parameters is not None and not isinstance(parameters, dict):
            raise function.refused("parameters", "expected a JSON schema, which is an object")
    if size(tools) > limits.tools_size:
        raise own.refused("tools", f"expected at most {limits.tools_size} characters")


def _permissions(value: Any) -> Permissions:
    fields = Fields(value, "session.client", ("data_channel",))
    channel = fields.get("data_channel")
    if channel is None:
        raise missing("session.client.data_channel")
    own = Fields(channel, "session.client.data_channel", ("allowed_client_events", "allowed_server_events"))
    client, server = own.get("allowed_client_events", "all"), own.get("allowed_server_events", "all")
    taken = sent = None
    if client != "all":
        if not isinstance(client, list) or any(name not in CLIENT_EVENTS for name in client):
            raise own.refused("allowed_client_events", "expected 'all', or types of client events")
        taken = frozenset(client)
    if server != "all":
        selectors = own.objects("allowed_server_events", most=64) or []
        for number, each in enumerate(selectors):
            selector = Fields(each, f"{own.name('allowed_server_events')}[{number}]", ("type", "response_event"))
            kind, inner = selector.text("type", "", longest=100), selector.text("response_event", "", longest=100)
            if not kind:
                raise missing(selector.name("type"))
            if bool(inner) != (kind == "response.event"):
                raise selector.refused("response_event", "it goes with 'response.event', and with that alone")
        sent = frozenset((each["type"], each.get("response_event", "")) for each in selectors)
    return Permissions(taken, sent)
