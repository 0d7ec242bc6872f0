"""Calling handlers without gRPC."""

import asyncio
from collections.abc import AsyncIterator, Awaitable

import pytest

from fakes.context import Aborted
from quorumlog.errors import QuorumlogError
from quorumlog.rpc_status import error_from_rpc


async def aborted(call: Awaitable[object] | AsyncIterator[object]) -> Aborted:
    """The status that awaiting ``call``, or reading it to its end, ends with."""

    async def finish() -> None:
        if isinstance(call, AsyncIterator):
            async for _ in call:
                pass
        else:
            await call

    with pytest.raises(Aborted) as caught:
        await finish()
    return caught.value


async def failure(call: Awaitable[object] | AsyncIterator[object]) -> QuorumlogError:
    """The typed error that the call ends with, as a client rebuilds it."""
    return error_from_rpc(await aborted(call))


async def settle() -> None:
    """Let everything that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)
