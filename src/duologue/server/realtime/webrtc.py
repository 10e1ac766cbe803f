"""The Realtime API over WebRTC: `POST /v1/realtime/calls` answers an offer, and the call goes on without it.

The sound goes over tracks, the events over the data channel `oai-events`. aiortc is loaded with the first call.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from duologue.engine import Engine
from duologue.errors import BusyError
from duologue.server.realtime.carrier import begin_with, connect
from duologue.server.realtime.connection import Connection
from duologue.server.realtime.events import ClientError, error_event
from duologue.server.realtime.limits import CallLimits, RealtimeLimits
from duologue.server.realtime.offers import check, read_body
from duologue.server.realtime.options import Options
from duologue.server.realtime.responses import Emit
from duologue.server.realtime.secrets import SecretStore
from duologue.server.realtime.session import update

if TYPE_CHECKING:
    from duologue.server.realtime.call import Call

PATH = "/v1/realtime/calls"


class Calls:
    """Every call of a server. Who may call is decided before.

    Args:
        options: of every session, or what makes a session's own.
        secrets: knows what settings the sessions of a secret begin with.
    """

    def __init__(
        self,
        engine: Engine,
        limits: RealtimeLimits | None = None,
        *,
        bounds: CallLimits | None = None,
        options: Options | Callable[[], Options] | None = None,
        secrets: SecretStore | None = None,
    ):
        self._engine, self._limits, self._bounds = engine, limits or RealtimeLimits(), bounds or CallLimits()
        self._options, self._secrets = options or Options(), secrets
        self._calls: dict[str, tuple[Call, str]] = {}  # by id, with who called
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun = 0  # calls that are being answered

    def routes(self) -> list[Route]:
        return [
            Route(PATH, self._create, methods=["POST"]),
            Route(f"{PATH}/{{id}}/hangup", self._hang_up, methods=["POST"]),
        ]

    async def close(self) -> None:
        """Hangs up."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _create(self, request: Request) -> Response:
        if importlib.util.find_spec("aiortc") is None:
            message = "This server has no WebRTC: install it with 'pip install aiortc', or use a WebSocket."
            return _failure(ClientError(message, code="webrtc_not_installed", kind="server_error"), 501)
        self._begun += 1
        try:
            return await self._answer(request)
        except ClientError as error:
            unknown = error.code == "unsupported_content_type"
            return _failure(error, 503 if error.kind == "server_error" else 415 if unknown else 400)
        except BusyError as error:
            return _failure(ClientError(f"{error}.", code="server_busy", kind="server_error"), 503)
        finally:
            self._begun -= 1

    async def _answer(self, request: Request) -> Response:
        from duologue.server.realtime.call import Call
        from duologue.server.realtime.rtp_audio import Speaker

        bounds = self._bounds
        if len(self._tasks) + self._begun > bounds.most:
            raise BusyError(f"there are {bounds.most} calls already; come back when one has ended")
        sdp, session = await read_body(request)
        offer = check(sdp)
        options = self._options if isinstance(self._options, Options) else self._options()
        options = begin_with(request, options, self._secrets)
        if session is not None:
            settings = update(options.settings, session, self._limits, spoken=False, begun=False)
            options = replace(options, settings=settings)

        def make(emit: Emit, limits: RealtimeLimits) -> tuple[Connection, Speaker]:
            clock = asyncio.get_running_loop().time
            speaker = Speaker(self._engine.runner.spec.output_rate, emit, clock=clock)
            return connect(self._engine, emit, limits=limits, options=options, player=speaker), speaker

        call = Call(offer, make, limits=self._limits, bounds=bounds)
        try:
            answer = await call.answer()
        except BaseException:
            await call.close()
            raise
        self._carry(call, request)
        return Response(answer, 201, media_type="application/sdp", headers={"Location": f"{PATH}/{call.id}"})

    def _carry(self, call: Call, request: Request) -> None:
        state = request.scope.get("state", {})
        who, inside = state.get("who", ""), state.get("inside", Counter())
        self._calls[call.id] = call, who
        inside[who] += 1

        async def carry() -> None:
            try:
                await call.run()
            finally:
                inside[who] -= 1
                del self._calls[call.id]

        task = asyncio.create_task(carry())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hang_up(self, request: Request) -> Response:
        call, who = self._calls.get(request.path_params["id"], (None, ""))
        if call is None or who != request.scope.get("state", {}).get("who", ""):
            return _failure(ClientError("There is no such call.", code="call_not_found", param="call_id"), 404)
        call.hang_up()
        return Response(status_code=200)


def _failure(error: ClientError, status: int) -> JSONResponse:
    about = error_event(error)["error"]
    return JSONResponse({"error": {name: about[name] for name in ("message", "type", "code", "param")}}, status)
