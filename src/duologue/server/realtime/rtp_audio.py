"""Sound over WebRTC: what comes from a caller as a stream without gaps, and what is said as a track that keeps time.

Needs aiortc.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError

from duologue.server.outbox import Outbox
from duologue.server.realtime.carrier import Carried
from duologue.server.realtime.events import ClientError, server_event
from duologue.server.realtime.opus_packets import seconds_of
from duologue.server.realtime.responses import Emit, Response
from duologue.streaming.events import Audio, Paused, Resumed

_CLOCK = 48_000  # Hz, in which RTP counts Opus
_RATE = 24_000  # Hz, at which speech is coded
_FRAME = 0.02  # seconds of a packet
_LATE = 0.1  # seconds behind, from which the track goes on from now
_MOST = 330.0  # seconds of speech that may wait to be played
_QUIET = 0.3  # seconds without a packet that are silence
_GAP = 1.0  # seconds that may be missing between two packets


class Gate:
    """Passes a caller's packets of Opus on as they come: no faster than real time, and none that is not Opus.

    Stands where aiortc has its jitter buffer. That one waits for four packets, and for sixteen once one was lost: good
    for who plays the sound, but here it is only heard, and every wait makes the answer later. What comes out of order
    is lost.
    """

    _REFUSED = 100  # packets in a row that seem to be old, after which the sender counts as begun anew
    _SPEED, _BURST = 1.1, 4.0  # seconds of sound a second; seconds at once

    def __init__(self, clock: Callable[[], float]):
        self._clock, self._at = clock, clock()
        self._left = self._BURST
        self._last: int | None = None
        self._old = 0

    def add(self, packet: Any) -> tuple[bool, JitterFrame | None]:
        """The next packet. Gives what aiortc's does: whether a whole picture is to be asked for; what to decode."""
        seconds = seconds_of(packet._data)
        if seconds is None or not self._newer(packet.sequence_number) or not self._affords(max(seconds, _FRAME / 2)):
            return False, None
        return False, JitterFrame(packet._data, packet.timestamp)

    def _newer(self, number: int) -> bool:
        old = self._last is not None and not 0 < (number - self._last) % 2**16 < 2**15
        self._old = self._old + 1 if old else 0
        if old and self._old < self._REFUSED:
            return False
        self._last = number
        return True

    def _affords(self, seconds: float) -> bool:
        now = self._clock()
        self._left, self._at = min(self._BURST, self._left + (now - self._at) * self._SPEED), now
        if self._left < seconds:
            return False
        self._left -= seconds
        return True


class Microphone:
    """A caller's sound on its way to a connection: silence where nothing comes, so that a turn ends there too."""

    def __init__(self, connection: Carried):
        self._connection = connection
        self._open()
        self._due: int | None = None  # the time of the next sample, on the track's clock

    def _open(self) -> None:
        self._format = self._connection.input_format
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=self._format.rate)  # holds 1 ms back

    async def run(self, track: MediaStreamTrack) -> None:
        """Listens until the track ends."""
        coming: asyncio.Task[Any] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(track.recv())
                done, _ = await asyncio.wait({coming}, timeout=_QUIET)
                if done:
                    self._take(coming.result())
                    coming = None
                elif self._due is not None:
                    self._due += round(_QUIET * _CLOCK)
                    self._hear(self._silence(_QUIET))
        except MediaStreamError:
            return
        finally:
            if coming is not None:
                coming.cancel()

    def _take(self, frame: av.AudioFrame) -> None:
        if self._connection.input_format is not self._format:
            self._open()
        begin, frame.pts = frame.pts or 0, None
        missing = 0.0 if self._due is None else (begin - self._due) / _CLOCK
        if 0 < missing <= _GAP:
            self._hear(self._silence(missing))
        self._due = begin + frame.samples
        for piece in self._resampler.resample(frame):
            self._hear(piece.to_ndarray()[0])

    def _silence(self, seconds: float) -> np.ndarray:
        return np.zeros(round(seconds * self._format.rate), np.float32)

    def _hear(self, samples: np.ndarray) -> None:
        with contextlib.suppress(ClientError):  # more waits than may; what comes now is lost
            self._connection.hear(self._format.encode(samples))


