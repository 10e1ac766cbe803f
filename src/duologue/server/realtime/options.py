"""What a server does in its own way, and who plays what it says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from duologue.server.realtime.responses import Response
from duologue.server.realtime.seat import Alarms, Reply, Router
from duologue.server.realtime.session import Settings
from duologue.server.witness import Witnesses, nobody
from duologue.streaming.turns import OverlapConfig


class Player(Protocol):
    """Takes the speech where it does not go out inside events, such as to a track of WebRTC. It plays as fast as is to
    be heard, and tells the client of it: `output_audio_buffer.*`."""

    def play(self, response: Response, samples: np.ndarray) -> None:
        """The next speech of a response, at the model's rate."""
        ...

    def finish(self) -> None:
        """No more speech comes of the response that was given last."""
        ...

    def played(self, response: Response) -> float:
        """Seconds of a response that were played by now; negative while it waits for others."""
        ...

    def stand(self, still: bool) -> None:
        """Stands still, or goes on."""
        ...

    def clear(self) -> list[tuple[Response, float]]:
        """Drops what was not played yet. Gives the responses that this cuts short, with the seconds of each played."""
        ...


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a server does in its own way."""

    settings: Settings = field(default_factory=Settings)
    router: Router | None = None
    reply: Reply | None = None
    alarms: Alarms | None = None  # what is said when its time has come, also in the middle of silence
    overlap: OverlapConfig | None = None  # how it is found out whether speech over an answer is to stop it
    echo: bool = False  # whether the answer is taken out of what the microphone hears
    opening: str = "Hello."  # stands for the user's words where a response is wanted and nothing was said
    witnesses: Witnesses = nobody  # who is told what happens
    silence: str = "Are you still there?"  # said when `idle_timeout_ms` has passed
    beyond: bool = False  # whether the client knows the `duologue.*` events; others end at an event they do not know
