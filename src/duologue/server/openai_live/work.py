"""Work that a session delegates to a Responses backend: a text model elsewhere, or the functions of the client.

Where there is a text model it is given every turn, and what it writes is said, sentence by sentence. Where there is
none a router chooses among the client's functions, and the model itself says what came of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from duologue.errors import ServerError
from duologue.server.openai_live.events import answer
from duologue.server.openai_live.settings import Delegation
from duologue.server.openai_live.text_model import TextModel
from duologue.server.realtime.conversation import tool_result
from duologue.server.realtime.events import ClientError, Event, missing, new_id, of_type
from duologue.server.realtime.fields import size

_MOST_ITEMS = 500
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_LIFE = ("response.created", "response.queued", "response.in_progress", "response.completed", "response.incomplete")
_ENDS = {"response.completed": "completed", "response.incomplete": "incomplete", "response.failed": "failed"}
_HIDDEN: dict[str, Any] = {"instructions": None, "tools": [], "output": []}


class Work:
    """The delegated work of one session.

    Args:
        emit: takes the events to be sent.
        say: has a text said.
        given_up: the text model failed: the model is to answer itself.
        soon: calls a function with arguments where the session runs.
    """

    def __init__(
        self,
        emit: Callable[[Event], None],
        *,
        say: Callable[[str], None],
        given_up: Callable[[], None],
        soon: Callable[..., object],
        model: TextModel | None,
        longest: int,
    ):
        self._emit, self._say, self._given_up, self._soon = emit, say, given_up, soon
        self._model, self._longest = model, longest
        self._items: list[dict[str, Any]] = []  # of the backend's conversation
        self._cancel: Callable[[], None] | None = None
        self._number = 0  # of the response that runs; events of earlier ones are stale
        self._id = ""  # of the delegation
        self._local: dict[str, Any] | None = None  # a response that the model itself gives
        self._told = 0  # items that the model itself knows of
        self._text = ""  # written and not said yet
        self._sequence = 0

    @property
    def busy(self) -> bool:
        return self._cancel is not None or self._local is not None

    # -- what the client and the user want ----------------------------------------------------------------------------

    def add(self, item: dict[str, Any]) -> None:
        """An item from the client.

        Raises:
            ClientError: it makes no sense, or there are too many.
        """
        kind = item.get("type", "message")
        if kind not in ("message", "function_call_output"):
            raise ClientError(
                "Invalid 'item.type': supported values are 'message', 'function_call_output'.", param="item.type"
            )
        wanted = ("call_id", "output") if kind == "function_call_output" else ("role", "content")
        for name in wanted:
            if item.get(name) is None:
                raise missing(f"item.{name}")
        if kind == "function_call_output":
            call = of_type(item["call_id"], str, "item.call_id")
            if call not in {each["call_id"] for each in self._items if each["type"] == "function_call"}:
                message = "There is no function call with this id."
                raise ClientError(message, code="item_not_found", param="item.call_id")
        if size(item) > self._longest:
            raise ClientError(f"An item may have at most {self._longest} characters.", param="item")
        self._append({**item, "type": kind})

    def turn(self, text: str, delegation: Delegation, offset_ms: int) -> None:
        """The text model is to answer what the user said."""
        self.stop()
        self._append({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
        self._ask(delegation, offset_ms)

    def call(self, name: str, arguments: str, *, said: str, delegation: Delegation, offset_ms: int) -> None:
        """The router has chosen a function of the client's."""
        self.stop()
        response = self._begin(new_id("resp"), delegation, offset_ms)
        self._append({"type": "message", "role": "user", "content": [{"type": "input_text", "text": said}]})
        item = {"type": "function_call", "id": new_id("fc"), "call_id": new_id("call"), "name": name}
        self._append({**item, "arguments": arguments, "status": "completed"})
        self._told = len(self._items)
        place = {"output_index": 0, "item_id": item["id"]}
        self._nested(
            "response.output_item.added", output_index=0, item={**item, "arguments": "", "status": "in_progress"}
        )
        self._nested("response.function_call_arguments.delta", **place, delta=arguments)
        self._nested("response.function_call_arguments.done", **place, name=name, arguments=arguments)
        self._nested("response.output_item.done", output_index=0, item=self._items[-1])
        self._nested("response.completed", response={**response, "status": "completed"})

    def create(self, delegation: Delegation, offset_ms: int) -> list[tuple[str, str]] | None:
        """The client wants a response to what there is. Gives what the model itself is to be told before it answers;
        None: the text model is asked.

        Raises:
            ClientError: one is being given.
        """
        if self.busy:
            raise ClientError(
                "The backend is giving a response already.", code="conversation_already_has_active_response"
            )
        if self._model is not None:
            self._ask(delegation, offset_ms, again=True)
            return None
        new, self._told = self._items[self._told :], len(self._items)
        if not new:
            raise ClientError("There is nothing to respond to.", code="invalid_request")
        self._local = self._begin(new_id("resp"), delegation, offset_ms, again=True)
        return [("user", self._as_text(item)) for item in new]

    def answered(self, text: str) -> None:
        """What the model itself said is over."""
        response, self._local = self._local, None
        if response is None:
            return
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        item = {"type": "message", "id": new_id("msg"), "role": "assistant", "content": [part], "status": "completed"}
        place = {"output_index": 0, "item_id": item["id"], "content_index": 0, "logprobs": []}
        shown = {**item, "content": [], "status": "in_progress"}
        self._append(item)
        self._told = len(self._items)
        self._nested("response.output_item.added", output_index=0, item=shown)
        self._nested("response.output_text.delta", **place, delta=text)
        self._nested("response.output_text.done", **place, text=text)
        self._nested("response.output_item.done", output_index=0, item=item)
        self._nested("response.completed", response={**response, "status": "completed"})

    def stop(self) -> None:
        """What is being written is not wanted any more."""
        self._number += 1
        self._text = ""
        if self._cancel is not None:
            self._cancel()
            self._cancel = None
        response, self._local = self._local, None
        if response is not None:
            self._nested("response.incomplete", response={**response, "status": "incomplete"})

    # -- a text model -------------------------------------------------------------------------------------------------

    def _ask(self, delegation: Delegation, offset_ms: int, *, again: bool = False) -> None:
        assert self._model is not None
        self._number += 1
        number, self._text = self._number, ""
        if not again or not self._id:
            self._id = new_id("dlg")
            begun = False
        else:
            begun = True
        request = {**delegation.responses, "input": list(self._items), "store": False}

        def take(event: dict[str, Any] | ServerError | None) -> None:
            self._soon(self._take, number, event, None if begun else offset_ms)

        self._cancel = self._model.ask(request, take)

    def _take(self, number: int, event: dict[str, Any] | ServerError | None, offset_ms: int | None) -> None:
        if number != self._number:
            return
        if event is None or isinstance(event, ServerError):
            if self._cancel is not None:  # it did not come to its end
                self._fail("the text model's answer breaks off" if event is None else str(event))
            return
        kind = event["type"]
        if kind == "response.created" and offset_ms is not None:
            response = event.get("response")
            self._announce(response.get("id") if isinstance(response, dict) else None, offset_ms)
        response = event.get("response")
        output = response.get("output", []) if isinstance(response, dict) else []
        if isinstance(response, dict) and (kind in _LIFE or kind in _ENDS):
            event = {**event, "response": {**{k: v for k, v in response.items() if k != "input"}, **_HIDDEN}}
        self._emit(answer("response.event", event=event, delegation_id=self._id))
        if kind == "response.output_text.delta" and isinstance(event.get("delta"), str):
            self._write(event["delta"])
        elif kind in _ENDS:
            self._end(_ENDS[kind], output if isinstance(output, list) else [])

    def _write(self, delta: str) -> None:
        *whole, self._text = _SENTENCE.split(self._text + delta)
        for sentence in whole:
            self._say(sentence)

    def _end(self, status: str, output: list[Any]) -> None:
        self._cancel = None
        if status == "failed":
            return self._fail("the text model failed")
        rest, self._text = self._text, ""
        if rest.strip():
            self._say(rest)
        for item in output:
            if isinstance(item, dict) and _known(item):
                self._append(item)

    def _fail(self, why: str) -> None:
        self._number += 1
        self._cancel = None
        error = ClientError(f"Delegated work failed: {why}.", code="delegation_failed", kind="server_error")
        details = {"type": error.kind, "code": error.code, "message": str(error)}
        self._emit(answer("error", error=details))
        self._given_up()

    # -- events -------------------------------------------------------------------------------------------------------

    def _begin(
        self, response_id: str, delegation: Delegation, offset_ms: int, *, again: bool = False
    ) -> dict[str, Any]:
        self._sequence = 0
        response = {
            "id": response_id,
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "model": delegation.responses["model"],
            "output": [],
            "parallel_tool_calls": False,
            "tool_choice": "auto",
            "tools": [],
        }
        if not again or not self._id:
            self._id = new_id("dlg")
            self._announce(response_id, offset_ms)
        self._nested("response.created", response=response)
        return response

    def _announce(self, response_id: str | None, offset_ms: int) -> None:
        about: dict[str, Any] = {"id": self._id, "type": "delegation", "target": "responses"}
        about |= {"response_id": response_id} if response_id else {}
        self._emit(answer("session.delegation.created", delegation=about, offset_ms=offset_ms))

    def _nested(self, kind: str, **fields: Any) -> None:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        self._emit(answer("response.event", event=event, delegation_id=self._id))

    def _append(self, item: dict[str, Any]) -> None:
        self._items.append(item)
        if len(self._items) > _MOST_ITEMS:
            del self._items[0]
            self._told = max(0, self._told - 1)

    def _as_text(self, item: dict[str, Any]) -> str:
        if item["type"] == "function_call_output":
            names = {each["call_id"]: each["name"] for each in self._items if each["type"] == "function_call"}
            output = item["output"]
            return tool_result(names.get(item["call_id"], ""), output if isinstance(output, str) else _texts(output))
        return _texts(item["content"])


def _known(item: dict[str, Any]) -> bool:
    """Whether it is an item that the backend's conversation goes on with."""
    if item.get("type") == "function_call":
        return all(isinstance(item.get(name), str) for name in ("call_id", "name", "arguments"))
    return item.get("type") in ("message", "reasoning")


def _texts(content: Any) -> str:
    """The text of an item's content."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))
