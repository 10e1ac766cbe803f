"""The OpenAI Realtime API (GA, and its beta names): docs/protocols.md says what of it there is, and how.

`Connection` follows the protocol for one client, whatever carries its events; `route` carries them over a WebSocket,
`Calls` over WebRTC.
"""

from duologue.server.realtime.connection import Connection
from duologue.server.realtime.events import ClientError, error_event
from duologue.server.realtime.limits import CallLimits, RealtimeLimits
from duologue.server.realtime.options import Options, Player
from duologue.server.realtime.seat import Alarms, Reply, Router
from duologue.server.realtime.secrets import SecretStore
from duologue.server.realtime.session import Settings, TurnDetection
from duologue.server.realtime.webrtc import Calls
from duologue.server.realtime.websocket import route

__all__ = [
    "Alarms",
    "CallLimits",
    "Calls",
    "ClientError",
    "Connection",
    "Options",
    "Player",
    "RealtimeLimits",
    "Reply",
    "Router",
    "SecretStore",
    "Settings",
    "TurnDetection",
    "error_event",
    "route",
]
