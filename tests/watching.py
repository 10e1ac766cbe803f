"""A server in this process that is watched as one in another process is: its address, and what it logs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from serving import served

from duologue.eval.watched import Watched
from duologue.server.app import Server


class _Rows(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[str] = []
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.rows += self.format(record).splitlines()


@contextlib.contextmanager
def watched(model=None, **config) -> Iterator[tuple[Watched, Server]]:
    """Its log is whole once it has ended. uvicorn's is apart from the others'."""
    handler = _Rows()
    loggers = [logging.getLogger(), logging.getLogger("uvicorn")]
    try:
        with served(model, **config) as (address, server):
            for logger in loggers:
                logger.addHandler(handler)
            yield Watched(address, handler.rows), server
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
