"""Waiting for so long and no longer.

Where what is waited for and a cancellation come at the same moment, `asyncio.wait_for` before Python 3.12 gives the
first and loses the other: a task that was to end goes on.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def by_hand(awaitable: Awaitable[T], seconds: float) -> T:
    """`within` for Python 3.10."""
    task = asyncio.ensure_future(awaitable)
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
        if not done:
            raise asyncio.TimeoutError
        return task.result()
    finally:
        task.cancel()


async def _within(awaitable: Awaitable[T], seconds: float) -> T:
    async with asyncio.timeout(seconds):
        return await awaitable


within = _within if sys.version_info >= (3, 11) else by_hand
"""What an awaitable gives within so many seconds; asyncio.TimeoutError where they pass, and a cancellation cancels."""
