"""Keeps the replicas of this node what the committed metadata says they are."""

import asyncio
from collections.abc import Callable

import structlog

from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.metadata_changes import Change, PartitionRemoved
from quorumlog.broker.partition import PartitionMachine
from quorumlog.broker.topic_config import TopicConfig
from quorumlog.broker.topics import PartitionInfo
from quorumlog.errors import Corrupt, QuorumlogError
from quorumlog.log.config import LogConfig
from quorumlog.replication.core.members import Members
from quorumlog.replication.host import GroupHost
from quorumlog.replication.replica import Replica
from quorumlog.types import METADATA_GROUP, GroupId, NodeId

_log = structlog.get_logger()

_FIRST_CAMPAIGNS_S = (0.02, 0.1)
"""A new partition's first replica asks for votes this long after it opened, unless there is a
leader: others open theirs in the same moment, and the first is where the placement wants it."""


class PartitionKeeper:
    """One task calls :meth:`reconcile` whenever the metadata has changed.

    ``machines`` holds the state of every open partition. A damaged one is left closed, as it is on
    disk, and said so once; the others go on.
    """

    def __init__(
        self,
        *,
        node_id: NodeId,
        host: GroupHost,
        metadata: MetadataState,
        log_config: Callable[[TopicConfig], LogConfig],
    ) -> None:
        """``log_config`` makes the settings of a partition's log from those of its topic."""
        self.machines: dict[GroupId, PartitionMachine] = {}
        self._node_id = node_id
        self._host = host
        self._metadata = metadata
        self._log_config = log_config
        self._opened_with: dict[GroupId, LogConfig] = {}
        self._removed: list[GroupId] = []
        self._damaged: set[GroupId] = set()
        self._looked_for_removed = False

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
        if not self._looked_for_removed:
            await self._find_removed()
            self._looked_for_removed = True
        failures: list[QuorumlogError | OSError] = []
        for group in tuple(self._removed):
            try:
                await self._remove(group)
            except (QuorumlogError, OSError) as error:
                failures.append(error)
        for topic, partition in self._metadata.groups_of(self._node_id):
            try:
                await self._keep(partition, self._log_config(topic.config))
            except (QuorumlogError, OSError) as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def _find_removed(self) -> None:
        """Note what was deleted before the state that this node started with was saved.

        A group below ``next_group`` that the metadata do not know has been, and deleted since: its
        number is not given out again.
        """
        for group in await self._host.stored_groups():
            is_given_out = METADATA_GROUP < group < self._metadata.next_group
            if is_given_out and self._metadata.group(group) is None and group not in self._removed:
                self._removed.append(group)

    async def _remove(self, group: GroupId) -> None:
        self.machines.pop(group, None)
        await self._host.remove_group(group)
        self._removed.remove(group)

    async def _keep(self, partition: PartitionInfo, config: LogConfig) -> None:
        group = partition.group
        if self._metadata.group(group) is None:
            return  # deleted while others were opened: the next round removes it
        if group in self._host.replicas and self._opened_with[group] != config:
            await self._host.close_group(group)
        if group not in self._host.replicas and group not in self._damaged:
            await self._open(partition, config)

    async def _open(self, partition: PartitionInfo, config: LogConfig) -> None:
        group = partition.group
        self.machines[group] = machine = PartitionMachine()
        self._opened_with[group] = config
        try:
            replica = await self._host.open_group(
                group, Members(partition.replicas), machine, config
            )
        except Corrupt as error:
            self._damaged.add(group)
            _log.error("partition_damaged", group=group, error=str(error))
            return
        if replica.log.last_index == 0 and partition.replicas[0] == self._node_id:
            self._campaign_first(replica)

    def _campaign_first(self, replica: Replica) -> None:
        def campaign() -> None:
            if replica.core.leader_id is None:
                replica.campaign()

        for delay_s in _FIRST_CAMPAIGNS_S:
            asyncio.get_running_loop().call_later(delay_s, campaign)
