"""The Live API over WebRTC: `POST /v1/live/sessions` answers an offer, and the session goes on without it.

The sound goes over tracks, the events over the data channel `oai-events`. aiortc is loaded with the first call.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from duologue.engine import Engine
from duologue.errors import BusyError, ServerError
from duologue.server.bodies import read_object
from duologue.server.openai_live.connection import LiveConnection, LiveOptions
from duologue.server.openai_live.events import error_event
from duologue.server.openai_live.sessions import Sessions, failure
from duologue.server.openai_live.settings import Settings, start
from duologue.server.realtime.events import ClientError, missing
from duologue.server.realtime.fields import Fields
from duologue.server.realtime.limits import CallLimits, RealtimeLimits
from duologue.server.realtime.offers import Offer, check
from duologue.server.realtime.responses import Emit

if TYPE_CHECKING:
    from duologue.server.openai_live.track import LiveTrack
    from duologue.server.realtime.call import Call

_LARGEST = 2**18  # bytes of a request


class LiveCalls:
    """Every Live session over WebRTC. Who may call is decided before."""

    def __init__(self, engine: Engine, *, limits: RealtimeLimits, bounds: CallLimits, sessions: Sessions):
        self._engine, self._limits, self._bounds, self._sessions = engine, limits, bounds, sessions
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun = 0  # calls that are being answered

    async def close(self) -> None:
        """Hangs up."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def create(self, request: Request, options: LiveOptions) -> Response:
        if importlib.util.find_spec("aiortc") is None:
            message = "This server has no WebRTC: install it with 'pip install aiortc', or use a WebSocket."
            return failure(ClientError(message, code="webrtc_not_installed", kind="server_error"), 501)
        self._begun += 1
        try:
            return await self._answer(request, options)
        except ClientError as error:
            return failure(error, 503 if error.kind == "server_error" else 400)
        except BusyError as error:
            return failure(ClientError(f"{error}.", code="server_busy", kind="server_error"), 503)
        except ServerError as error:
            return failure(ClientError(f"{error}.", code="invalid_request"), 400)
        finally:
            self._begun -= 1

    async def _answer(self, request: Request, options: LiveOptions) -> Response:
        from duologue.server.openai_live.track import LiveTrack
        from duologue.server.realtime.call import Call

        if len(self._tasks) + self._begun > self._bounds.most:
            raise BusyError(f"there are {self._bounds.most} calls already; come back when one has ended")
        offer, settings = _read(await read_object(request, _LARGEST), self._limits)
        loop = asyncio.get_running_loop()
        made: list[LiveConnection] = []

        def make(emit: Emit, limits: RealtimeLimits) -> tuple[LiveConnection, LiveTrack]:
            session = LiveConnection(
                self._engine,
                emit=emit,
                soon=loop.call_soon_threadsafe,
                clock=loop.time,
                wall=time.time,
                limits=limits,
                options=options,
                pulled=True,
            )
            session.open(settings)
            made.append(session)
            return session, LiveTrack(session.take, clock=loop.time)

        call = Call(offer, make, limits=self._limits, bounds=self._bounds, told=error_event)
        try:
            sdp = await call.answer()
        except BaseException:
            await call.close()
            raise
        self._carry(call, made[0], request)
        about: dict[str, Any] = {"session": {"id": made[0].id}, "transport": {"type": "webrtc", "sdp": sdp}}
        return JSONResponse(about, 201)

    def _carry(self, call: Call, session: LiveConnection, request: Request) -> None:
        state = request.scope.get("state", {})
        who, inside = state.get("who", ""), state.get("inside", Counter())
        self._sessions.add(session, who)
        inside[who] += 1

        async def carry() -> None:
            try:
                await call.run()
            finally:
                inside[who] -= 1
                self._sessions.remove(session)

        task = asyncio.create_task(carry())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _read(body: dict[str, Any], limits: RealtimeLimits) -> tuple[Offer, Settings]:
    """What is offered, and the settings of the session."""
    top = Fields(body, "body", ("session", "transport"))
    transport = Fields(top.get("transport", {}), "transport", ("type", "sdp"))
    if transport.choice("type", None, ("webrtc",)) is None:
        raise missing("transport.type")
    sdp = transport.text("sdp", None, longest=_LARGEST)
    if sdp is None:
        raise missing("transport.sdp")
    if top.get("session") is None:
        raise missing("session")
    return check(sdp), start(top.get("session"), limits, media=True)
