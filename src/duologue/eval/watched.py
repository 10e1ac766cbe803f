"""A server in a process of its own, watched from outside: its places, its log, its memory."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from duologue.errors import DataError
from duologue.eval.wire import places

_READY = 300.0  # seconds that a server may take to start
_POLL = 0.02  # seconds between two looks at the places
_BAD = re.compile(r"Traceback|\bERROR\b|\bCRITICAL\b|Exception|never (retrieved|awaited)")


@dataclass
class Watched:
    """A running server.

    Args:
        address: host and port.
        log: its lines so far, and those to come.
        process: of psutil; None: it shares ours, so that its memory cannot be told from it.
    """

    address: str
    log: Sequence[str] = field(default_factory=list)
    process: Any = None

    async def places(self) -> tuple[int, int]:
        """See `wire.places`."""
        return await places(self.address)

    async def freed(self, taken: Callable[[], int] = lambda: 0, *, within: float) -> float | None:
        """Seconds until all places are free but those that are `taken` with right; None: they do not come back.

        Twice in a row: who holds one with right may be on the way from one conversation to the next.
        """
        begin, good = time.monotonic(), 0
        while (now := time.monotonic()) < begin + within:
            free, places = await self.places()
            good = good + 1 if free >= places - taken() else 0
            if good == 2:
                return now - begin
            await asyncio.sleep(_POLL)
        return None

    def complaints(self) -> list[str]:
        """Lines of the log that only a fault of the server's own can have caused."""
        return [row for row in list(self.log) if _BAD.search(row)]

    async def resident(self, *, rest: float = 3.0) -> float:
        """Bytes of memory that the server holds when it does nothing: the least within some seconds; 0: not known."""
        if self.process is None:
            return 0.0
        found = []
        for _ in range(6):
            await asyncio.sleep(rest / 6)
            found.append(float(self.process.memory_info().rss))
        return min(found)

    def files(self) -> int:
        """Open files and sockets; 0: not known."""
        return self.process.num_fds() if self.process is not None and hasattr(self.process, "num_fds") else 0


@contextlib.contextmanager
def started(model: str, *options: str) -> Iterator[Watched]:
    """A server on a free port.

    Raises:
        DataError: it does not start; its last line of error is told.
    """
    import psutil

    argv = [sys.executable, "-m", "duologue", "serve", "--model", model, "--port", "0", *options]
    with (
        tempfile.TemporaryFile("w+") as rest,
        subprocess.Popen(argv, stdout=rest, stderr=subprocess.PIPE, text=True, errors="replace") as process,
    ):
        alarm = threading.Timer(_READY, process.kill)
        alarm.start()
        assert process.stderr is not None  # it was asked for
        lines: list[str] = []
        found = None
        for row in process.stderr:
            lines.append(row.rstrip())
            if found := re.search(r"https?://localhost:(\d+)", row):
                break
        alarm.cancel()
        if not found:
            raise DataError(f"the server of {model} did not start: {(lines or ['no word from it'])[-1]}")
        threading.Thread(target=_keep, args=(process.stderr, lines), daemon=True).start()
        try:
            yield Watched(f"127.0.0.1:{found.group(1)}", lines, psutil.Process(process.pid))
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _keep(pipe: Any, lines: list[str]) -> None:
    """Reads on, so that the server never waits for its reader, and keeps what may matter: its tracebacks whole."""
    inside = 0  # lines of a traceback still to be kept
    with contextlib.suppress(ValueError):  # closed, with the server
        for row in pipe:
            inside = 60 if _BAD.search(row) else inside - 1
            if inside > 0 or "WARNING" in row:
                lines.append(row.rstrip())
