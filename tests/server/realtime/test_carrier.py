from __future__ import annotations

import asyncio

import pytest

from duologue.server.allowance import Allowance
from duologue.server.realtime import RealtimeLimits
from duologue.server.realtime.carrier import Unread


def test_who_sends_too_fast_waits_for_just_what_is_too_much():
    allowance = Allowance(10.0, 3.0, now=0.0)
    assert [allowance.wait(1, now=0.0) for _ in range(3)] == [0, 0, 0]
    assert allowance.wait(1, now=0.0) == pytest.approx(0.1)
    assert allowance.wait(1, now=0.1) == pytest.approx(0.1)  # the one before was waited for
    assert allowance.wait(1, now=100.0) == 0


@pytest.mark.parametrize("limits", [RealtimeLimits(unread=3), RealtimeLimits(unread_size=8)])
def test_events_that_wait_are_read_in_order_and_so_many_may_wait(limits):
    read = list[str]()

    async def talk() -> None:
        unread = Unread(read.append, limits)
        assert all(unread.put(raw) for raw in ("ab", "cd", "ef"))
        assert not unread.put("too much")
        task = asyncio.create_task(unread.run())
        while len(read) < 3:
            await asyncio.sleep(0)
        assert unread.put("gh")
        while len(read) < 4:
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(talk())
    assert read == ["ab", "cd", "ef", "gh"]
