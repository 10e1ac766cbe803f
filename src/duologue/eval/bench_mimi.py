"""How fast Mimi streams: ours beside the `moshi` package and `rustymimi`, on the same weights, frame by frame in turn.

Every round gives each codec one frame to encode and one to decode, so that whatever else the machine does falls on all
of them alike, and what is compared are the times of the same round. torch's threads are set for the time of the run;
`rustymimi` takes all cores that the process may use, so start the process with as many (`taskset`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from duologue.errors import ConfigError
from duologue.eval.metrics import percentile
from duologue.streaming.state import State

FRAME = 1920  # samples of 80 ms at 24 kHz
RIVALS = ("moshi", "rustymimi")


class Codec(Protocol):
    """What is needed of ours (`codecs.mimi.Mimi`)."""

    def init_state(self, slots: int) -> Any: ...
    def encode(self, audio_BN: Tensor, state: Any, live_B: Tensor, *, num_codebooks: int | None = None) -> Tensor: ...
    def decode(self, codes_BKT: Tensor, state: Any, live_B: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Stream:
    """One codec in the middle of a stream: a frame in and out."""

    encode: Callable[[Tensor], Any]  # [B, FRAME] -> codes as this codec has them
    decode: Callable[[Any], Any]


@dataclass(frozen=True)
class Speed:
    """Milliseconds of wall clock a frame, of all rows together; medians over the rounds."""

    encode: float
    decode: float
    both: float
    both_p95: float
    cpu: float  # of all threads, both ways

    def line(self) -> str:
        return (
            f"encode {self.encode:6.1f}  decode {self.decode:6.1f}  both {self.both:6.1f} ms"
            f"  (p95 {self.both_p95:.1f}, cpu {self.cpu:.1f})"
        )


@dataclass(frozen=True)
class Comparison:
    speeds: dict[str, Speed]
    both: dict[str, list[float]]  # ms of every round, encode and decode together
    faster: dict[str, dict[str, float]]  # ours, rival: how many times faster ours is, the median over the rounds


def compare(
    ours: Mapping[str, Codec],
    weights: Path,
    *,
    rivals: tuple[str, ...] = RIVALS,
    threads: int = 2,
    rounds: int = 40,
    warm_up: int = 5,
    rows: int = 1,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda done, count: None,
) -> Comparison:
    """Streams noise through every codec.

    Args:
        ours: by the names that the result has; for example as it is, packed, and in bfloat16.
        weights: the same weights in kyutai's layout (`codecs.mimi_weights.save_mimi`), for the rivals.
        rows: conversations at once; `rustymimi` has one, so it is left out of more.
        tell: called with rounds done and rounds in all.
    Raises:
        ConfigError: a rival that is not known or not installed.
    """
    found = [rival for rival in rivals if rival != "rustymimi" or rows == 1]
    noise = np.random.default_rng(seed).normal(0, 0.1, (warm_up + rounds, rows, FRAME)).astype(np.float32)
    with _threads(threads), torch.inference_mode():
        streams = {name: own_stream(codec, rows) for name, codec in ours.items()}
        streams |= {rival: _rival(rival, weights, rows) for rival in found}
        times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in streams}
        for done, frame_BN in enumerate(torch.from_numpy(noise)):
            tell(done + 1, len(noise))
            for name, stream in streams.items():
                times[name].append(_frame(stream, frame_BN))
    kept = {name: np.array(rows[warm_up:]) * 1e3 for name, rows in times.items()}
    both = {name: table[:, :2].sum(1) for name, table in kept.items()}
    return Comparison(
        {name: _speed(table) for name, table in kept.items()},
        {name: table.tolist() for name, table in both.items()},
        {own: {rival: float(np.median(both[rival] / both[own])) for rival in found} for own in ours},
    )


def installed() -> tuple[str, ...]:
    """The rivals whose packages are there."""
    return tuple(name for name in RIVALS if find_spec(name) is not None)


def own_stream(codec: Codec, rows: int) -> Stream:
    state, live_B = codec.init_state(rows), torch.ones(rows, dtype=torch.bool)
    if not isinstance(state, State):
        raise ConfigError(f"bench mimi: need a codec whose state is a State, got {type(state).__name__}")
    return Stream(
        lambda audio_BN: codec.encode(audio_BN, state.encoder, live_B),  # type: ignore[attr-defined]
        lambda codes_BKT: codec.decode(codes_BKT, state.decoder, live_B),  # type: ignore[attr-defined]
    )


def _rival(name: str, weights: Path, rows: int) -> Stream:
    try:
        if name == "moshi":
            from moshi.models.loaders import get_mimi

            model = get_mimi(weights, num_codebooks=8)
            model.streaming_forever(rows)
            return Stream(lambda audio_BN: model.encode(audio_BN[:, None]), model.decode)
        if name == "rustymimi":
            from rustymimi import Tokenizer

            tokenizer = Tokenizer(str(weights), num_codebooks=8)
            return Stream(lambda audio_BN: tokenizer.encode_step(audio_BN[:, None].numpy()), tokenizer.decode_step)
    except ImportError as error:
        raise ConfigError(f"bench mimi: {error}. Install it: pip install --no-deps {name}") from error
    raise ConfigError(f"bench mimi: the rivals are {', '.join(RIVALS)}, got {name!r}")


def _frame(stream: Stream, frame_BN: Tensor) -> tuple[float, float, float]:
    """Seconds to encode and to decode a frame, and of processor for both."""
    cpu, begin = time.process_time(), time.perf_counter()
    codes = stream.encode(frame_BN)
    middle = time.perf_counter()
    stream.decode(codes)
    return middle - begin, time.perf_counter() - middle, time.process_time() - cpu


def _speed(table: np.ndarray) -> Speed:
    both = table[:, :2].sum(1)
    encode, decode, cpu = (float(value) for value in np.median(table, axis=0))
    return Speed(encode, decode, float(np.median(both)), percentile(both.tolist(), 95), cpu)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
