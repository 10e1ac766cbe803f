"""Events as they come from strangers and as they go out: JSON objects with a `type`.

The names and fields are those of the OpenAI Realtime API; the tests hold every event sent against the `openai` package.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from typing import Any

from duologue.errors import ServerError
from duologue.server.bodies import strict_json

Event = dict[str, Any]
MISSING_PARAMETER = "missing_required_parameter"


class ClientError(ServerError):
    """A client event that cannot be followed. The session goes on as if it had not come."""

    def __init__(self, message: str, *, code: str = "invalid_value", param: str | None = None, kind: str = ""):
        super().__init__(message)
        self.code, self.param, self.kind = code, param, kind or "invalid_request_error"
        self.event_id: str | None = None


_REQUIRED: dict[str, dict[str, type]] = {
    "session.update": {"session": dict},
    "input_audio_buffer.append": {"audio": str},
    "input_audio_buffer.commit": {},
    "input_audio_buffer.clear": {},
    "output_audio_buffer.clear": {},
    "conversation.item.create": {"item": dict},
    "conversation.item.retrieve": {"item_id": str},
    "conversation.item.truncate": {"item_id": str, "content_index": int, "audio_end_ms": int},
    "conversation.item.delete": {"item_id": str},
    "response.create": {},
    "response.cancel": {},
}
_OPTIONAL: dict[str, dict[str, type]] = {
    "conversation.item.create": {"previous_item_id": str},
    "response.create": {"response": dict},
    "response.cancel": {"response_id": str},
}
CLIENT_EVENTS = tuple(_REQUIRED)
_TYPES = {dict: "an object", str: "a string", int: "an integer", list: "an array", bool: "a boolean"}


def read(raw: str | bytes, *, longest: int) -> Event:
    """A client event from its JSON text.

    Raises:
        ClientError: it is too long, not JSON, or not an object.
    """
    if len(raw) > longest:
        raise ClientError(f"An event may have at most {longest} characters, got {len(raw)}.", code="event_too_large")
    try:
        event = strict_json(raw)
    except ValueError as error:
        raise ClientError("The event is not valid JSON.", code="invalid_json") from error
    if not isinstance(event, dict):
        raise ClientError("An event must be a JSON object.", code="invalid_type")
    return event


def check(event: Event) -> None:
    """That the event is one of the protocol's, with the fields it needs.

    Raises:
        ClientError: it is not.
    """
    kind = event.get("type")
    if kind is None:
        raise missing("type")
    if not isinstance(kind, str) or kind not in _REQUIRED:
        names = ", ".join(f"'{name}'" for name in CLIENT_EVENTS)
        raise ClientError(f"Invalid value: {_short(kind)}. Supported values are: {names}.", param="type")
    for name, wanted in _REQUIRED[kind].items():
        if event.get(name) is None:
            raise missing(name)
        of_type(event[name], wanted, name)
    for name, wanted in _OPTIONAL.get(kind, {}).items():
        if event.get(name) is not None:
            of_type(event[name], wanted, name)


def of_type(value: Any, wanted: type, param: str) -> Any:
    """The value, where it is of that type.

    Raises:
        ClientError: it is not.
    """
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise ClientError(
            f"Invalid type for '{param}': expected {_TYPES[wanted]}, but got {_short(value)} instead.",
            code="invalid_type",
            param=param,
        )
    return value


def client_id(event: Any) -> str | None:
    """The id that the client gave its event."""
    found = event.get("event_id") if isinstance(event, dict) else None
    return found[:512] if isinstance(found, str) else None


def decode_base64(text: str, *, most: int, param: str) -> bytes:
    """Bytes from base64.

    Raises:
        ClientError: it is not base64, or more than so many bytes.
    """
    if len(text) > most // 3 * 4 + 4:
        raise ClientError(f"At most {most} bytes of audio may come at once.", code="invalid_value", param=param)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ClientError(
            f"Invalid '{param}'. Expected base64-encoded audio bytes but got an invalid value.", param=param
        ) from error


def encode_base64(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode("ascii")


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


def server_event(kind: str, **fields: Any) -> Event:
    """An event to be sent."""
    return {"type": kind, "event_id": new_id("event"), **fields}


def missing(param: str) -> ClientError:
    return ClientError(f"Missing required parameter: '{param}'.", code=MISSING_PARAMETER, param=param)


def error_event(error: ClientError) -> Event:
    """What tells the client that it was refused."""
    details = {"type": error.kind, "code": error.code, "message": str(error), "param": error.param}
    return server_event("error", error={**details, "event_id": error.event_id})


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:60]}..."
