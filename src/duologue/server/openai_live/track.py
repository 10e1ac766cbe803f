"""What the model says in a Live session, as a track of WebRTC: a packet every 20 ms.

Needs aiortc.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from duologue.server.realtime.rtp_audio import opus_encoder

RATE = 24_000  # Hz
_CLOCK = 48_000  # Hz, in which RTP counts Opus
_FRAME = 0.02  # seconds of a packet
_LATE = 0.1  # seconds behind, from which the track goes on from now


class LiveTrack(MediaStreamTrack):
    """Keeps time.

    Args:
        take: gives the next samples, at `RATE`.
    """

    kind = "audio"

    def __init__(self, take: Callable[[int], np.ndarray], *, clock: Callable[[], float]):
        super().__init__()
        self._take, self._clock, self._codec = take, clock, opus_encoder()
        self._due: float | None = None
        self._sent = 0  # samples on RTP's clock

    async def recv(self) -> av.Packet:
        """The next packet, when it is time for it."""
        while self.readyState == "live":
            now = self._clock()
            self._due = now if self._due is None else max(self._due + _FRAME, now - _LATE)
            await asyncio.sleep(max(0.0, self._due - now))
            samples = np.clip(self._take(round(_FRAME * RATE)), -1, 1)[None].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, "flt", "mono")
            frame.sample_rate = RATE
            for data in self._codec.encode(frame):
                packet = av.Packet(bytes(data))
                packet.pts, packet.time_base = self._sent, Fraction(1, _CLOCK)
                self._sent += round(_FRAME * _CLOCK)
                return packet
        raise MediaStreamError
