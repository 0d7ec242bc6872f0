"""Keeps the replicas of this node what the committed metadata says they are."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.metadata_changes import Change, PartitionRemoved
from quorumlog.broker.partition import PartitionMachine
from quorumlog.broker.past_groups import first_new_group
from quorumlog.broker.topic_config import TopicConfig
from quorumlog.broker.topics import PartitionInfo
from quorumlog.errors import Corrupt, DiskFull, QuorumlogError
from quorumlog.log.config import LogConfig
from quorumlog.replication.core.members import Members
from quorumlog.replication.host import GroupHost
from quorumlog.replication.replica import Replica
from quorumlog.types import METADATA_GROUP, GroupId, Index, NodeId

_log = structlog.get_logger()

_FIRST_CAMPAIGNS_S = (0.02, 0.1)
"""A new partition's first replica asks for votes this long after it opened, unless there is a
leader: others open theirs in the same moment, and the first is where the placement wants it."""

_LOOK_S: Final = 0.02
"""While the metadata's log waits for the disk: how often to see whether it is durable."""

_LOOK_AT_REST_S: Final = 0.5
"""While the metadata are those of before the start, and something may have to go."""

_WRITE_AGAIN_S: Final = 1.0
"""After a write of the list of groups that failed."""


class PartitionKeeper:
    """One task calls :meth:`reconcile` whenever the metadata has changed, or it asks so.

    ``machines`` holds the state of every open partition. A damaged one is left closed, as it is on
    disk, and said so once; the others go on.

    A group is not opened before the command that gave it out is durable here: then the metadata's
    log says which groups this node may have had (:mod:`quorumlog.broker.past_groups`).
    """

    def __init__(
        self,
        *,
        node_id: NodeId,
        host: GroupHost,
        metadata: MetadataState,
        log_config: Callable[[TopicConfig], LogConfig],
        is_durable: Callable[[], bool],
        is_caught_up: Callable[[], bool],
        look_again: Callable[[], None],
    ) -> None:
        """``log_config`` makes the settings of a partition's log from those of its topic.

        ``is_durable`` says whether all that ``metadata`` have applied is durable on this node;
        ``look_again`` has :meth:`reconcile` called soon.
        """
        self.machines: dict[GroupId, PartitionMachine] = {}
        self._node_id = node_id
        self._host = host
        self._metadata = metadata
        self._log_config = log_config
        self._is_durable = is_durable
        self._is_caught_up = is_caught_up
        self._look_again = look_again
        self._opened_with: dict[GroupId, LogConfig] = {}
        self._removed: list[GroupId] = []
        self._strays: set[GroupId] = set()
        self._damaged: set[GroupId] = set()
        self._looked_at_stored = False
        self._first_new: GroupId | None = None
        self._list_is_settled = False
        self._waits_for_disk = False

    def note(self, change: Change) -> None:
        """Remember what the metadata's state will not tell any more: partitions that are gone."""
        if isinstance(change, PartitionRemoved):
            self._removed.append(change.partition.group)

    async def reconcile(self) -> None:
        """Open, reopen and remove replicas; may be called again after an error.

        One partition's trouble keeps no other from its place.

        Raises:
            DiskFull, UnusableDirectory, OSError: the first of them, when all was tried.
        """
        if not self._looked_at_stored:
            await self._look_at_stored()
            self._looked_at_stored = True
        failures: list[QuorumlogError | OSError] = []
        for group in tuple(self._removed):
            try:
                await self._remove(group)
            except (QuorumlogError, OSError) as error:
                failures.append(error)
        failures += await self._let_go_what_is_not_held()
        self._waits_for_disk = False
        for topic, partition in self._metadata.groups_of(self._node_id):
            try:
                await self._keep(partition, self._log_config(topic.config))
            except (QuorumlogError, OSError) as error:
                failures.append(error)
        if self._waits_for_disk:
            asyncio.get_running_loop().call_later(_LOOK_S, self._look_again)
        if failures:
            raise failures[0]

    def began_with(self, metadata_replica: Replica) -> None:
        """Group 0 was opened, in this turn of the event loop."""
        if not self._host.list_is_whole:
            self._first_new = first_new_group(self._metadata, metadata_replica)

    async def settle_list(self, caught_up: Callable[[], Awaitable[object]]) -> None:
        """Where the list of this node's groups was lost: tell the host which came later.

        Those are what the metadata's log had not given out at the start. Where it does not say
        (:func:`first_new_group`), those that have no number yet when ``caught_up`` returns. Until
        it is written a group that may have been here waits; then it is damaged.
        """
        if await self._host.lacks_groups():
            if self._first_new is None:
                await caught_up()
                self._first_new = GroupId(self._metadata.next_group)
            await self._know_from(self._first_new)
        self._list_is_settled = True
        self._look_again()

    async def _know_from(self, group: GroupId) -> None:
        """Have it written, however often that fails."""
        while True:
            try:
                await self._host.know_groups_from(group)
            except (DiskFull, OSError) as error:
                _log.warning("group_list_not_settled", error=str(error))
            else:
                return
            await asyncio.sleep(_WRITE_AGAIN_S)

    async def _look_at_stored(self) -> None:
        """Note what became nobody's, or another's, before this node's state was saved.

        A group below ``next_group`` that the metadata do not know has been, and deleted since: its
        number is not given out again.
        """
        left = await self._host.left_groups()
        for group in await self._host.stored_groups():
            is_given_out = METADATA_GROUP < group < self._metadata.next_group
            if not is_given_out:
                continue
            if self._metadata.group(group) is not None:
                self._strays |= {group} - set(left)
            elif group not in self._removed:
                self._removed.append(group)

    async def _remove(self, group: GroupId) -> None:
        self.machines.pop(group, None)
        await self._host.remove_group(group)
        self._removed.remove(group)
        self._strays.discard(group)

    # -- replicas that were moved away ---------------------------------------------------------

    async def _let_go_what_is_not_held(self) -> list[QuorumlogError | OSError]:
        """Returns what failed. Before the metadata are those of the start, this node may have been
        given again what they do not name: nothing would be lost with it but time."""
        failures: list[QuorumlogError | OSError] = []
        not_held = self._not_held()
        if not_held and not self._is_caught_up():
            asyncio.get_running_loop().call_later(_LOOK_AT_REST_S, self._look_again)
            return failures
        for group in not_held:
            try:
                await self._let_go(group)
            except (QuorumlogError, OSError) as error:
                failures.append(error)
        return failures

    def _not_held(self) -> list[GroupId]:
        """Groups that there are and that this node has something of and need not keep."""
        here = {*self._host.replicas, *self._strays} - {METADATA_GROUP}
        return [group for group in sorted(here) if self._is_not_held(group)]

    def _is_not_held(self, group: GroupId) -> bool:
        partition = self._metadata.group(group)
        return partition is not None and self._node_id not in partition.holders

    async def _let_go(self, group: GroupId) -> None:
        self._strays.add(group)
        if group not in self._host.replicas:
            if group in await self._host.left_groups():
                self._strays.discard(group)
                return
            partition = self._metadata.group(group)
            if partition is None or group in self._damaged:
                return
            await self._open(partition, self._log_config(self._metadata.topic_of(group).config))
        if await self._host.leave_group(group, self._settled_without):
            self.machines.pop(group, None)
            self._strays.discard(group)

    def _settled_without(self, replica: Replica) -> Index | None:
        """Through where the group is settled without this node, if nobody can rely on what
        ``replica`` has, whatever this node has not heard yet; else None.

        The group was settled without it through ``settled_index``. A leader that knew no better
        may have added it again; then the configuration that says so is in the replica's log, and
        behind that index, before anything it acknowledges can count.
        """
        partition = self._metadata.group(replica.group)
        if partition is None or self._node_id in partition.holders:
            return None
        core = replica.core
        known_index = core.members_index or replica.restored_index
        if self._node_id in core.members.everybody and known_index > partition.settled_index:
            return None
        return Index(partition.settled_index)

    # -- replicas that are to be here ----------------------------------------------------------

    async def _keep(self, before: PartitionInfo, config: LogConfig) -> None:
        group = before.group
        partition = self._metadata.group(group)
        if partition is None or self._node_id not in partition.holders:
            return  # deleted or moved while others were opened: the next round removes it
        if group in self._host.replicas and self._opened_with[group] != config:
            await self._host.close_group(group)
        if group in self._host.replicas or group in self._damaged:
            return
        if group not in self._opened_with and not await self._may_open(group):
            return
        await self._open(partition, config)

    async def _may_open(self, group: GroupId) -> bool:
        """Whether it is time for the first open of ``group``; if not, it is looked at again."""
        if not self._is_durable():
            self._waits_for_disk = True
            return False
        return self._list_is_settled or not await self._host.may_have_had(group)

    async def _open(self, partition: PartitionInfo, config: LogConfig) -> None:
        group = partition.group
        self.machines[group] = machine = PartitionMachine()
        self._opened_with[group] = config
        # Who was not there from the beginning hears from the group who belongs to it.
        is_member = self._node_id in partition.replicas
        members = Members(partition.replicas if is_member else ())
        try:
            replica = await self._host.open_group(group, members, machine, config)
        except Corrupt as error:
            self._damaged.add(group)
            _log.error("partition_damaged", group=group, error=str(error))
            return
        is_new = replica.log.last_index == 0 and not partition.settled_index
        if is_new and partition.replicas[0] == self._node_id:
            self._campaign_first(replica)

    def _campaign_first(self, replica: Replica) -> None:
        def campaign() -> None:
            if replica.core.leader_id is None:
                replica.campaign()

        for delay_s in _FIRST_CAMPAIGNS_S:
            asyncio.get_running_loop().call_later(delay_s, campaign)
