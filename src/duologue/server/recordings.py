"""Recordings of conversations, where they are asked for: a folder each, with the sound and what was said.

    20261122T161803Z-1a2b3c4d/
        conversation.wav     user left, answers right, on one time axis
        transcript.jsonl     first what the conversation is; then who said what, from when to when (seconds)

One thread writes. What it cannot write in time, or not at all, is missing from a recording; the conversation goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from duologue.audio.io import WavWriter
from duologue.errors import AudioError, ServerError, where
from duologue.server.session_log import short
from duologue.server.timeline import Streams, Timeline
from duologue.server.witness import Happening
from duologue.streaming.events import Audio

logger = logging.getLogger(__name__)

SOUND, TEXT = "conversation.wav", "transcript.jsonl"
_NAME = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{1,8}")
_STAMP = "%Y%m%dT%H%M%SZ"
_BEHIND = 0.5  # seconds that are waited for what belongs to a moment
_EVERY = 1.0  # seconds between two writings
_DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class RecordingConfig:
    """Where recordings go, and how much of them there may be."""

    folder: Path
    keep_days: float = 30.0
    longest: int = 512 * 2**20  # bytes of one: an hour and a half
    most: int = 20 * 2**30  # bytes of all; nothing more is recorded then until the oldest have gone
    waiting: int = 64 * 2**20  # bytes that wait to be written

    def __post_init__(self):
        if not self.keep_days > 0:
            raise ServerError(
                f"--keep-days: need more than 0 days, got {self.keep_days}; to keep none, leave --recordings out"
            )


class Recordings:
    """The recordings of a server.

    Args:
        clock: seconds, ever growing.
        wall: seconds since 1970.
    Raises:
        ServerError: the folder cannot be made or written to.
    """

    def __init__(
        self,
        config: RecordingConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ):
        self.config, self.clock, self.wall = config, clock, wall
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0  # bytes
        self._written = 0  # bytes of all recordings
        self._running: set[Recording] = set()
        self._thread = threading.Thread(target=self._run, name="recordings", daemon=True)
        try:
            config.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (config.folder / ".writable").touch()
            (config.folder / ".writable").unlink()
        except OSError as error:
            raise ServerError(f"--recordings: cannot write to {config.folder} ({error.strerror or error})") from error

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends every recording, and the thread."""
        self._jobs.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout=10.0)

    def open(self, kind: str, name: str, *, model: str, rate_in: int, rate: int, duplex: bool = False) -> Recording:
        """The recording of a conversation. Nothing is written before something happens."""
        timeline = Streams(rate_in, rate) if duplex else Timeline(rate_in, rate)
        return Recording(self, kind, name, timeline, model=model)

    def post(self, size: int, job: Callable[[], None]) -> bool:
        """Has something done on the thread. Returns whether there was room for its bytes."""
        with self._lock:
            if self._waiting + size > self.config.waiting:
                return False
            self._waiting += size

        def done() -> None:
            with self._lock:
                self._waiting -= size
            job()

        self._jobs.put(done)
        return True

    def make_room(self) -> None:
        """Deletes what is older than it may be."""
        oldest = datetime.fromtimestamp(self.wall(), timezone.utc) - timedelta(days=self.config.keep_days)
        self._written, deleted = 0, 0
        for folder, made in self._folders():
            size = sum(path.stat().st_size for path in (folder / SOUND, folder / TEXT) if path.is_file())
            if made >= oldest:
                self._written += size
                continue
            for path in (folder / SOUND, folder / TEXT):
                path.unlink(missing_ok=True)
            folder.rmdir()
            deleted += 1
        if deleted:
            logger.info("%d recordings older than %g days are deleted", deleted, self.config.keep_days)

    def _folders(self) -> Iterator[tuple[Path, datetime]]:
        for path in sorted(self.config.folder.iterdir()):
            found = _NAME.fullmatch(path.name)
            if found and path.is_dir() and not path.is_symlink():
                with contextlib.suppress(ValueError):
                    yield path, datetime.strptime(found[1], _STAMP).replace(tzinfo=timezone.utc)

    # -- on the thread ------------------------------------------------------------------------------------------------

    def room(self, size: int) -> bool:
        """Whether so many bytes may be written; then they count as written."""
        if self._written + size > self.config.most:
            return False
        self._written += size
        return True

    def running(self, recording: Recording, runs: bool) -> None:
        (self._running.add if runs else self._running.discard)(recording)

    def step(self) -> None:
        """Writes what is due of every recording."""
        for recording in list(self._running):
            recording.write()

    def _run(self) -> None:
        cleaned, stepped = -_DAY, self.clock()
        while True:
            try:
                job = self._jobs.get(timeout=_EVERY)
                if job is None:
                    break
                job()
            except queue.Empty:
                pass
            now = self.clock()
            if now >= stepped + _EVERY:
                stepped = now
                self.step()
            if now >= cleaned + _DAY:
                cleaned = now
                try:
                    self.make_room()
                except OSError as error:
                    logger.warning("old recordings cannot be deleted (%s)", error.strerror or type(error).__name__)
        for recording in list(self._running):
            recording.end()


