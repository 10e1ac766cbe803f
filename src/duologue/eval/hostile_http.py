"""Malformed bodies of plain HTTP: each gets a status of 4xx and an error that a client of OpenAI can read."""

from __future__ import annotations

import base64
import copy
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from duologue.eval.hostile import JUNK, NUMBERS, Wrong, dumped, noise, other_type, spoiled
from duologue.eval.wire import ask, request

JSON = {"Content-Type": "application/json"}
CLIENT = tuple(range(400, 432))  # statuses that blame the client
_TYPES = (
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "application/sdp",
    "",
    "\xff",
    'a/b; c="',
)


@dataclass(frozen=True)
class Case:
    """A request, in the pieces in which it is sent.

    Args:
        shaped: whether the answer comes from one of the endpoints, whose errors have a shape.
        end: nothing comes after it, and the server is told.
        silent: the connection may also be closed without an answer.
    """

    name: str
    raw: tuple[bytes, ...]
    statuses: tuple[int, ...] = CLIENT
    shaped: bool = True
    end: bool = False
    silent: bool = False


def some_body(chance: random.Random) -> Case:
    """One draw."""
    return chance.choices(_MAKERS, _WEIGHTS)[0](chance)


async def check(address: str, case: Case) -> Wrong | None:
    """Sends it."""
    answer = await ask(address, *case.raw, within=20, end=case.end)
    wanted = f"a status of {case.statuses[0]}..{case.statuses[-1]}" + ", as an error that can be read" * case.shaped
    if answer.status == 0 and case.silent:
        return None
    if answer.status not in case.statuses:
        got = {0: "closed without an answer", -1: "no answer"}.get(
            answer.status, f"{answer.status} {answer.body[:200]!r}"
        )
        return Wrong("http", case.name, wanted, got)
    if case.shaped and answer.status >= 400 and (answer.error is None or not answer.error.get("type")):
        return Wrong("http", case.name, wanted, f"{answer.status} {answer.body[:200]!r}")
    return None


# -- bodies of JSON ---------------------------------------------------------------------------------------------------

SPEECH, CHAT, SECRETS, WRITTEN = (
    "/v1/audio/speech",
    "/v1/chat/completions",
    "/v1/realtime/client_secrets",
    "/v1/audio/transcriptions",
)
_USER = {"role": "user", "content": "Hi"}
VALID: dict[str, dict[str, Any]] = {
    SPEECH: {"input": "x", "voice": "mini", "response_format": "wav"},
    CHAT: {"messages": [_USER], "modalities": ["text", "audio"], "audio": {"voice": "mini", "format": "wav"}},
    SECRETS: {"expires_after": {"anchor": "created_at", "seconds": 60}, "session": {"type": "realtime"}},
}
_NUMBERS = tuple(number for number in NUMBERS if number not in (0.5,))


def _part(kind: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": kind, **fields}]}]


def _sound(data: Any) -> list[dict[str, Any]]:
    return _part("input_audio", input_audio={"data": data, "format": "wav"})


def _sounds(*found: Any) -> list[Any]:
    return [_sound(data) for data in found]


def _texts(*found: Any) -> list[Any]:
    return [_part("text", text=text) for text in found]


def _roles(*found: Any) -> list[Any]:
    return [[{"role": role, "content": "x"}] for role in found]


def _contents(*found: Any) -> list[Any]:
    return [[{**_USER, "content": content}] for content in found]


_WRONG: dict[str, list[tuple[str, list[Any]]]] = {
    SPEECH: [
        ("input", [..., 5, [], {}, True, "", "  \n", "x" * 5_000, "\ud800", "a\udfffb"]),
        ("response_format", ["aac", "", 5, [], {}, True, ["wav"], {"wav": 1}, "wav "]),
        ("speed", [0, -1, 2, "1", [], {}, *_NUMBERS]),
    ],
    CHAT: [
        ("messages", [..., 5, "x", {}, [], [5], [[]], [{}], ["x"], [_USER] * 65, [{"role": "user"}]]),
        ("messages", _roles(5, ["user"], {}, "robot", "assistant", "")),
        ("messages", _contents(5, {}, [], [5], [[]], [{}], True, "x" * 5_000, "\ud800")),
        ("messages", [_part(kind) for kind in ("image_url", "text", "input_audio", "", "file")]),
        ("messages", _texts(5, [], {}, "x" * 5_000, "\udc00")),
        ("messages", _sounds("?", "AAA", "AAAA", "UklGRg==", 5, [], "\u00e4", "=" * 9)),
        ("modalities", [["video"], 5, "audio", {"a": 1}, [[]], [{}], [5], True]),
        ("audio", [5, "x", [1], True, {"format": "aac"}, {"format": 5}, {"format": []}, {"format": {}}]),
        ("n", [0, 2, "1", [], 10**400]),
        ("tools", [5, [{}], "x", {}]),
    ],
    SECRETS: [
        ("expires_after", [5, "x", [], {"anchor": "now"}, {"x": 1}]),
        ("expires_after", [{"seconds": number} for number in (*_NUMBERS, 9, 7_201, 10.5, True, "60")]),
        ("session", [5, "x", [], {}, {"type": "x"}, {"type": "realtime", "x": 1}, {"type": "realtime", "audio": 5}]),
        ("x", [1]),
    ],
}  # fmt: skip


def _json(chance: random.Random) -> Case:
    """A field that is missing, of the wrong type or out of its range."""
    path = chance.choice(list(_WRONG))
    field, values = chance.choice(_WRONG[path])
    value = chance.choice(values)
    data = copy.deepcopy(VALID[path])
    data.pop(field, None)
    if value is not ...:
        data[field] = value
    return Case(f"{path}: {field}", (request("POST", path, dumped(data).encode(), headers=JSON),))


def _no_json(chance: random.Random) -> Case:
    path = chance.choice(list(VALID))
    name, raw = spoiled(chance, dumped(VALID[path]))
    while path == SECRETS and not raw.strip():  # may be left out there
        name, raw = spoiled(chance, dumped(VALID[path]))
    body = chance.choice([raw.encode(), raw.encode(), noise(chance, 1, 500) + b"\xff", b"[]", b"5", b'"x"', b"null"])
    body = b"\xff" if body.startswith(b"\xef\xbb\xbf") else body
    return Case(f"{path}: {name}", (request("POST", path, body, headers=JSON),))


def _secrets_json(chance: random.Random) -> Case:
    """What only a strict reader of JSON refuses."""
    rest = chance.choice(['"x": NaN', '"x": 1e999', '"x": "\\ud800"', '"expires_after": {"seconds": Infinity}'])
    return Case(f"{SECRETS}: {rest}", (request("POST", SECRETS, b"{" + rest.encode() + b"}", headers=JSON),))


# -- forms ------------------------------------------------------------------------------------------------------------


def wav(
    rate: int = 16_000, channels: int = 1, bits: int = 16, data: bytes = bytes(3_200), *, size: int | None = None
) -> bytes:
    """A WAV file that says of itself what it is told."""
    width = channels * bits // 8
    head = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, 1, channels & 0xFFFF, rate, rate * width & 0xFFFFFFFF, width & 0xFFFF, bits
    )
    length = len(data) if size is None else size
    body = b"WAVE" + head + struct.pack("<4sI", b"data", length) + data
    return b"RIFF" + struct.pack("<I", min(len(body), 2**32 - 1)) + body


