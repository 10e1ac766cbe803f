"""The older names of the protocol, for clients that ask for them with `OpenAI-Beta: realtime=v1`.

Inside, everything has its new name; here it is translated on the way in and on the way out.
"""

from __future__ import annotations

from typing import Any

from duologue.server.realtime.events import Event

_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
_OLD_FORMATS = {new: old for old, new in _FORMATS.items()}
_PARTS = {"text": "output_text", "audio": "output_audio"}
_OLD_PARTS = {new: old for old, new in _PARTS.items()}
_OLD_EVENTS = {
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "conversation.item.added": "conversation.item.created",
}
_NEWER = ("conversation.item.done", "input_audio_buffer.timeout_triggered")  # unknown to such clients
_NO_MORE = ("temperature", "client_secret", "input_audio_noise_reduction", "modalities", "max_response_output_tokens")
_MOVED = ("input_audio_format", "input_audio_transcription", "turn_detection", "output_audio_format", "voice", "speed")


def incoming(event: Event) -> Event:
    """A client's event with the new names. What is not understood stays as it is, to be refused by its name."""
    kind = event.get("type")
    if kind == "transcription_session.update":
        return {**event, "type": "session.update", "session": _new_session(event.get("session"), "transcription")}
    if kind == "session.update":
        return {**event, "session": _new_session(event.get("session"), "realtime")}
    if kind == "conversation.item.create":
        return {**event, "item": _new_item(event.get("item"))}
    if kind == "response.create" and isinstance(event.get("response"), dict):
        response = _new_session(event["response"], None)
        if isinstance(response.get("input"), list):
            response["input"] = [_new_item(item) for item in response["input"]]
        return {**event, "response": response}
    return event


def outgoing(event: Event) -> Event | None:
    """A server's event with the old names; None where there was no such event."""
    kind = event["type"]
    if kind in _NEWER:
        return None
    event = {**event, "type": _OLD_EVENTS.get(kind, kind)}
    if "session" in event:
        if event["session"]["type"] == "transcription":
            event["type"] = kind.replace("session", "transcription_session")
        event["session"] = _old_session(event["session"])
    if "response" in event:
        event["response"] = _old_response(event["response"])
    if "item" in event:
        event["item"] = _old_item(event["item"])
    return event


def _new_session(session: Any, kind: str | None) -> Any:
    """`kind` None: the settings of a response."""
    if not isinstance(session, dict):
        return session
    new = {name: value for name, value in session.items() if name not in (*_NO_MORE, *_MOVED)}
    if kind is not None:
        new["type"] = kind
    modalities = session.get("modalities")
    if modalities is not None:
        new["output_modalities"] = ["audio"] if isinstance(modalities, list) and "audio" in modalities else modalities
    if session.get("max_response_output_tokens") is not None:
        new["max_output_tokens"] = session["max_response_output_tokens"]
    audio = {"input": _new_input(session), "output": _new_output(session)}
    given = {name: value for name, value in audio.items() if value}
    if given:
        new["audio"] = given
    return new


def _new_input(session: dict[str, Any]) -> dict[str, Any]:
    names = {"input_audio_transcription": "transcription", "turn_detection": "turn_detection"}
    new = {names[name]: session[name] for name in names if name in session}
    if session.get("input_audio_format") is not None:
        new["format"] = _format(session["input_audio_format"])
    return new


def _new_output(session: dict[str, Any]) -> dict[str, Any]:
    new = {name: session[name] for name in ("voice", "speed") if session.get(name) is not None}
    if session.get("output_audio_format") is not None:
        new["format"] = _format(session["output_audio_format"])
    return new


def _format(old: Any) -> Any:
    return {"type": _FORMATS.get(old, old)} if isinstance(old, str) else old


def _new_item(item: Any) -> Any:
    return _with_parts(item, _PARTS) if isinstance(item, dict) and item.get("role") == "assistant" else item


def _with_parts(item: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    content = item.get("content")
    if not isinstance(content, list):
        return item
    parts = [
        {**part, "type": names[part["type"]]} if isinstance(part, dict) and part.get("type") in tuple(names) else part
        for part in content
    ]
    return {**item, "content": parts}


def _old_item(item: dict[str, Any]) -> dict[str, Any]:
    return _with_parts(item, _OLD_PARTS)


def _old_session(session: dict[str, Any]) -> dict[str, Any]:
    audio = session["audio"]
    old = {name: value for name, value in session.items() if name in ("id", "object", "expires_at", "include")}
    old["input_audio_format"] = _OLD_FORMATS[audio["input"]["format"]["type"]]
    old["input_audio_transcription"] = audio["input"]["transcription"]
    old["turn_detection"] = audio["input"]["turn_detection"]
    if session["type"] == "transcription":
        return {**old, "client_secret": {"value": "", "expires_at": 0}}  # there is none, but such clients want one
    old |= {name: session[name] for name in ("model", "instructions", "tools", "tool_choice")}
    old |= {
        "modalities": _modalities(session["output_modalities"]),
        "voice": audio["output"]["voice"],
        "speed": audio["output"]["speed"],
        "output_audio_format": _OLD_FORMATS[audio["output"]["format"]["type"]],
        "max_response_output_tokens": session["max_output_tokens"],
        "temperature": 0.8,
    }
    return old


def _old_response(response: dict[str, Any]) -> dict[str, Any]:
    output = response["audio"]["output"]
    old = {name: value for name, value in response.items() if name not in ("audio", "output_modalities")}
    old["modalities"] = _modalities(response["output_modalities"])
    old["voice"], old["output_audio_format"] = output["voice"], _OLD_FORMATS[output["format"]["type"]]
    old["output"] = [_old_item(item) for item in response["output"]]
    return old


def _modalities(new: list[str]) -> list[str]:
    return ["text", "audio"] if new == ["audio"] else ["text"]
