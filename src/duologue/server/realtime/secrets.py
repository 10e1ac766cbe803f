"""Secrets for clients that cannot keep a key, each with the settings of the sessions it opens."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from duologue.errors import BusyError, DuologueError
from duologue.server.realtime.events import ClientError, new_id, read
from duologue.server.realtime.fields import Fields
from duologue.server.realtime.limits import RealtimeLimits
from duologue.server.realtime.session import Settings, update

_BEARER = "openai-insecure-api-key."
_LARGEST = 2**17  # bytes of a request
_MOST = 10_000

Issue = Callable[[float, str], "tuple[str, int]"]
"""Makes a secret that lasts so many seconds, for a holder of a key; gives it and its end in seconds since 1970."""


@dataclass(frozen=True)
class _Kept:
    settings: Settings
    until: float


class SecretStore:
    """Remembers what settings belong to a secret; who may come in is not decided here.

    Args:
        issue: makes the secrets, and lets them in until they end.
        settings: what a session begins with.
    """

    def __init__(
        self,
        *,
        issue: Issue | None = None,
        settings: Settings | None = None,
        limits: RealtimeLimits | None = None,
        clock: Callable[[], float] = time.time,
    ):
        self._issue, self._clock = issue or self._issue_here, clock
        self._settings, self._limits = settings or Settings(), limits or RealtimeLimits()
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()

    def _issue_here(self, seconds: float, by: str) -> tuple[str, int]:
        return f"ek_{secrets.token_urlsafe(32)}", int(self._clock() + seconds)

    def create(self, request: dict[str, Any], *, by: str = "") -> dict[str, Any]:
        """Answers a request for a secret.

        Raises:
            ClientError: the request makes no sense.
            BusyError: there are too many secrets.
        """
        fields = Fields(request, "body", ("expires_after", "session"))
        after = Fields(fields.get("expires_after", {}), "expires_after", ("anchor", "seconds"))
        after.choice("anchor", "created_at", ("created_at",))
        seconds = after.number("seconds", 600, 10, 7_200, whole=True)
        session = fields.get("session", {"type": "realtime"})
        settings = update(self._settings, session, self._limits, spoken=False, begun=False)
        self._forget_old()
        if len(self._kept) >= _MOST:
            raise BusyError("there are too many secrets that have not expired; try again later")
        value, end = self._issue(seconds, by)
        self._kept[_digest(value)] = _Kept(settings, end)
        about = {"id": new_id("sess"), "object": "realtime.session", "expires_at": 0}
        return {"value": value, "expires_at": end, "session": {**settings.as_dict(), **about}}

    def settings(self, connection: HTTPConnection) -> Settings | None:
        """What belongs to the secret that a connection carries, if it does."""
        kept = self._kept.get(_digest(bearer(connection)))
        return kept.settings if kept and kept.until > self._clock() else None

    def route(self, path: str = "/v1/realtime/client_secrets") -> Route:
        """Gives secrets out. Who may ask is decided before."""
        return Route(path, self._endpoint, methods=["POST"])

    async def _endpoint(self, request: Request) -> JSONResponse:
        try:
            body = bytearray()
            async for chunk in request.stream():
                body += chunk
                if len(body) > _LARGEST:
                    raise ClientError(f"A request may have at most {_LARGEST} bytes.", code="request_too_large")
            by = request.scope.get("state", {}).get("who", "")
            return JSONResponse(self.create(read(bytes(body) or b"{}", longest=_LARGEST), by=by))
        except ClientError as error:
            return _failure(str(error), 400, kind=error.kind, code=error.code, param=error.param)
        except DuologueError as error:
            return _failure(f"{error}.", 503, kind="server_error", code="server_busy")

    def _forget_old(self) -> None:
        now = self._clock()
        for digest in [digest for digest, kept in self._kept.items() if kept.until <= now]:
            del self._kept[digest]


def bearer(connection: HTTPConnection) -> str:
    """The key that a connection carries: in the Authorization header, or as a WebSocket sub-protocol."""
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key:
        return key.strip()
    offered = (name.strip() for name in connection.headers.get("sec-websocket-protocol", "").split(","))
    return next((name.removeprefix(_BEARER) for name in offered if name.startswith(_BEARER)), "")


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()


def _failure(message: str, status: int, *, kind: str, code: str, param: str | None = None) -> JSONResponse:
    error = {"message": message, "type": kind, "code": code, "param": param}
    return JSONResponse({"error": error}, status_code=status)
