"""The Live API over a WebSocket: text frames in, text frames out, and the clock."""

from __future__ import annotations

import asyncio
import json
import time

from starlette.websockets import WebSocket

from duologue.engine import Engine
from duologue.server.openai_live.connection import LiveConnection, LiveOptions
from duologue.server.openai_live.sessions import Sessions, goodbye, subprotocol, talk
from duologue.server.realtime.carrier import Mail, watch
from duologue.server.realtime.limits import RealtimeLimits
from duologue.server.session_log import short

_BUSY = 1013  # why a WebSocket is closed


async def carry(
    websocket: WebSocket, engine: Engine, options: LiveOptions, *, limits: RealtimeLimits, sessions: Sessions
) -> None:
    """One client, from its handshake to its end."""
    await websocket.accept(subprotocol=subprotocol(websocket))
    mail, loop = Mail(websocket.send_text, limits), asyncio.get_running_loop()
    session = LiveConnection(
        engine,
        emit=lambda event: mail.put(json.dumps(event)),
        soon=loop.call_soon_threadsafe,
        clock=loop.time,
        wall=time.time,
        limits=limits,
        options=options,
    )
    mail.name = short(session.id)
    sessions.add(session, websocket.scope.get("state", {}).get("who", ""))
    try:
        await talk(websocket, mail, session.receive, watch(session, mail), limits=limits)
    finally:
        begun = session.settings is not None
        session.close()  # before what may take long
        sessions.remove(session)
        await goodbye(websocket, mail, 1000 if begun else _BUSY)
