"""What every vocoder is to those who call it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from duologue.streaming.state import State


class Vocoder(Protocol):
    """Turns speech units into a waveform, chunk by chunk; any chunking gives the same waveform."""

    sample_rate: int  # Hz
    num_units: int

    def init_state(self, slots: int) -> State: ...

    def forward(
        self,
        units_BT: Tensor,
        counts_B: Tensor,
        state: State,
        live_B: Tensor,
        final_B: Tensor,
        prosody_BTP: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Takes the next units of each live slot and gives every sample that they settle.

        Args:
            units_BT: the first counts_B[b] of row b count, the rest is padding.
            final_B: nothing follows in this slot: what was held back is given too, and the slot is a stream not begun.
            prosody_BTP: log length (frames of 12.5 ms), log f0 (Hz, 0: unvoiced) and log energy of each unit. None: the
                vocoder's own guess.
        Returns:
            audio_BN in [-1, 1], and samples_B, how many of each row are real (0 in rows that are not live).
        """
        ...