def form(parts: list[bytes], *, boundary: str = "limit") -> bytes:
    mark = f"--{boundary}".encode()
    return b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"


def part(name: str, value: bytes, *, file: str | None = None) -> bytes:
    named = f'; filename="{file}"' if file is not None else ""
    return f'Content-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + value


def _form(chance: random.Random) -> Case:
    """Sound that is none, and forms that are none."""
    good = wav()
    sounds: dict[str, bytes] = {
        "nothing": b"",
        "noise": noise(chance, 1, 4_000),
        "cut off": good[: chance.randrange(43)],
        "no rate": wav(rate=0),
        "no channels": wav(channels=0),
        "no bits": wav(bits=0),
        "Ogg that is none": b"OggS" + noise(chance, 0, 300),
        "FLAC that is none": b"fLaC" + noise(chance, 0, 300),
        "MP3 that is none": b"ID3\x04" + noise(chance, 0, 9),
        "an hour": wav(rate=1, data=bytes(2 * 4_000)),
    }
    forms: dict[str, bytes] = {
        "no file": form([part("model", b"mini")]),
        "a text for a file": form([part("file", good)]),
        "two files": form([part("file", good, file="a.wav"), part("file", good, file="b.wav")]),
        "no parts": form([]),
        "no end": form([part("file", good, file="a.wav")])[: chance.randrange(10, 120)],
        "parts without a head": form([b"x", b"\r\n\r\n"]),
        "many fields": form([part(f"f{n}", b"x") for n in range(40)]),
        "another boundary": form([part("file", good, file="a.wav")], boundary="other"),
        "an unknown format": form([part("file", good, file="a.wav"), part("response_format", b"srt")]),
        "a file for a format": form([part("file", good, file="a.wav"), part("response_format", b"json", file="x")]),
        "noise": noise(chance, 1, 2_000),
        "": b"",
    }
    kind = chance.choice(
        ["multipart/form-data; boundary=limit"] * 12
        + ["multipart/form-data", "multipart/form-data; boundary=", *_TYPES]
    )
    if chance.random() < 0.5 and "=limit" in kind:
        name = chance.choice(list(sounds))
        body = form([part("file", sounds[name], file="a.wav")])
    else:
        name = chance.choice(list(forms))
        body = forms[name] if "=limit" in kind else form([part("file", good, file="a.wav")])
    return Case(f"{WRITTEN}: {name} ({kind!r})", (request("POST", WRITTEN, body, headers={"Content-Type": kind}),))


def _sound_in_chat(chance: random.Random) -> Case:
    data = chance.choice([wav(rate=0), wav(channels=0), noise(chance, 1, 900), b"RIFF", wav(rate=1, data=bytes(9_000))])
    body = dumped({"messages": _sound(base64.b64encode(data).decode())}).encode()
    return Case(f"{CHAT}: sound that is none", (request("POST", CHAT, body, headers=JSON),))


def _type(chance: random.Random) -> Case:
    """Bodies under another name: the form is wanted as one, JSON is read whatever it is called."""
    kind = chance.choice(_TYPES)
    return Case(f"{WRITTEN} as {kind!r}", (request("POST", WRITTEN, wav(), headers={"Content-Type": kind}),))


def _strange(chance: random.Random) -> Case:
    """Something of the wrong type for one of the fields, whatever it is."""
    path = chance.choice(list(VALID))
    field = {SPEECH: "input", CHAT: "messages", SECRETS: "session"}[path]
    value = other_type(chance, {"input": "text", "messages": "array", "session": "object"}[field])
    data = {**VALID[path], field: value, chance.choice(JUNK): chance.choice(JUNK)}
    return Case(f"{path}: {field} of another type", (request("POST", path, dumped(data).encode(), headers=JSON),))


_MAKERS: list[Callable[[random.Random], Case]] = [
    _json,
    _no_json,
    _secrets_json,
    _form,
    _sound_in_chat,
    _type,
    _strange,
]
_WEIGHTS = [30, 12, 3, 20, 4, 2, 4]
