"""Any chunks in, whole frames out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class Framer:
    """Cuts a stream of mono float32 chunks of any length into frames of one length."""

    def __init__(self, size: int):
        self.size = size  # samples
        self._held = np.zeros(0, np.float32)

    @property
    def held(self) -> int:
        """Samples that wait for the rest of their frame."""
        return len(self._held)

    def push(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Takes the next samples and gives every frame that they complete."""
        held = np.concatenate([self._held, samples]) if len(self._held) else samples
        whole = len(held) - len(held) % self.size
        self._held = held[whole:].copy()  # a copy, so that the caller may reuse its buffer
        return iter(held[:whole].reshape(-1, self.size))

    def flush(self) -> np.ndarray | None:
        """The last frame, filled up with silence, or None where nothing waits. The stream starts afresh."""
        held, self._held = self._held, np.zeros(0, np.float32)
        return np.pad(held, (0, self.size - len(held))) if len(held) else None
