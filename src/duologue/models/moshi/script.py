"""A text that Moshi is to say: what it says is given, when it says it the model decides.

Where the model would begin a word of its own it is given the text's next one; between words it rests as long as it
likes, up to a bound. So the sound has the model's own pace and pauses. After the action stream of delayed streams
modeling (Zeghidour et al. 2025, arXiv:2509.08753), section 3.3, where the same model is a speech synthesiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from duologue.errors import PartError
from duologue.streaming.state import State

LONGEST = 512  # tokens that may wait to be said
_REST = 12  # frames between two words, after which the next one comes


@dataclass
class Script(State):
    waiting_BT: Tensor  # ids plus 1, less than 0 where a word begins; 0: nothing
    place_B: Tensor  # the next one
    rested_B: Tensor  # frames since the last one


def init_script(slots: int, device: torch.device) -> Script:
    """Nothing is to be said."""
    ids_BT = torch.zeros(slots, LONGEST, dtype=torch.int64, device=device)
    return Script(ids_BT, torch.zeros_like(ids_BT[:, 0]), torch.zeros_like(ids_BT[:, 0]))


def append(script: Script, slot: int, ids: Sequence[int], begins: Sequence[bool]) -> None:
    """Has these said after what waits already.

    Args:
        begins: where a word begins.
    Raises:
        PartError: more than may wait.
    """
    row = script.waiting_BT[slot]
    rest = row[int(script.place_B[slot]) :]
    kept = rest[rest != 0]
    if len(kept) + len(ids) > LONGEST:
        raise PartError(f"say: at most {LONGEST} pieces of text may wait, got {len(ids)} beside {len(kept)}; say less")
    coming = [-(token + 1) if begin else token + 1 for token, begin in zip(ids, begins, strict=True)]
    whole = torch.cat([kept, torch.tensor(coming, dtype=row.dtype, device=row.device)])
    row.zero_()
    row[: len(whole)] = whole
    script.rested_B[slot] = 0 if len(kept) else _REST  # the first word comes at once
    script.place_B[slot] = 0


def follow(script: Script, rows_R: Tensor, drawn_R: Tensor, *, rests: Sequence[int], free_R: Tensor) -> Tensor:
    """What is said instead of the text tokens that were drawn, [R].

    Args:
        rests: ids that stand for no text.
        free_R: bool: the token is not given otherwise.
    """
    place_R = script.place_B[rows_R]
    next_R = torch.where(place_R < LONGEST, script.waiting_BT[rows_R, place_R.clamp(max=LONGEST - 1)], 0)
    if not bool(next_R.any()):
        return drawn_R
    rests_R = torch.isin(drawn_R, torch.tensor(list(rests), device=drawn_R.device))
    rested_R = script.rested_B[rows_R]
    comes_R = free_R & (next_R != 0) & ((next_R > 0) | ~rests_R | (rested_R >= _REST))
    script.place_B[rows_R] = place_R + comes_R
    script.rested_B[rows_R] = torch.where(comes_R, 0, rested_R + free_R)
    return torch.where(comes_R, next_R.abs() - 1, drawn_R)
