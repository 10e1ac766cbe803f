"""The old name of `app`, until nothing uses it."""

from duologue.server import app as _app
from duologue.server.app import *  # noqa: F403
from duologue.server.app import ServeConfig, Server, bind  # noqa: F401

_OPEN = _app._OPEN
