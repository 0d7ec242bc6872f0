"""Five real processes with the settings of a local network: everybody sees who joins.

How soon is measured, not tested: ``make bench ONLY=discovery``. But it is the join that is heard
of, not the exchange of states that comes within half a minute anyway.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Final

from bench.gossip_member import MemberProcess
from quorumlog.discovery.config import GossipConfig

_PATIENCE_S: Final = 20.0
"""Most joins take below 0.1 s."""


async def test_a_join_becomes_visible_on_all_five() -> None:
    names = [f"member-{number}" for number in range(1, 6)]
    async with AsyncExitStack() as stack:
        members: list[MemberProcess] = []
        for name in names:
            # Each knows the one before it only.
            seeds = [member.address for member in members[-1:]]
            members.append(await MemberProcess.start(name, seeds))
            stack.push_async_callback(members[-1].stop)
        assert GossipConfig.lan().push_pull_interval_s > _PATIENCE_S
        async with asyncio.timeout(_PATIENCE_S):
            for member in members:
                await member.sees(names)
