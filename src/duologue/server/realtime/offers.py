"""What a caller offers: the request's body and its SDP, read within bounds before any library sees them."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from itertools import pairwise

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from duologue.server.realtime.events import ClientError, Event, read

_LARGEST_BODY = 2**18  # bytes
_LARGEST_SDP = 32_768  # characters
_LARGEST_SESSION = 2**17  # characters
_MOST = {"": 600, "a=rtpmap:": 64, "a=fmtp:": 64, "a=rtcp-fb:": 64, "a=ssrc": 64, "a=extmap:": 64, "a=fingerprint:": 8}
_CANDIDATES = 16  # addresses of the caller that are tried
_DIRECTIONS = ("sendrecv", "sendonly", "recvonly")


@dataclass(frozen=True)
class Offer:
    """An offer that can be answered."""

    sdp: str
    speaks: bool  # whether the caller sends sound
    listens: bool  # whether it wants to hear
    events: bool  # whether it has a data channel
    largest: int  # bytes of a message that it takes there


async def read_body(request: Request) -> tuple[str, Event | None]:
    """The SDP and the session's settings of a request.

    Raises:
        ClientError: there are none, or too much of them.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/sdp":
        return _text(b"".join([piece async for piece in _bounded(request)])), None
    if kind != "multipart/form-data":
        raise ClientError(
            "An offer comes as 'application/sdp', or as 'multipart/form-data' with the parts 'sdp' and 'session'; got "
            f"'{kind[:100]}'.",
            code="unsupported_content_type",
        )
    parser = MultiPartParser(
        request.headers, _bounded(request), max_files=2, max_fields=8, max_part_size=_LARGEST_SESSION
    )
    try:
        form = await parser.parse()
    except (MultiPartException, LookupError, ValueError) as error:
        raise ClientError(f"The form cannot be read: {error}.", code="invalid_form") from error
    try:
        parts = {}
        for name in ("sdp", "session"):
            part = form.get(name)
            parts[name] = await part.read() if isinstance(part, UploadFile) else part
    finally:
        await form.close()
    if not parts["sdp"]:
        raise ClientError("Missing required part: 'sdp'.", code="missing_required_parameter", param="sdp")
    session = parts["session"]
    return _text(parts["sdp"]), read(session, longest=_LARGEST_SESSION) if session else None


async def _bounded(request: Request) -> AsyncGenerator[bytes, None]:
    size = 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > _LARGEST_BODY:
                raise ClientError(f"A request may have at most {_LARGEST_BODY} bytes.", code="request_too_large")
            yield piece
    except ClientDisconnect as error:
        raise ClientError("The request did not come to its end.") from error


def _text(data: str | bytes) -> str:
    try:
        return data if isinstance(data, str) else data.decode()
    except UnicodeDecodeError as error:
        raise _refused("it is not text") from error


def check(sdp: str) -> Offer:
    """What is offered.

    Raises:
        ClientError: nothing that can be answered.
    """
    if len(sdp) > _LARGEST_SDP:
        raise _refused(f"it may have at most {_LARGEST_SDP} characters, got {len(sdp)}")
    lines = sdp.replace("\r\n", "\n").rstrip("\n").split("\n")
    if lines[0] != "v=0":
        raise _refused("it begins with 'v=0'")
    for kind, allowed in _MOST.items():
        if (count := sum(line.startswith(kind) for line in lines)) > allowed:
            raise _refused(f"it may have at most {allowed} lines '{kind}...', got {count}")
    begins = [number for number, line in enumerate(lines) if line.startswith("m=")]
    begins.append(len(lines))
    head = lines[: begins[0]]
    sections = [lines[begin:end] for begin, end in pairwise(begins)]
    audio = [section for section in sections if section[0].startswith("m=audio ")]
    channel = [section for section in sections if section[0].startswith("m=application ")]
    if len(audio) != 1 or len(channel) > 1 or len(sections) != len(audio) + len(channel):
        kinds = ", ".join(section[0][2:].partition(" ")[0][:20] for section in sections[:8]) or "nothing"
        raise _refused(f"need one section of audio, and at most one for a data channel, but nothing else; got {kinds}")
    for section in sections:
        _check_transport(head, section)
    bundled = next((line.split()[1:] for line in head if line.startswith("a=group:BUNDLE")), [])
    names = [_value(section, "mid") for section in sections]
    if (len(sections) > 1 or bundled) and sorted(bundled) != sorted(set(names)):
        raise _refused("audio and the data channel need to share a transport ('a=group:BUNDLE')")
    if not any(re.match(r"a=rtpmap:\d+ opus/48000", line, re.IGNORECASE) for line in audio[0]):
        raise _refused("the audio needs to be Opus ('opus/48000/2')")
    direction = next((name for name in _DIRECTIONS if f"a={name}" in audio[0] or f"a={name}" in head), None)
    if direction is None:
        direction = "inactive" if "a=inactive" in audio[0] else "sendrecv"
    most = _value(channel[0], "max-message-size") if channel else ""
    return Offer(
        sdp="\r\n".join(_with_candidates(lines)) + "\r\n",
        speaks=direction in ("sendrecv", "sendonly"),
        listens=direction in ("sendrecv", "recvonly"),
        events=bool(channel),
        largest=int(most) if most.isdecimal() and len(most) < 12 else 65_536,
    )


def _check_transport(head: list[str], section: list[str]) -> None:
    for name in ("ice-ufrag", "ice-pwd", "fingerprint", "setup"):
        if not (_value(section, name) or _value(head, name)):
            raise _refused(f"'a={name}:' is missing")
    if not _value(section, "mid"):
        raise _refused("'a=mid:' is missing")
    if section[0].startswith("m=audio ") and "a=rtcp-mux" not in section:
        raise _refused("'a=rtcp-mux' is missing")


def _with_candidates(lines: list[str]) -> list[str]:
    """The lines with no more addresses than are tried: of UDP, and none that would have to be asked for.

    They never count as complete: who comes from another address may still connect.
    """
    kept, count = [], 0
    for line in lines:
        if line.startswith("a=candidate:"):
            fields = line.split()
            usable = len(fields) > 7 and fields[2].lower() == "udp" and not fields[4].lower().endswith(".local")
            count += usable
            if not usable or count > _CANDIDATES:
                continue
        if line != "a=end-of-candidates":
            kept.append(line)
    return kept


def _value(lines: list[str], name: str) -> str:
    head = f"a={name}:"
    return next((line[len(head) :].strip() for line in lines if line.startswith(head)), "")


def _refused(why: str) -> ClientError:
    return ClientError(f"The SDP offer cannot be answered: {why}.", code="invalid_offer", param="sdp")
