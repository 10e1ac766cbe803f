"""Every error that duologue raises on purpose, one tree.

A message says, in one line, what was wanted, what came, and what to do about it. The command line prints that line and
exits with 2; anything else that escapes is a bug.
"""

from __future__ import annotations

import traceback


class DuologueError(Exception):
    """The root: catch this to catch everything raised on purpose."""


class ConfigError(DuologueError):
    """A configuration value or key is wrong."""


class ShapeError(DuologueError):
    """A tensor does not have the shape that a module needs."""


class AudioError(DuologueError):
    """Audio cannot be read, written or understood as audio."""


class CheckpointError(DuologueError):
    """A model folder or one of its parts is missing, damaged or of another kind."""


class PartError(DuologueError):
    """A part does not fit the model that it is put into."""


class DataError(DuologueError):
    """Training data or a manifest is missing or malformed."""


class TrainError(DuologueError):
    """A training run cannot start or go on."""


class ServerError(DuologueError):
    """The server cannot start, or a client broke the protocol."""


class BusyError(DuologueError):
    """There is no room for more, for now: no free place, or too much that waits."""


def where(error: BaseException) -> str:
    """What an error is and where it came from, without its message: that may hold what a user said."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = [f"{frame.filename.rpartition('duologue/')[2]}:{frame.lineno}" for frame in reversed(frames)]
    return f"{type(error).__name__} at {', from '.join(places) or 'an unknown place'}"


def in_a_line(error: BaseException) -> str:
    """An error for the log: one of our own in its words, any other by `where`."""
    return str(error) if isinstance(error, DuologueError) else where(error)
