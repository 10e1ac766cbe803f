"""Events of the Live API: what a client may send, with every field by name, and how an error is told.

The names and fields are those of OpenAI's Live API; the tests hold every event sent against `openai.types.live`.
"""

from __future__ import annotations

from typing import Any

from duologue.server.realtime.events import ClientError, Event, client_id, missing, of_type, server_event
from duologue.server.realtime.fields import Fields

_CONTENT: dict[str, type] = {"content": str}
_REQUIRED: dict[str, dict[str, type]] = {
    "session.start": {"session": dict},
    "session.update": {"session": dict},
    "session.input_audio.append": {"audio": str},
    "session.input_audio.mute": {},
    "session.input_audio.unmute": {},
    "session.instructions.append": _CONTENT,
    "session.thinking.append": _CONTENT,
    "session.commentary.append": _CONTENT,
    "response.item.create": {"item": dict},
    "response.create": {},
    "session.close": {},
}
_NULLABLE = {f"session.{kind}.append": ("delegation_id",) for kind in ("instructions", "thinking", "commentary")}
_ABSENT = (
    "session.output_audio.fixture.play",
    "decision.create",
    "decision.item.create",
    "decision.item.delete",
    "transport.dtmf.send",
)
CLIENT_EVENTS = tuple(_REQUIRED)


def check(event: Event) -> None:
    """That an event is one of the protocol's, with the fields it needs and no others.

    Raises:
        ClientError: it is not.
    """
    kind = event.get("type")
    if kind is None:
        raise missing("type")
    if not isinstance(kind, str) or kind not in _REQUIRED:
        what = "This server does not support" if kind in _ABSENT else "Invalid value:"
        names = ", ".join(f"'{name}'" for name in CLIENT_EVENTS)
        raise ClientError(f"{what} {str(kind)[:100]!r}. Supported values are: {names}.", param="type")
    nullable = _NULLABLE.get(kind, ())
    known = {"type", "event_id", *_REQUIRED[kind], *nullable}
    for name in event:
        if name not in known:
            raise ClientError(f"Unknown parameter: '{name[:100]}'.", code="unknown_parameter", param=name[:100])
    for name, wanted in _REQUIRED[kind].items():
        if event.get(name) is None:
            raise missing(name)
        of_type(event[name], wanted, name)
    for name in nullable:
        if name not in event:
            raise missing(name)
        if event[name] is not None:
            of_type(event[name], str, name)


def answer(kind: str, to: Event | None = None, **fields: Any) -> Event:
    """An event to be sent, with the id of the client's event that it answers."""
    given = client_id(to) if to is not None else None
    return server_event(kind, **fields, **({"client_event_id": given} if given else {}))


def error_event(error: ClientError, to: Event | None = None) -> Event:
    """What tells the client that it was refused."""
    details = {"type": error.kind, "code": error.code, "message": str(error)}
    details |= {"param": error.param} if error.param else {}
    given = client_id(to) if to is not None else None
    return answer("error", to, error={**details, **({"client_event_id": given} if given else {})})


def refused(fields: Fields, name: str, why: str) -> ClientError:
    """What this server does not do."""
    return ClientError(f"Unsupported '{fields.name(name)}': {why}.", code="unsupported_value", param=fields.name(name))
