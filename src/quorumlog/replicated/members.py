"""Changes of a group's members and of its leader, made at the leader by names."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from quorumlog.errors import InvalidArgument, NotLeader, Unavailable
from quorumlog.replicated.names import name_of
from quorumlog.replicated.roster import Roster
from quorumlog.replication.core.members import Members
from quorumlog.replication.replica import Replica
from quorumlog.types import NodeId

_POLL_S: Final = 0.05


class MemberChanges:
    """``replica`` gives that of this node; ``peers_changed`` has streams opened to who is new."""

    def __init__(
        self,
        replica: Callable[[], Replica],
        roster: Roster,
        address_of: Callable[[NodeId], str | None],
        peers_changed: Callable[[], None],
    ) -> None:
        self._replica = replica
        self._roster = roster
        self._address_of = address_of
        self._peers_changed = peers_changed

    async def admit(self, name: str, timeout_s: float) -> None:
        """See :meth:`quorumlog.replicated.replicated.Replicated.admit`."""
        self._leading()
        await self._roster.look()
        newcomer = self._roster.id_of(name)
        if newcomer is None:
            raise Unavailable(f"{name} does not answer: start it, then try again")
        self._peers_changed()
        await _until_done(partial(self._admit_once, newcomer), timeout_s)

    async def remove(self, name: str, timeout_s: float) -> None:
        """See :meth:`quorumlog.replicated.replicated.Replicated.remove`."""
        self._named(name)
        await _until_done(partial(self._remove_once, name), timeout_s)

    async def transfer(self, name: str, timeout_s: float) -> None:
        """See :meth:`quorumlog.replicated.replicated.Replicated.transfer`."""
        replica = self._leading()
        (target, *_) = self._named(name)
        await self.hand_over(replica, target, timeout_s)

    async def hand_over(self, replica: Replica, target: NodeId, timeout_s: float) -> None:
        """Raises Unavailable: not in time; this node leads on, if nobody else does."""
        replica.transfer_leadership(target)

        async def is_led() -> bool:
            return replica.core.leader_id == target

        await _until_done(is_led, timeout_s)

    # -- one step ------------------------------------------------------------------------------

    async def _admit_once(self, newcomer: NodeId) -> bool:
        members = self._leading().core.members
        if members.outgoing:
            return False
        same = [each for each in members.everybody if name_of(each) == name_of(newcomer)]
        if newcomer in members.voters and same == [newcomer]:
            return True
        voters = tuple(each for each in members.voters if each not in same)
        learners = tuple(each for each in members.learners if each not in same)
        if newcomer in members.learners:
            target = Members((*voters, newcomer), learners)
        else:
            target = Members(members.voters, (*learners, newcomer))
        await self._leading().propose_members(target)
        return False

    async def _remove_once(self, name: str) -> bool:
        # Not at the leader alone: one that removed itself leads no more.
        members = self._replica().core.members
        if members.outgoing:
            return False
        voters = tuple(each for each in members.voters if name_of(each) != name)
        learners = tuple(each for each in members.learners if name_of(each) != name)
        if voters == members.voters and learners == members.learners:
            return True
        await self._leading().propose_members(Members(voters, learners))
        return False

    def _named(self, name: str) -> list[NodeId]:
        """The voters of this name, at the leader."""
        voters = self._leading().core.members.voters
        named = [each for each in voters if name_of(each) == name]
        if not named:
            raise InvalidArgument(f"{name} is not one of the voters")
        return named

    def _leading(self) -> Replica:
        replica = self._replica()
        if not replica.serving:
            leader = replica.core.leader_id
            raise NotLeader(leader=None if leader is None else self._address_of(leader))
        return replica


async def _until_done(step: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
    """Take steps until one finds that all is done; one that is unavailable is tried again.

    Raises:
        Unavailable: not in time. NotLeader, InvalidArgument, OutcomeUnknown: what a step raises.
    """
    last: Unavailable | None = None
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    if await step():
                        return
                except NotLeader:
                    raise
                except Unavailable as error:
                    last = error
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        missing = last or "the others do not answer in time"
        raise Unavailable(f"not done within {timeout_s} s: {missing}") from last
