"""Five real processes with the settings of a local network: everybody sees who joins.

How soon is measured, not tested: ``make bench ONLY=discovery``.
"""

from contextlib import AsyncExitStack

from bench.gossip_member import MemberProcess


async def test_a_join_becomes_visible_on_all_five() -> None:
    names = [f"member-{number}" for number in range(1, 6)]
    async with AsyncExitStack() as stack:
        members: list[MemberProcess] = []
        for name in names:
            # Each knows the one before it only.
            seeds = [member.address for member in members[-1:]]
            members.append(await MemberProcess.start(name, seeds))
            stack.push_async_callback(members[-1].stop)
        for member in members:
            await member.sees(names)
