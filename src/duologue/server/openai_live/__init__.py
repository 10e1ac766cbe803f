"""OpenAI's Live API, the dialect of full duplex: docs/protocols_live.md says what of it there is, and how.

`LiveConnection` follows the protocol for one client, whatever carries its events: a WebSocket, or WebRTC.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from duologue.engine import Engine
from duologue.server.openai_live.calls import LiveCalls
from duologue.server.openai_live.connection import LiveConnection, LiveOptions
from duologue.server.openai_live.sessions import PATH, Sessions
from duologue.server.openai_live.text_model import RemoteTextModel, TextModel, TextModelConfig
from duologue.server.openai_live.websocket import carry
from duologue.server.realtime.limits import CallLimits, RealtimeLimits

__all__ = ["Live", "LiveConnection", "LiveOptions", "RemoteTextModel", "TextModel", "TextModelConfig"]


class Live:
    """The endpoints. Who may come in is decided before.

    Args:
        options: what makes a session's own.
    """

    def __init__(
        self,
        engine: Engine,
        limits: RealtimeLimits | None = None,
        *,
        bounds: CallLimits | None = None,
        options: Callable[[], LiveOptions] = LiveOptions,
    ):
        self._engine, self._limits, self._options = engine, limits or RealtimeLimits(), options
        self._sessions = Sessions(self._limits)
        self._calls = LiveCalls(engine, limits=self._limits, bounds=bounds or CallLimits(), sessions=self._sessions)

    def routes(self) -> list[BaseRoute]:
        return [
            WebSocketRoute(PATH, self._carry),
            Route(PATH, self._create, methods=["POST"]),
            *self._sessions.routes(),
        ]

    async def close(self) -> None:
        """Hangs up."""
        await self._calls.close()

    async def _carry(self, websocket: WebSocket) -> None:
        await carry(websocket, self._engine, self._options(), limits=self._limits, sessions=self._sessions)

    async def _create(self, request: Request) -> Response:
        return await self._calls.create(request, self._options())