@dataclass
class _Run:
    """One response's speech. Samples at the track's rate."""

    response: Response
    length: int = 0
    played: int = 0
    finished: bool = False

    @property
    def over(self) -> bool:
        return self.finished and self.played >= self.length


class Speaker(MediaStreamTrack):
    """What the model says, as a track: a packet every 20 ms, silence where nothing is said.

    Args:
        rate: Hz, of the model's speech.
        emit: takes the events that tell what is being played.
    """

    kind = "audio"

    def __init__(self, rate: int, emit: Emit, *, clock: Callable[[], float]):
        super().__init__()
        self._emit, self._clock = emit, clock
        self._outbox = Outbox(rate, _RATE, most=_MOST)
        self._runs: deque[_Run] = deque()
        self._codec = opus_encoder()
        self._due: float | None = None
        self._sent = 0  # samples on RTP's clock

    # -- for a connection ---------------------------------------------------------------------------------------------

    def play(self, response: Response, samples: np.ndarray) -> None:
        if self._outbox.waiting > _MOST * _RATE:
            return
        if not self._runs or self._runs[-1].response is not response:
            self.finish()
            self._runs.append(_Run(response))
        before = self._outbox.waiting
        self._outbox.add(Audio(samples))
        self._runs[-1].length += self._outbox.waiting - before

    def finish(self) -> None:
        if self._runs and not self._runs[-1].finished:
            before = self._outbox.waiting
            self._outbox.finish()
            self._runs[-1].length += self._outbox.waiting - before
            self._runs[-1].finished = True

    def played(self, response: Response) -> float:
        before = 0
        for run in self._runs:
            if run.response is response:
                return (run.played - before) / _RATE
            before += run.length - run.played
        return response.seconds

    def stand(self, still: bool) -> None:
        self._outbox.add(Paused(0.0) if still else Resumed())

    def clear(self) -> list[tuple[Response, float]]:
        cut = [run for run in self._runs if not run.over]
        self._runs.clear()
        self._outbox.clear()
        for run in cut:
            if run.played:
                self._emit(server_event("output_audio_buffer.cleared", response_id=run.response.id))
        return [(run.response, run.played / _RATE) for run in cut]

    # -- for the sender -----------------------------------------------------------------------------------------------

    async def recv(self) -> av.Packet:
        """The next packet, when it is time for it."""
        while self.readyState == "live":
            now = self._clock()
            self._due = now if self._due is None else max(self._due + _FRAME, now - _LATE)
            await asyncio.sleep(max(0.0, self._due - now))
            for data in self._encode(self._next(round(_FRAME * _RATE))):
                packet = av.Packet(data)
                packet.pts, packet.time_base = self._sent, Fraction(1, _CLOCK)
                self._sent += round(_FRAME * _CLOCK)
                return packet
        raise MediaStreamError

    def _next(self, size: int) -> np.ndarray:
        before = self._outbox.waiting
        _, samples = self._outbox.take(size)
        self._count(before - self._outbox.waiting)
        return samples

    def _count(self, played: int) -> None:
        """Notes that so many samples more were played, and tells the client whose."""
        while self._runs:
            run = self._runs[0]
            step = min(played, run.length - run.played)
            if step and not run.played:
                self._emit(server_event("output_audio_buffer.started", response_id=run.response.id))
            run.played, played = run.played + step, played - step
            if not run.over:
                return
            self._runs.popleft()
            self._emit(server_event("output_audio_buffer.stopped", response_id=run.response.id))

    def _encode(self, samples: np.ndarray) -> list[bytes]:
        frame = av.AudioFrame.from_ndarray(np.clip(samples, -1, 1)[None].astype(np.float32), "flt", "mono")
        frame.sample_rate = _RATE
        return [bytes(packet) for packet in self._codec.encode(frame)]


def opus_encoder() -> av.AudioCodecContext:
    """Opus for networks that lose packets: each carries the one before it once more, coarsely."""
    codec = av.codec.CodecContext.create("libopus", "w")
    assert isinstance(codec, av.AudioCodecContext)
    codec.sample_rate, codec.layout, codec.format = _RATE, "mono", "flt"  # type: ignore[assignment]
    codec.bit_rate, codec.time_base = 40_000, Fraction(1, _RATE)
    codec.options = {"application": "voip", "frame_duration": "20", "compression_level": "5"}
    codec.options |= {"fec": "1", "packet_loss": "5"}
    codec.open()
    return codec
