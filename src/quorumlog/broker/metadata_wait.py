"""Waiting until this node's metadata has caught up with something decided elsewhere."""

import asyncio
from collections.abc import Callable

from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.metadata_changes import Change


async def wait_for_metadata(
    metadata: MetadataState, condition: Callable[[], bool], timeout_s: float
) -> bool:
    """Whether ``condition`` holds within ``timeout_s``; looked at after each change, not polled."""
    if condition():
        return True
    reached = asyncio.get_running_loop().create_future()

    def look(change: Change) -> None:
        if not reached.done() and condition():
            reached.set_result(None)

    stop = metadata.on_change(look)
    try:
        async with asyncio.timeout(timeout_s):
            await reached
    except TimeoutError:
        return condition()
    finally:
        stop()
    return True
