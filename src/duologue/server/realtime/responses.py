"""The life of a response: its ids, its events in their order, what it cost, how it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from duologue.server.realtime.audio import Outgoing
from duologue.server.realtime.conversation import Conversation, Item, Part
from duologue.server.realtime.events import Event, encode_base64, new_id, server_event
from duologue.server.realtime.session import Wanted
from duologue.server.realtime.usage import Reading, output_audio_tokens, text_tokens
from duologue.streaming.events import Metrics

Emit = Callable[[Event], None]


class Response:
    """One response.

    Args:
        conversation: what its items are added to; None: it stands apart.
        rate: Hz of the model's speech.
        play: takes the speech where it does not go out inside events.
    """

    def __init__(
        self,
        wanted: Wanted,
        emit: Emit,
        *,
        conversation: Conversation | None,
        rate: int,
        play: Callable[[Response, np.ndarray], None] | None = None,
    ):
        self.id, self.wanted, self.settings = new_id("resp"), wanted, wanted.settings
        self.status = "in_progress"
        self.seconds = 0.0  # of speech so far
        self.started = False  # whether the model has been asked
        self.metrics: Metrics | None = None  # of the first of what is said
        self._emit, self._conversation, self._rate, self._play = emit, conversation, rate, play
        self._output: list[Item] = []
        self._details: dict[str, Any] | None = None
        self._usage: dict[str, Any] | None = None
        self._reading = Reading("", ())
        self._text = ""
        self._speaks = self.settings.modality == "audio"
        self._outgoing = Outgoing(self.settings.output_format, rate)

    @property
    def item(self) -> Item | None:
        """The message that is being said."""
        return self._output[-1] if self._output and self._output[-1].kind == "message" else None

    @property
    def running(self) -> bool:
        return self.status == "in_progress"

    def as_dict(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self.status,
            "status_details": self._details,
            "output": [item.as_dict() for item in self._output],
            "conversation_id": self._conversation.id if self._conversation else None,
            "output_modalities": [settings.modality],
            "max_output_tokens": settings.max_output_tokens,
            "audio": {"output": {"format": settings.output_format.as_dict(), "voice": settings.voice}},
            "usage": self._usage,
            "metadata": self.wanted.metadata,
        }

    # -- from its beginning to its end --------------------------------------------------------------------------------

    def begin(self) -> None:
        self._emit(server_event("response.created", response=self.as_dict()))

    def reads(self, reading: Reading) -> None:
        """What the model is given for it."""
        self._reading = reading

    def write(self, text: str) -> None:
        """The next text."""
        if not text:
            return
        self._open_message()
        self._text += text
        self._part.text = self._text
        kind = "response.output_audio_transcript.delta" if self._speaks else "response.output_text.delta"
        self._emit(server_event(kind, **self._where(), content_index=0, delta=text))

    def speak(self, samples: np.ndarray) -> None:
        """The next speech."""
        if not self._speaks or not len(samples):
            return
        self._open_message()
        self.seconds += len(samples) / self._rate
        if self._play is not None:
            self._part.milliseconds = self.seconds * 1000
            return self._play(self, samples)
        self._send(self._outgoing(samples))

    @property
    def too_long(self) -> bool:
        """Whether it has as many tokens as it may have."""
        most = self.settings.max_output_tokens
        return isinstance(most, int) and sum(self._tokens()) >= most

    def call(self, name: str, arguments: str) -> Item:
        """Calls a function of the client's."""
        item = Item("function_call", name=name, call_id=new_id("call"), status="in_progress")
        self._add(item)
        where = self._where()
        self._emit(
            server_event("response.function_call_arguments.delta", **where, call_id=item.call_id, delta=arguments)
        )
        item.arguments = arguments
        self._emit(
            server_event(
                "response.function_call_arguments.done", **where, call_id=item.call_id, name=name, arguments=arguments
            )
        )
        self._finish_item("completed")
        self._text = arguments
        return item

    def finish(self, status: str, reason: str | None = None, error: dict[str, Any] | None = None) -> None:
        """Ends it: completed, cancelled, incomplete or failed."""
        if not self.running:
            return
        if self.item is not None:
            self._close_message()
            self._finish_item("completed" if status == "completed" else "incomplete")
        self.status = status
        if status != "completed":
            named = {"reason": reason, "error": error}
            self._details = {"type": status, **{name: value for name, value in named.items() if value}}
        text, audio = self._tokens()
        self._usage = self._reading.usage(text=text, audio=audio)
        self._emit(server_event("response.done", response=self.as_dict()))
        self._emit(server_event("rate_limits.updated", rate_limits=[]))

    # -- its items ----------------------------------------------------------------------------------------------------

    def _tokens(self) -> tuple[int, int]:
        return text_tokens(self._text), output_audio_tokens(self.seconds * 1000)

    def _where(self) -> dict[str, Any]:
        return {"response_id": self.id, "item_id": self._output[-1].id, "output_index": len(self._output) - 1}

    @property
    def _part(self) -> Part:
        return self._output[-1].parts[0]

    def _open_message(self) -> None:
        if self.item is not None:
            return
        self._add(Item("message", role="assistant", status="in_progress"))
        kind = "output_audio" if self._speaks else "output_text"
        self._output[-1].parts.append(Part(kind, format=self.settings.output_format))
        self._emit(server_event("response.content_part.added", **self._where(), content_index=0, part=self._shown()))

    def _close_message(self) -> None:
        where = {**self._where(), "content_index": 0}
        if self._speaks:
            if self._play is None:
                self._send(self._outgoing(np.zeros(0, np.float32), final=True))
            self._emit(server_event("response.output_audio.done", **where))
            self._emit(server_event("response.output_audio_transcript.done", **where, transcript=self._text))
        else:
            self._emit(server_event("response.output_text.done", **where, text=self._text))
        self._emit(server_event("response.content_part.done", **where, part=self._shown()))

    def _shown(self) -> dict[str, Any]:
        return {"type": "audio", "transcript": self._text} if self._speaks else {"type": "text", "text": self._text}

    def _send(self, data: bytes) -> None:
        if not data:
            return
        part = self._part
        part.audio += data
        part.milliseconds += part.format.milliseconds(data)
        delta = encode_base64(data)
        self._emit(server_event("response.output_audio.delta", **self._where(), content_index=0, delta=delta))

    def _add(self, item: Item) -> None:
        self._output.append(item)
        shown = {"response_id": self.id, "output_index": len(self._output) - 1, "item": item.as_dict()}
        self._emit(server_event("response.output_item.added", **shown))
        if self._conversation is not None:
            previous = self._conversation.last_id
            self._conversation.add(item)
            self._emit(server_event("conversation.item.added", previous_item_id=previous, item=item.as_dict()))

    def _finish_item(self, status: str) -> None:
        item = self._output[-1]
        item.status, item.counted = status, True
        conversation = self._conversation
        if conversation is not None and conversation.find(item.id):
            previous = conversation.before(item)
            self._emit(server_event("conversation.item.done", previous_item_id=previous, item=item.as_dict()))
        shown = {"response_id": self.id, "output_index": len(self._output) - 1, "item": item.as_dict()}
        self._emit(server_event("response.output_item.done", **shown))
