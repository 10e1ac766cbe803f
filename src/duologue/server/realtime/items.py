"""What a client does to the items of the conversation: `conversation.item.*`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from duologue.server.realtime.answers import Answers
from duologue.server.realtime.conversation import Conversation, Item, read_item
from duologue.server.realtime.ears import Ears
from duologue.server.realtime.events import ClientError, Event, server_event
from duologue.server.realtime.limits import RealtimeLimits
from duologue.server.realtime.memory import Memory
from duologue.server.realtime.responses import Emit
from duologue.server.realtime.seat import Seat
from duologue.server.realtime.session import Settings
from duologue.server.witness import Wrote

_VERBS = {"retrieving": "retrieve", "deleting": "delete", "truncating": "truncate"}


class Items:
    """Follows these events; every one raises ClientError where it cannot be followed, and has changed nothing then.

    Args:
        free: whether the model does nothing, and nothing waits to be answered.
    """

    def __init__(
        self,
        seat: Seat,
        conversation: Conversation,
        memory: Memory,
        answers: Answers,
        ears: Ears,
        emit: Emit,
        *,
        limits: RealtimeLimits,
        free: Callable[[], bool],
    ):
        self._seat, self._conversation, self._memory = seat, conversation, memory
        self._answers, self._ears, self._emit = answers, ears, emit
        self._limits, self._free = limits, free

    def create(self, event: Event, settings: Settings) -> None:
        """Adds an item, and tells the model of it."""
        item = read_item(event["item"], self._limits, format=settings.input_format)
        if item.kind == "function_call_output" and not self._conversation.knows_call(item.call_id):
            raise ClientError(
                f"Tool call ID '{item.call_id}' not found in conversation.",
                code="invalid_tool_call_id",
                param="item.call_id",
            )
        last = self._conversation.add(item, event.get("previous_item_id"))
        previous = self._conversation.before(item)
        for kind in ("added", "done"):
            self._emit(server_event(f"conversation.item.{kind}", previous_item_id=previous, item=item.as_dict()))
        if item.kind == "message" and item.text:
            self._seat.witness.happen(Wrote(item.role, item.text))
        sound = next((part for part in item.parts if part.type == "input_audio" and part.audio and not part.text), None)
        if sound is not None and last:
            self._ears.listen_to(item, self._ears.samples(sound))
        if self._memory.add(item, now=last and self._free() and not self._ears.fed):
            self._answers.last = None

    def retrieve(self, event: Event) -> None:
        item = self._find(event, "retrieving")
        self._emit(server_event("conversation.item.retrieved", item=item.as_dict(audio=True)))

    def delete(self, event: Event) -> None:
        item = self._find(event, "deleting")
        self._conversation.remove(item)
        self._memory.stale = True
        self._emit(server_event("conversation.item.deleted", item_id=item.id))

    def truncate(self, event: Event) -> None:
        """Cuts the speech of an item to what was heard of it."""
        item, index, end = self._find(event, "truncating"), event["content_index"], event["audio_end_ms"]
        parts = item.parts if item.role == "assistant" else []
        if not 0 <= index < len(parts) or parts[index].type != "output_audio":
            raise ClientError(
                "Only model output audio messages can be truncated", code="unsupported_content_type", param="item_id"
            )
        part = parts[index]
        if end < 0 or end > part.milliseconds + 1:
            raise ClientError(
                f"Audio content of {part.milliseconds:.0f}ms is already shorter than {end}ms", param="audio_end_ms"
            )
        told = self._answers.cut(item, end / 1000)
        if not told and (part.heard is None or abs(part.heard - end) > 1_000):
            self._memory.stale |= end < part.milliseconds - 1
        part.cut(end)
        truncated = {"item_id": item.id, "content_index": index, "audio_end_ms": end}
        self._emit(server_event("conversation.item.truncated", **truncated))

    def referred(self, value: dict[str, Any], number: int, settings: Settings) -> Item:
        """An item that a response is to read: a new one, or one of the conversation's."""
        path = f"response.input[{number}]"
        if value.get("type") != "item_reference":
            return read_item(value, self._limits, format=settings.input_format, path=path)
        item = self._conversation.find(str(value.get("id")))
        if item is None:
            raise ClientError(
                f"Item with id '{str(value.get('id'))[:100]}' not found in conversation.",
                code="item_not_found",
                param=f"{path}.id",
            )
        return item

    def _find(self, event: Event, what: str) -> Item:
        if (item := self._conversation.find(event["item_id"])) is None:
            raise ClientError(
                f"Error {what} item: the item with id '{event['item_id'][:100]}' does not exist.",
                code=f"item_{_VERBS[what]}_invalid_item_id",
                param="item_id",
            )
        return item
