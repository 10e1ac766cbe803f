"""Text models that write training data: one small protocol, and any OpenAI-compatible endpoint behind it.

The local LLM (`models.text_model.LocalTextModel`) fits the same protocol and is handed in by whoever has it.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from duologue.codecs.text import Message
from duologue.errors import ConfigError, DataError

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)  # HTTP statuses that pass


class TextModel(Protocol):
    """Writes the next message of many chats."""

    def complete(
        self,
        chats: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        opening: str = "",
    ) -> list[str]:
        """One message a chat, in order, each beginning with `opening`."""
        ...


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """An OpenAI-compatible chat endpoint."""

    url: str  # up to and with /v1
    model: str
    concurrency: int = 8  # requests under way at once
    retries: int = 5  # after the first try, waiting 1, 2, 4 ... seconds
    seconds: float = 120.0  # until an answer is given up

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"EndpointConfig.url: need http://... or https://..., got {self.url!r}")
        if self.concurrency < 1 or self.retries < 0:
            raise ConfigError(f"EndpointConfig: concurrency from 1, retries from 0, got {self}")


class EndpointModel:
    """A text model behind HTTP. The seed is handed on; whether it is heeded is the endpoint's affair.

    Args:
        key: sent as a bearer token if not empty.
        wait: what is called with the seconds between two tries.
    """

    def __init__(self, config: EndpointConfig, *, key: str = "", wait: Callable[[float], Any] = time.sleep):
        self.config, self._key, self._wait = config, key, wait

    def complete(
        self,
        chats: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        opening: str = "",
    ) -> list[str]:
        """Raises:
        DataError: the endpoint refuses, or still fails after the last try.
        """

        def one(chat: Sequence[Message]) -> str:
            messages = [{"role": message.role, "content": message.content} for message in chat]
            body = {
                "model": self.config.model,
                "messages": messages,
                "max_tokens": max_tokens,
                "temperature": temperature,
                "seed": seed,
            }
            text = self._post(body).strip()
            return text if text.lower().startswith(opening.lower()) else f"{opening} {text}".strip()

        with ThreadPoolExecutor(self.config.concurrency) as pool:
            return list(pool.map(one, chats))

    def _post(self, body: dict[str, Any]) -> str:
        url = self.config.url.rstrip("/") + "/chat/completions"
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        problem = ""
        for attempt in range(self.config.retries + 1):
            if attempt:
                self._wait(2.0 ** (attempt - 1))
            request = urllib.request.Request(url, json.dumps(body).encode(), headers)
            try:
                with urllib.request.urlopen(request, timeout=self.config.seconds) as reply:
                    return str(json.load(reply)["choices"][0]["message"]["content"] or "")
            except urllib.error.HTTPError as error:
                problem = f"HTTP {error.code}: {error.read(300).decode(errors='replace').strip()}"
                if error.code not in RETRIED:
                    raise DataError(
                        f"{url} refused the request ({problem}); check the model's name and the key"
                    ) from error
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise DataError(f"{url} did not answer as a chat endpoint does; give its address up to /v1") from error
            except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
                problem = str(getattr(error, "reason", error))
        raise DataError(
            f"{url} failed {self.config.retries + 1} times ({problem}); the run goes on from here if repeated"
        )
