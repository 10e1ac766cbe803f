"""Many live conversations with one model. See `engine.Engine`."""

from duologue.engine.engine import Engine as Engine
from duologue.engine.session import Session as Session
from duologue.engine.session import SessionConfig as SessionConfig
