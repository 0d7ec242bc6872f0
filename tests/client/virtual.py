"""Run a coroutine in virtual time: two minutes of timeout cost nothing, nothing is random."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from sim.loop import SimLoop

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T], end_s: float = 3600.0) -> T:
    """The coroutine's result. A task that fails unseen fails the run."""
    loop = SimLoop(end_s=end_s)
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(coroutine)
    finally:
        asyncio.set_event_loop(None)
        loop.dispose()
