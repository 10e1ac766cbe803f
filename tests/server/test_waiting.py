"""Waiting ends: when it comes, when the time is over, and when it is cancelled, whatever else happens then."""

from __future__ import annotations

import asyncio

import pytest

from duologue.server.waiting import by_hand, within


@pytest.mark.parametrize("wait", [within, by_hand])
def test_a_cancellation_is_not_lost_to_what_comes_at_the_same_moment(wait):
    async def scene():
        coming = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(wait(coming, 10))
        await asyncio.sleep(0.01)
        coming.set_result("here")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene())


@pytest.mark.parametrize("wait", [within, by_hand])
def test_what_comes_is_given_and_what_does_not_is_cancelled(wait):
    async def scene():
        queue: asyncio.Queue[int] = asyncio.Queue()
        queue.put_nowait(1)
        assert await wait(queue.get(), 10) == 1
        with pytest.raises(asyncio.TimeoutError):
            await wait(queue.get(), 0.01)
        with pytest.raises(ZeroDivisionError):
            await wait(broken(), 10)
        await asyncio.sleep(0)
        queue.put_nowait(2)
        assert queue.get_nowait() == 2  # nobody waits any more who would take it

    async def broken():
        return 1 / 0

    asyncio.run(scene())
