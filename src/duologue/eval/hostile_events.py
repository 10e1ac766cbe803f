"""Malformed events of the Realtime API, drawn from a grammar: valid ones with something wrong, and the right error.

What is right comes from the protocol (docs/protocols_realtime.md), not from the server: a field that is missing, of the
wrong type, out of its range or unknown; what is no JSON; what there is not; what does not fit to what was before.
"""

from __future__ import annotations

import base64
import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from duologue.eval.hostile import JUNK, dumped, nested, noise, other_type, spoiled
from duologue.eval.hostile_fields import FIELDS, ITEM, OLD_FIELDS, OLD_VALID, SOUND, VALID, Event

TYPE = ("invalid_type", "invalid_value")
MISSING = ("missing_required_parameter",)
VALUE = ("invalid_value",)
NO_JSON = ("invalid_json",)


@dataclass(frozen=True)
class Case:
    """What is sent, one event after the other, of which the last is malformed.

    Args:
        codes: of which the error has one; none: it is a valid event, and `answer` comes.
        id: the error names this event.
        after: what brings the session back to where it was.
    """

    name: str
    raw: tuple[str | bytes, ...]
    codes: tuple[str, ...]
    id: str | None = None
    answer: str = ""
    after: str = ""


_TYPES_OF = {"choice": ("text", "number", "object"), "number": ("number",), "base64": ("text",)}  # not certainly wrong
_SERVERS = ("session.created", "response.done", "error", "input_audio_buffer.committed", "rate_limits.updated")
_NAMES = ("x", "__proto__", "", "Type", "sessions", "a" * 500)
_LARGEST_MESSAGE = 250_000  # bytes that a data channel takes, and no more
_NO_ITEM = ("item_not_found", "item_retrieve_invalid_item_id", "item_delete_invalid_item_id")


@dataclass(frozen=True)
class Draw:
    """One draw of a case.

    Args:
        number: the event's id.
        old: in the names of the beta.
        webrtc: for a data channel, which has its own limit, and a buffer of output audio.
    """

    chance: random.Random
    number: str
    old: bool = False
    webrtc: bool = False

    def some_event(self) -> tuple[str, Event]:
        """A valid event, and its type."""
        valid = OLD_VALID if self.old else VALID
        kind = self.chance.choice(list(valid))
        return kind, {"type": kind, "event_id": self.number, **copy.deepcopy(valid[kind])}

    def event(self, kind: str, **fields: Any) -> str:
        return dumped({"type": kind, "event_id": self.number, **fields})


def cases(chance: random.Random, *, old: bool = False, webrtc: bool = False) -> Iterator[Case]:
    """Cases without end. Arguments as of `Draw`."""
    number = 0
    while True:
        number += 1
        made = chance.choices(_MAKERS, _WEIGHTS)[0](Draw(chance, f"bad_{number}", old=old, webrtc=webrtc))
        if not webrtc or max(map(len, made.raw)) < _LARGEST_MESSAGE:
            yield made


def put(event: Event, path: str, value: Any) -> None:
    """Sets a field deep inside; `...` takes it away."""
    *way, last = path.split(".")
    for name in way:
        event = event.setdefault(name, {})
    if value is ...:
        event.pop(last, None)
    else:
        event[last] = value


def _field(draw: Draw) -> Case:
    """A field that is missing, of the wrong type, or out of its range."""
    chance = draw.chance
    kind, event = draw.some_event()
    field = chance.choice((OLD_FIELDS if draw.old else FIELDS)[kind])
    way = chance.choice(["type"] + ["missing"] * field.required + ["range"] * 2 * bool(field.wrong))
    if way == "missing":
        put(event, field.path, ...)
        codes: tuple[str, ...] = MISSING
    elif way == "type":
        voice = field.path.endswith("voice")
        put(event, field.path, [1] if voice else other_type(chance, *_TYPES_OF.get(field.kind, (field.kind,))))
        codes = TYPE
    else:
        put(event, field.path, chance.choice(field.wrong))
        codes = (*TYPE, *MISSING, *_NO_ITEM)
    return Case(f"{kind}: {field.path}: {way}", (dumped(event),), codes, draw.number)