class Recording:
    """One conversation: a witness. The methods of a witness come from anywhere, the others on the thread."""

    def __init__(self, recordings: Recordings, kind: str, name: str, timeline: Timeline | Streams, *, model: str):
        self._recordings, self._name = recordings, short(name)
        self._begin = recordings.clock()
        made = datetime.fromtimestamp(recordings.wall(), timezone.utc)
        self.folder = recordings.config.folder / f"{made.strftime(_STAMP)}-{self._name}"
        self._about = {"session": name, "protocol": kind, "model": model, "began": made.isoformat(timespec="seconds")}
        self._timeline = timeline
        self._sound: WavWriter | None = None
        self._size = 0
        self._lost = False  # whether something could not be taken
        self._begun = self._over = False  # whether there is something to record, and whether nothing more is recorded

    def hear(self, samples: np.ndarray) -> None:
        at = self._now()
        self._post(samples.nbytes, lambda: self._timeline.hear(at, samples))

    def happen(self, event: Happening) -> None:
        at = self._now()
        size = event.samples.nbytes if isinstance(event, Audio) else 256
        self._post(size, lambda: self._timeline.happen(at, event))

    def close(self) -> None:
        self._recordings.post(0, self.end)

    def _now(self) -> float:
        return self._recordings.clock() - self._begin

    def _post(self, size: int, job: Callable[[], None]) -> None:
        self._lost = self._lost or self._over or not self._recordings.post(size, lambda: self._do(job))

    # -- on the thread ------------------------------------------------------------------------------------------------

    def _do(self, job: Callable[[], None]) -> None:
        if self._over:
            return
        try:
            self._begun = True
            self._recordings.running(self, True)
            job()
        except Exception as error:
            self._give_up(where(error))

    def write(self, until: float | None = None) -> None:
        """Writes what is due, or all up to a time."""
        if self._over:
            return
        if self._lost:
            return self._give_up("it cannot be written as fast as it comes")
        try:
            samples = self._timeline.take(max(0.0, self._now() - _BEHIND) if until is None else until)
            lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in self._timeline.entries()]
            size = samples.size * 2 + sum(len(line.encode()) for line in lines)
            if self._sound is None:
                self.folder.mkdir(mode=0o700)
                lines.insert(0, json.dumps(self._about) + "\n")
                self._sound = WavWriter(self.folder / SOUND, self._timeline.rate, channels=2)
            if self._size + size > self._recordings.config.longest:
                return self._give_up("it is too long")
            if not self._recordings.room(size):
                return self._give_up("there are as many recordings as there may be")
            self._size += size
            if lines:
                with open(self.folder / TEXT, "a", encoding="utf-8") as file:
                    file.writelines(lines)
            if len(samples):
                self._sound.write(samples)
        except (AudioError, OSError) as error:
            self._give_up(error.strerror if isinstance(error, OSError) and error.strerror else "it cannot be written")
        except Exception as error:
            self._give_up(where(error))

    def end(self) -> None:
        """Writes what is left."""
        if self._begun and not self._over:
            self._timeline.close()
            self.write(self._timeline.end)
        self._stop()

    def _give_up(self, why: str) -> None:
        if not self._over:
            logger.warning("%s: is recorded no further: %s", self._name, why)
        self._stop()

    def _stop(self) -> None:
        self._over = True
        self._recordings.running(self, False)
        if self._sound is not None:
            self._sound.close()
