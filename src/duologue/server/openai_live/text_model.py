"""A text model elsewhere, asked over the Responses API: what a Live session delegates to."""

from __future__ import annotations

import json
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from duologue.errors import ConfigError, ServerError

logger = logging.getLogger(__name__)

_LONGEST_LINE = 2**20  # bytes of an event
_MOST_EVENTS = 20_000  # of a response

Take = Callable[["dict[str, Any] | ServerError | None"], object]
"""Takes the next event of a response; None: it is over; an error: it cannot be had. On another thread."""


class TextModel(Protocol):
    """Answers requests of the Responses API."""

    def ask(self, request: dict[str, Any], take: Take) -> Callable[[], None]:
        """Begins a response. Gives what ends it early; then nothing more is taken."""
        ...


@dataclass(frozen=True, kw_only=True)
class TextModelConfig:
    """Where the text model is."""

    url: str = ""  # of an API that has /responses, such as http://localhost:11434/v1; empty: there is none
    key_file: str = ""  # holds the key that it wants
    timeout: float = 30.0  # seconds without a word from it

    def __post_init__(self):
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"text_model.url: need an address that begins with http:// or https://, got {self.url!r}")
        if self.timeout <= 0:
            raise ConfigError(f"text_model.timeout: need more than 0 seconds, got {self.timeout}")


class RemoteTextModel:
    """One thread a response.

    Raises:
        ConfigError: the key cannot be read.
    """

    def __init__(self, config: TextModelConfig):
        self._config = config
        self._headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if config.key_file:
            try:
                key = Path(config.key_file).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"text_model.key_file: cannot read {config.key_file} ({error})") from error
            self._headers["Authorization"] = f"Bearer {key}"

    def ask(self, request: dict[str, Any], take: Take) -> Callable[[], None]:
        over = threading.Event()
        thread = threading.Thread(target=self._run, args=(request, take, over), name="text model", daemon=True)
        thread.start()
        return over.set

    def _run(self, request: dict[str, Any], take: Take, over: threading.Event) -> None:
        end: ServerError | None = None
        try:
            self._stream(request, take, over)
        except urllib.error.HTTPError as error:
            end = ServerError(f"the text model refuses the request (status {error.code})")
        except (OSError, ValueError) as error:  # not there, gone, or no events
            logger.debug("the text model cannot be asked", exc_info=error)
            end = ServerError(f"the text model does not answer ({type(error).__name__})")
        if not over.is_set():
            take(end)

    def _stream(self, request: dict[str, Any], take: Take, over: threading.Event) -> None:
        body = json.dumps({**request, "stream": True}).encode()
        address = self._config.url.rstrip("/") + "/responses"
        with urllib.request.urlopen(
            urllib.request.Request(address, body, self._headers), timeout=self._config.timeout
        ) as response:
            for _ in range(_MOST_EVENTS):
                line = response.readline(_LONGEST_LINE)
                if not line or over.is_set():
                    return
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                event = json.loads(data)
                if isinstance(event, dict) and isinstance(event.get("type"), str):
                    take(event)
        raise ValueError("too many events")
