"""What the model was told of a conversation."""

from __future__ import annotations

from duologue.server.realtime.conversation import Conversation, Item, instructed, told, tool_result
from duologue.server.realtime.seat import Seat


class Memory:
    """Tells the model of what it has not heard itself: item by item, or everything anew where that cannot be.

    Args:
        most: characters of the conversation that are told anew.
    """

    def __init__(self, seat: Seat, conversation: Conversation, *, instructions: str, most: int):
        self._seat, self._conversation, self._most = seat, conversation, most
        self._instructions = instructions
        self.stale = bool(instructions)  # whether it must be told everything anew

    def instruct(self, instructions: str) -> None:
        """It has other instructions from now on."""
        self.stale |= instructions != self._instructions
        self._instructions = instructions

    def add(self, item: Item, *, now: bool) -> bool:
        """An item was added by the client. Returns whether the model was told of it.

        Args:
            now: it is the conversation's last, and the model can be told at once.
        """
        turns = told([item], most=self._most)
        if item.kind == "function_call_output":
            turns = [("user", tool_result(self._called(item.call_id), item.output))]
        if item.role == "system" or not now:
            self.stale |= bool(turns) or item.role == "system"
        if self.stale:
            return False
        for role, text in turns:
            self._seat.write(role, text)
        return bool(turns)

    def renew(self, instructions: str | None = None, items: list[Item] | None = None) -> None:
        """Has it forget everything, and tells it what it is to know: these, or else the conversation's own."""
        items = self._conversation.items if items is None else items
        system = instructed(self._instructions if instructions is None else instructions, items)
        self._seat.forget(*([("system", system)] if system else []), *told(items, most=self._most))
        self.stale = False

    def _called(self, call_id: str) -> str:
        """The name of the function that was called."""
        return next((item.name for item in self._conversation.items if item.call_id == call_id and item.name), "")