def _unknown_field(draw: Draw) -> Case:
    kind, path = draw.chance.choice(
        [
            *(("session.update", path) for path in ("session", "session.audio.input", "session.audio.output.format")),
            *(("conversation.item.create", path) for path in ("item",)),
            *(("response.create", path) for path in ("response",)),
        ]
    )
    if draw.old and path.startswith("session"):
        path = "session"
    event = {"type": kind, "event_id": draw.number, **copy.deepcopy((OLD_VALID if draw.old else VALID)[kind])}
    put(event, f"{path}.{draw.chance.choice(_NAMES)}", draw.chance.choice([1, None, {}]))
    return Case(f"{kind}: an unknown field", (dumped(event),), ("unknown_parameter",), draw.number)


def _text(draw: Draw) -> Case:
    """What is no JSON."""
    name, raw = spoiled(draw.chance, dumped(draw.some_event()[1]))
    coded = draw.chance.random() < 0.2 and not raw.startswith("\ufeff")
    return Case(name, (raw.encode() if coded else raw,), NO_JSON)


def _binary(draw: Draw) -> Case:
    """Where text is wanted."""
    event = dumped(draw.some_event()[1]).encode()
    place = draw.chance.randrange(len(event))
    broken = event[:place] + b"\xc3\x28" + event[place:]
    return Case("binary", (draw.chance.choice([b"\xff" + noise(draw.chance, 0, 400), broken, bytes(9)]),), NO_JSON)


def _no_object(draw: Draw) -> Case:
    found = ["[]", "5", '"x"', "null", "true", "-0.0", '[{"type": "response.cancel"}]', nested(30, array=True)]
    return Case("no object", (draw.chance.choice(found),), ("invalid_type",))


def _unknown_type(draw: Draw) -> Case:
    other: list[Any] = ["session", "response.create ", "RESPONSE.CREATE", 5, True, ["response.create"], {}, 10**400]
    return Case("an unknown type", (draw.event(draw.chance.choice([*JUNK, *_SERVERS, *other])),), TYPE, draw.number)


def _no_type(draw: Draw) -> Case:
    _, event = draw.some_event()
    event["type"] = None
    if draw.chance.random() < 0.5:
        del event["type"]
    return Case("no type", (dumped(event),), MISSING, draw.number)


def _strange_id(draw: Draw) -> Case:
    strange: Any = draw.chance.choice([5, None, {}, [], True, "x" * 2_000, 10**400])
    shown = strange[:512] if isinstance(strange, str) else None
    return Case("a strange event_id", (dumped({"type": "no.such", "event_id": strange}),), TYPE, shown)


def _unknown_item(draw: Draw) -> Case:
    """What there is not."""
    unknown = draw.chance.choice(["item_none", "root", "null", "x" * 500, "\u0000", "item_0 "])
    output = {"type": "function_call_output", "call_id": "none", "output": "1"}
    refers = {"input": [{"type": "item_reference", "id": unknown}]}
    where: dict[str, Any] = {"item_id": unknown, "content_index": 0, "audio_end_ms": 2**70}
    found: list[tuple[str, dict[str, Any], str]] = [
        ("response.cancel", {}, "response_cancel_not_active"),
        ("response.cancel", {"response_id": unknown}, "response_cancel_not_active"),
        ("conversation.item.retrieve", {"item_id": unknown}, "item_retrieve_invalid_item_id"),
        ("conversation.item.delete", {"item_id": unknown}, "item_delete_invalid_item_id"),
        ("conversation.item.truncate", where, "item_truncate_invalid_item_id"),
        ("conversation.item.create", {"item": ITEM, "previous_item_id": "none"}, "invalid_previous_item_id"),
        ("conversation.item.create", {"item": output}, "invalid_tool_call_id"),
        ("response.create", {"response": refers}, "item_not_found"),
    ]
    kind, fields, code = draw.chance.choice(found)
    return Case(f"{kind} of what there is not", (draw.event(kind, **fields),), (code,), draw.number)


