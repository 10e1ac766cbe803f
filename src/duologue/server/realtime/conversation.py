"""The conversation as the client sees it: its items, in order, and what the model is told of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from duologue.server.realtime.audio import FORMATS, PCM16, Format
from duologue.server.realtime.events import ClientError, decode_base64, encode_base64, missing, new_id, of_type
from duologue.server.realtime.fields import Fields
from duologue.server.realtime.limits import MOST_AUDIO, MOST_INSTRUCTED, RealtimeLimits

Turns = list[tuple[str, str]]
"""(role, text) as the engine takes them."""

_PARTS = {
    "system": ("input_text",),
    "user": ("input_text", "input_audio"),
    "assistant": ("output_text", "output_audio"),
}
_KNOWN = ["id", "object", "type", "status", "role", "content", "name", "call_id", "arguments", "output"]


@dataclass
class Part:
    """A piece of a message.

    `text` is what the model is told: written text, or what was said or heard of audio as far as it is known.
    """

    type: str
    text: str = ""
    shown: bool = True  # whether the client is told the text of audio
    audio: bytearray = field(default_factory=bytearray)
    format: Format = PCM16
    milliseconds: float = 0.0  # of audio, also where `audio` is not kept
    heard: float | None = None  # milliseconds of it that were heard, where it was cut short

    @property
    def is_audio(self) -> bool:
        return self.type.endswith("_audio")

    @property
    def told(self) -> str:
        """The text as far as it was heard."""
        if self.heard is None or self.heard >= self.milliseconds:
            return self.text.strip()
        words = self.text.split()
        return " ".join(words[: int(len(words) * self.heard / self.milliseconds)])

    def cut(self, milliseconds: int) -> None:
        """Forgets the audio after a time, and shows no text any more: nobody knows exactly how much of it was heard."""
        self.heard = min(float(milliseconds), self.milliseconds)
        self.text, self.shown = self.told, False
        self.milliseconds, self.heard = self.heard, None
        del self.audio[round(milliseconds * self.format.rate / 1000) * self.format.width :]

    def as_dict(self, *, audio: bool) -> dict[str, Any]:
        if not self.is_audio:
            return {"type": self.type, "text": self.text}
        found: dict[str, Any] = {"type": self.type, "transcript": self.text if self.shown else None}
        if audio and self.audio:
            found["audio"] = encode_base64(self.audio)
        return found


@dataclass
class Item:
    """A message, a call of a function, or what came of one."""

    kind: str  # message, function_call, function_call_output
    role: str = ""
    parts: list[Part] = field(default_factory=list)
    name: str = ""
    call_id: str = ""
    arguments: str = ""
    output: str = ""
    status: str = "completed"
    id: str = field(default_factory=lambda: new_id("item"))
    counted: bool = False  # whether a response has read it already

    def as_dict(self, *, audio: bool = False) -> dict[str, Any]:
        """As the client sees it. `audio`: with the audio that is kept."""
        head = {"id": self.id, "object": "realtime.item", "type": self.kind, "status": self.status}
        if self.kind == "message":
            return {**head, "role": self.role, "content": [part.as_dict(audio=audio) for part in self.parts]}
        if self.kind == "function_call":
            return {**head, "call_id": self.call_id, "name": self.name, "arguments": self.arguments}
        return {**head, "call_id": self.call_id, "output": self.output}

    @property
    def text(self) -> str:
        """What the model is told of a message."""
        return " ".join(text for part in self.parts if (text := part.told))

    @property
    def question(self) -> bool:
        """Whether it is something to be answered."""
        return self.kind == "function_call_output" or self.role == "user"


class Conversation:
    """Items in order; when there are too many the oldest go."""

    def __init__(self, limits: RealtimeLimits):
        self.id, self._limits = new_id("conv"), limits
        self.items: list[Item] = []

    @property
    def last_id(self) -> str | None:
        return self.items[-1].id if self.items else None

    def find(self, item_id: str) -> Item | None:
        return next((item for item in self.items if item.id == item_id), None)

    def before(self, item: Item) -> str | None:
        """The id of the item before this one."""
        place = self.items.index(item)
        return self.items[place - 1].id if place else None

    def add(self, item: Item, after: str | None = None) -> bool:
        """Adds an item: at the end, at the front (after "root"), or after another. Returns whether it is the last.

        Raises:
            ClientError: the id is taken, or there is no item to put it after.
        """
        if self.find(item.id):
            raise ClientError(
                f"Error adding item: an item with id '{item.id}' exists already.",
                code="item_create_duplicate_item_id",
                param="item.id",
            )
        place = len(self.items)
        if after is not None:
            place = 0 if after == "root" else 1 + self._place(after)
        self.items.insert(place, item)
        last = self.items[-1] is item
        del self.items[: -self._limits.items]
        return last

    def _place(self, item_id: str) -> int:
        if (found := self.find(item_id)) is None:
            raise ClientError(
                f"Error adding item: the previous item with id '{item_id}' does not exist.",
                code="invalid_previous_item_id",
                param="previous_item_id",
            )
        return self.items.index(found)

    def remove(self, item: Item) -> None:
        self.items.remove(item)

    def knows_call(self, call_id: str) -> bool:
        return any(item.kind == "function_call" and item.call_id == call_id for item in self.items)

    def forget_audio(self, *, longest: float) -> None:
        """Keeps the audio of the latest items alone, so many seconds of it."""
        left = longest * 1000
        for item in reversed(self.items):
            for part in item.parts:
                left -= part.format.milliseconds(part.audio)
                if left < 0:
                    part.audio = bytearray()


def unanswered(items: Iterable[Item]) -> list[Item]:
    """The items at the end that ask for an answer."""
    found: list[Item] = []
    for item in items:
        if item.question:
            found.append(item)
        elif item.role != "system":
            found.clear()
    return found


def told(items: Iterable[Item], *, most: int) -> Turns:
    """What the model is told of some items, without instructions: the latest, so many characters."""
    items = list(items)
    names = {item.call_id: item.name for item in items if item.kind == "function_call"}
    turns: Turns = []
    for item in items:
        if item.kind == "function_call_output":
            turns.append(("user", tool_result(names.get(item.call_id, ""), item.output)))
        elif item.role in ("user", "assistant") and item.text:
            turns.append((item.role, item.text))
    left = most
    for place in reversed(range(len(turns))):
        left -= len(turns[place][1])
        if left < 0 and place < len(turns) - 1:
            return turns[place + 1 :]
    return turns


def instructed(instructions: str, items: Iterable[Item], *, most: int = MOST_INSTRUCTED) -> str:
    """Instructions with what the conversation's system messages add to them: so many characters, of the messages the
    latest."""
    instructions = instructions.strip()[:most]
    notes, left = list[str](), most - len(instructions)
    for text in [item.text for item in items if item.role == "system"][::-1]:
        notes.append(text[: max(0, left - 1)])
        left -= len(text) + 1
    return "\n".join(text for text in (instructions, *reversed(notes)) if text)


def tool_result(name: str, output: str) -> str:
    """What a function gave, as it is put before the model."""
    return f"({name or 'The function'} says: {output.strip()})"


def read_item(value: Any, limits: RealtimeLimits, *, format: Format, path: str = "item") -> Item:
    """An item from a client.

    Raises:
        ClientError: it is none, or one that a client cannot add.
    """
    fields = Fields(value, path, _KNOWN)
    item_id = fields.text("id", None, longest=64)
    status = fields.choice("status", "completed", ("completed", "incomplete", "in_progress"))
    kind = fields.choice("type", None, ("message", "function_call", "function_call_output"))
    if kind is None:
        raise missing(f"{path}.type")
    item = Item(kind, status="completed" if status == "in_progress" else status)
    if item_id:
        item.id = item_id
    if kind == "message":
        item.role, parts = fields.choice("role", "", tuple(_PARTS)), fields.objects("content", most=64)
        if not item.role or parts is None:
            raise missing(f"{path}.content" if item.role else f"{path}.role")
        item.parts = [
            _read_part(each, item.role, f"{path}.content[{index}]", limits, format) for index, each in enumerate(parts)
        ]
        if sum(len(part.text) for part in item.parts) > limits.text:
            raise fields.refused("content", f"expected at most {limits.text} characters in all")
        return item
    for name in ("call_id", "output") if kind == "function_call_output" else ("name", "arguments"):
        if fields.get(name) is None:
            raise missing(f"{path}.{name}")
    item.name, item.call_id = fields.text("name", "", longest=64), fields.text("call_id", "", longest=256)
    item.arguments = fields.text("arguments", "", longest=limits.text)
    item.output = fields.text("output", "", longest=limits.text)
    item.call_id = item.call_id or new_id("call")
    return item


def _read_part(value: dict[str, Any], role: str, path: str, limits: RealtimeLimits, format: Format) -> Part:
    fields = Fields(value, path, ("type", "text", "audio", "transcript", "image_url", "detail", "format"))
    kind = fields.choice("type", None, _PARTS[role])
    if kind is None:
        raise missing(f"{path}.type")
    if kind == "output_audio":
        raise fields.refused("type", "an assistant's audio cannot be added; add 'output_text'")
    if kind == "input_audio":
        transcript = fields.text("transcript", "", longest=limits.text)
        data = decode_base64(
            of_type(fields.get("audio", ""), str, f"{path}.audio"), most=MOST_AUDIO, param=f"{path}.audio"
        )
        format = FORMATS[format.name]
        if format.milliseconds(data) > limits.longest_turn * 1000:
            raise fields.refused("audio", f"expected at most {limits.longest_turn:g} seconds")
        return Part(kind, transcript, bool(transcript), bytearray(data), format, format.milliseconds(data))
    if fields.get("text") is None:
        raise missing(f"{path}.text")
    return Part(kind, fields.text("text", "", longest=limits.text))
