"""So many malformed events over every protocol, and whether the server is afterwards what it was before."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from duologue.errors import DataError
from duologue.eval import (
    hostile_calls,
    hostile_events,
    hostile_http,
    hostile_moshi,
    hostile_requests,
    hostile_sockets,
    hostile_talk,
)
from duologue.eval.hostile import Wrong
from duologue.eval.metrics import Interval
from duologue.eval.talk import hold
from duologue.eval.tasks import Outcome
from duologue.eval.watched import Watched

SHARES = {  # of the events, by protocol, and how many go over one connection
    "realtime": (0.40, 50),
    "beta": (0.14, 50),
    "webrtc": (0.08, 50),
    "moshi": (0.10, 12),
    "http": (0.18, 25),
    "offers": (0.05, 25),
    "handshakes": (0.02, 20),
    "frames": (0.03, 20),
}
AT_ONCE = 4  # connections
_QUESTION = "What is your name?"
_BACK = 5.0  # seconds until every place is free
_STUCK = 300.0  # seconds that one connection's share may take


@dataclass(frozen=True)
class Found:
    """What was sent and what came of it."""

    sent: dict[str, int]  # events by protocol
    wrong: list[Wrong]
    complaints: list[str]  # in the server's log
    lost: int  # places that did not come back
    resident: tuple[float, float, float]  # bytes of memory: at work, after half of it, after all of it
    files: int  # open files more than before
    same: bool  # whether a conversation goes as it went before


@dataclass
class Plan:
    """Pieces of work, each with its own chance, so that the same seed sends the same."""

    address: str
    seed: int
    sdp: str
    wrong: list[Wrong] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)

    def jobs(self, count: int) -> list[tuple[str, int, int]]:
        """(protocol, number, events) of every piece, mixed."""
        made = []
        for name, (share, size) in SHARES.items():
            left = max(1, round(share * count))
            for number in range(-(-left // size)):
                made.append((name, number, min(size, left - number * size)))
        random.Random(self.seed).shuffle(made)
        return made

    async def do(self, name: str, number: int, count: int) -> None:
        """One piece. What it dies of is wrong too: nothing that is sent may end the server."""
        chance = random.Random(f"{self.seed}/{name}/{number}")
        try:
            self.wrong += await asyncio.wait_for(_WORK[name](self, chance, count), _STUCK)
        except Exception as error:  # of whatever library stands between; it is told with its name
            self.wrong.append(
                Wrong(name, f"piece {number}", "a server that goes on", f"{type(error).__name__}: {error}")
            )
        self.sent[name] += count

    async def large(self) -> None:
        """What is larger than there may be."""
        found = [await hostile_sockets.too_large(self.address), await hostile_requests.much(self.address)]
        self.wrong += [wrong for wrong in found if wrong is not None]

    async def _events(self, chance: random.Random, count: int, *, old: bool = False) -> list[Wrong]:
        cases = itertools.islice(hostile_events.cases(chance, old=old), count)
        return await hostile_talk.over_websocket(self.address, cases, old=old)

    async def _beta(self, chance: random.Random, count: int) -> list[Wrong]:
        return await self._events(chance, count, old=True)

    async def _webrtc(self, chance: random.Random, count: int) -> list[Wrong]:
        cases = itertools.islice(hostile_events.cases(chance, webrtc=True), count)
        return await hostile_calls.over_webrtc(self.address, cases)

    async def _moshi(self, chance: random.Random, count: int) -> list[Wrong]:
        return await hostile_moshi.check(self.address, chance, count - 1)

    async def _http(self, chance: random.Random, count: int) -> list[Wrong]:
        return await _each(count, lambda: hostile_http.check(self.address, hostile_requests.draw(chance)))

    async def _offers(self, chance: random.Random, count: int) -> list[Wrong]:
        def one() -> Awaitable[Wrong | None]:
            return hostile_calls.check(self.address, hostile_calls.some_offer(chance, self.sdp, host=self.address))

        return await _each(count, one)

    async def _handshakes(self, chance: random.Random, count: int) -> list[Wrong]:
        def one() -> Awaitable[Wrong | None]:
            return hostile_sockets.shake_hands(self.address, hostile_sockets.some_handshake(chance, self.address))

        return await _each(count, one)

    async def _frames(self, chance: random.Random, count: int) -> list[Wrong]:
        def one() -> Awaitable[Wrong | None]:
            frames, path = hostile_sockets.some_frames(chance), chance.choice(hostile_sockets.PATHS)
            return hostile_sockets.send_frames(self.address, frames, path)

        return await _each(count, one)


_WORK: dict[str, Callable[[Plan, random.Random, int], Awaitable[list[Wrong]]]] = {
    "realtime": Plan._events,
    "beta": Plan._beta,
    "webrtc": Plan._webrtc,
    "moshi": Plan._moshi,
    "http": Plan._http,
    "offers": Plan._offers,
    "handshakes": Plan._handshakes,
    "frames": Plan._frames,
}


async def _each(count: int, one: Callable[[], Awaitable[Wrong | None]]) -> list[Wrong]:
    return [wrong for _ in range(count) if (wrong := await one()) is not None]


async def run(
    server: Watched,
    *,
    count: int,
    seed: int = 0,
    at_once: int = AT_ONCE,
    rest: float = 3.0,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """Sends so many; a tenth before that, so that the server is at work. Memory is looked at in the middle and the end:
    what is reserved once, for the most that was ever needed, grows no more by then, and what is lost goes on.

    Raises:
        DataError: the server does not even talk with an honest client, or is gone at the end.
    """
    sdp = await hostile_calls.good_offer()
    plan = Plan(server.address, seed, sdp)
    warm = Plan(server.address, seed + 1, sdp)
    await _all(warm, warm.jobs(max(40, count // 10)), at_once, lambda done: None)
    await warm.large()
    reference = await hold(server.address, [_QUESTION])
    before, files = await server.resident(rest=rest), server.files()
    jobs = plan.jobs(count)
    await _all(plan, jobs[: len(jobs) // 2], at_once, lambda done: tell(done, count))
    await plan.large()
    middle = await server.resident(rest=rest)
    await _all(plan, jobs[len(jobs) // 2 :], at_once, lambda done: tell(done, count))
    await plan.large()
    lost = 0
    if await server.freed(within=_BACK) is None:
        free, places = await server.places()
        lost = places - free
    try:
        same = all(
            one.same(other) for one, other in zip(reference, await hold(server.address, [_QUESTION]), strict=True)
        )
    except DataError:
        same = False
    after = await server.resident(rest=rest)
    more = max(0, server.files() - files)
    resident = (before, middle, after)
    return Found(dict(plan.sent), warm.wrong + plan.wrong, server.complaints(), lost, resident, more, same)


async def _all(plan: Plan, jobs: list[tuple[str, int, int]], at_once: int, tell: Callable[[int], None]) -> None:
    left = iter(jobs)

    async def work() -> None:
        for job in left:
            await plan.do(*job)
            tell(plan.sent.total())

    await asyncio.gather(*(work() for _ in range(at_once)))


def outcome(found: Found) -> Outcome:
    _, middle, after = found.resident
    growth = after / middle - 1 if middle else 0.0
    numbers = {
        "hostile_wrong": float(len(found.wrong)),
        "hostile_complaints": float(len(found.complaints)),
        "hostile_lost": float(found.lost),
        "hostile_changed": float(not found.same),
        "hostile_growth": growth,
    }
    details: dict[str, Any] = {
        "sent": found.sent,
        "wrong": [wrong.as_dict() for wrong in found.wrong[:500]],
        "complaints": found.complaints[:200],
        "resident_mib": [each / 2**20 for each in found.resident],
        "files": found.files,
    }
    values = {name: Interval(value, value, value) for name, value in numbers.items()}
    return Outcome(values=values, count=sum(found.sent.values()), details=details)