def _order(draw: Draw) -> Case:
    """What does not fit to what was before."""
    own = f"mine_{draw.number}"
    create = dumped({"type": "conversation.item.create", "item": {**ITEM, "id": own}})
    respond = dumped({"type": "response.create", "response": {"instructions": "Go on."}})
    again = draw.event("conversation.item.create", item={**ITEM, "id": own})
    place = {"content_index": draw.chance.choice([0, 5, -1, 2**70]), "audio_end_ms": draw.chance.choice([0, -1, 2**70])}
    cut = draw.event("conversation.item.truncate", item_id=own, **place)
    cancel = dumped({"type": "response.cancel"})
    other = "transcription_session.update" if draw.old else "session.update"
    session = draw.event(other, session={} if draw.old else {"type": "transcription"})
    found = [
        Case("an item twice", (create, again), ("item_create_duplicate_item_id",)),
        Case("truncating a question", (create, cut), ("unsupported_content_type", *VALUE)),
        Case("two responses", (respond, respond), ("conversation_already_has_active_response",), after=cancel),
        Case("another kind of session", (create, session), VALUE),
    ]
    if not draw.webrtc:
        found.append(Case("no output buffer", (draw.event("output_audio_buffer.clear"),), ("unsupported_event",)))
    return draw.chance.choice(found)


def _sound(draw: Draw) -> Case:
    """Sound that cannot be taken."""
    kinds = {
        "half a sample": ("user", "input_audio", "AAAA"),
        "the model's sound": ("assistant", "output_audio", SOUND),
    }
    if not draw.webrtc:
        kinds["no base64"] = ("user", "input_audio", draw.chance.choice(["%", "AAA", "A" * 5]))
    name = draw.chance.choice(list(kinds))
    role, part, audio = kinds[name]
    item = {"type": "message", "role": role, "content": [{"type": part, "audio": audio}]}
    return Case(name, (draw.event("conversation.item.create", item=item),), TYPE, draw.number)


def _commit(draw: Draw) -> Case:
    """Nothing to commit, or less than a tenth of a second."""
    clear = dumped({"type": "input_audio_buffer.clear"})
    little = dumped({"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(2_000)).decode()})
    before = (clear, little) if draw.chance.random() < 0.5 and not draw.webrtc else (clear,)
    commit = draw.event("input_audio_buffer.commit")
    return Case("committing nothing", (*before, commit), ("input_audio_buffer_commit_empty",), draw.number)


def _large(draw: Draw) -> Case:
    """More than there may be of it."""
    text = [{"type": "input_text", "text": "x" * draw.chance.choice([33_000, 200_000])}]
    content = draw.chance.choice([text, [{"type": "input_text", "text": "x"}] * 70])
    item = {"type": "message", "role": "user", "content": content}
    if not draw.webrtc and draw.chance.random() < 0.1:  # more than a minute
        sound = base64.b64encode(bytes(2 * 24_000 * 61)).decode()
        item["content"] = [{"type": "input_audio", "audio": sound}]
    return Case("too much", (draw.event("conversation.item.create", item=item),), VALUE, draw.number)


def _fine(draw: Draw) -> Case:
    """A valid event: the session lives."""
    added = "conversation.item.created" if draw.old else "conversation.item.added"
    session = {"instructions": "Be kind."} if draw.old else {"type": "realtime", "instructions": "Be kind."}
    found: list[tuple[str, str, dict[str, Any]]] = [
        ("conversation.item.create", added, {"item": ITEM}),
        ("session.update", "session.updated", {"session": session}),
        ("input_audio_buffer.clear", "input_audio_buffer.cleared", {}),
    ]
    kind, answer, fields = draw.chance.choice(found)
    beyond = {"x": draw.chance.choice([None, 1e300, 2**64])}  # of another version, perhaps
    return Case(f"a valid {kind}", (draw.event(kind, **beyond, **fields),), (), answer=answer)


_MAKERS: list[Callable[[Draw], Case]] = [
    *(_field, _unknown_field, _text, _binary, _no_object, _unknown_type, _no_type, _strange_id, _unknown_item, _order),
    *(_sound, _commit, _large, _fine),
]
_WEIGHTS = [40, 6, 12, 4, 3, 5, 3, 3, 8, 5, 2, 2, 1, 6]
