"""The metadata group on this node: takes commands and follows what was committed.

At the leader the registrar keeps the node list true; on every node the keeper opens and closes
partitions. Each is run by a task here whenever something changed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from quorumlog.broker.balance import BalanceConfig, LeaderBalance
from quorumlog.broker.claim_check import ClaimCheck
from quorumlog.broker.drainer import Drainer
from quorumlog.broker.gossip_view import GossipView
from quorumlog.broker.group_survey import GroupSurvey
from quorumlog.broker.keeper import PartitionKeeper
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.metadata_changes import Applied, Change
from quorumlog.broker.metadata_machine import MetadataMachine, trim_draft
from quorumlog.broker.metadata_proposer import MetadataProposer
from quorumlog.broker.mover import Mover
from quorumlog.broker.past_groups import is_durable_here
from quorumlog.broker.peer_calls import PeerCalls
from quorumlog.broker.presence import PresenceKeeper
from quorumlog.broker.registrar import Registrar
from quorumlog.broker.replacement import Replacement
from quorumlog.broker.replacer import Replacer
from quorumlog.broker.retention import RetentionConfig, RetentionKeeper
from quorumlog.broker.silence import SilenceWatch
from quorumlog.broker.topic_config import TopicConfig
from quorumlog.errors import (
    InvariantViolation,
    QuorumlogError,
    Unavailable,
)
from quorumlog.log.log import LogConfig
from quorumlog.ports import Clock, Membership
from quorumlog.replication.core.members import Members
from quorumlog.replication.host import GroupHost
from quorumlog.replication.log_trimming import LogTrimming
from quorumlog.replication.replica import Replica
from quorumlog.types import METADATA_GROUP, NodeId

_log = structlog.get_logger()

METADATA_SEGMENT_BYTES: Final = 8 * 1024 * 1024
"""Size of a file of the metadata's log, unless the nodes' are smaller: a node keeps about three."""

_TEND_INTERVAL_S = 1.0
_RETRY_S = 0.1
_PAUSE_S = 0.05


class Controller:
    """Owns group 0's replica and everything that follows from its state."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        host: GroupHost,
        membership: Membership,
        calls: PeerCalls,
        log_config: Callable[[TopicConfig], LogConfig],
        clock: Clock,
        retention: RetentionConfig | None = None,
        balance: BalanceConfig | None = None,
        on_failure: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Nothing runs before :meth:`start`.

        Args:
            log_config: makes the settings of a partition's log from those of its topic.
            clock: that of ``host``.
            retention: when old records are deleted; None: the defaults.
            balance: when leaders go back to where they are preferred; None: the defaults.
            on_failure: told of a bug that ended a task of this controller, which cannot go on then.
        """
        self.node_id = node_id
        self.cluster_id = ""
        self.metadata = MetadataState()
        self._host = host
        self.gossip = GossipView(membership, lambda: self.cluster_id)
        self._clock = clock
        self._calls = calls
        self._log_config = log_config
        self._first_last_index = 0
        self._caught_up = False
        self._changed = asyncio.Event()
        self._tend = asyncio.Event()
        self._moves = asyncio.Event()
        self._drains = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._on_failure = on_failure
        self.survey = GroupSurvey(node_id=node_id, host=host, calls=calls)
        self._proposer = proposer = MetadataProposer(
            node_id=node_id, replica=lambda: self.replica, calls=calls
        )
        self.propose, self.propose_here = proposer.propose, proposer.propose_here
        self._keeper = PartitionKeeper(
            node_id=node_id,
            host=host,
            metadata=self.metadata,
            log_config=log_config,
            is_durable=partial(is_durable_here, host, self.metadata),
            is_caught_up=lambda: self.caught_up,
            look_again=self._changed.set,
        )
        self.partitions = self._keeper.machines
        retention = retention or RetentionConfig()
        self.retention = RetentionKeeper(
            node_id=node_id, host=host, metadata=self.metadata, clock=clock, config=retention
        )
        self._trimming = LogTrimming(
            replica=lambda: self.replica,
            clock=clock,
            interval_s=retention.interval_s,
            max_lag_s=retention.max_lag_s,
            trim_draft=trim_draft,
            on_damage=partial(host.report_damage, METADATA_GROUP),
            saves_states=True,
        )
        self._balance = LeaderBalance(
            node_id=node_id,
            host=host,
            metadata=self.metadata,
            membership=membership,
            clock=clock,
            config=balance or BalanceConfig(),
        )
        self._mover = Mover(
            node_id=node_id,
            host=host,
            metadata=self.metadata,
            is_alive=self.gossip.is_alive,
            propose=self.propose,
            look_again=self._moves.set,
        )
        self._drainer = Drainer(
            node_id=node_id,
            host=host,
            metadata=self.metadata,
            is_alive=self.gossip.is_alive,
            look_again=self._drains.set,
        )
        self._replacer = Replacer(
            node_id=node_id,
            metadata=self.metadata,
            gossip=self.gossip,
            replica=lambda: self.replica,
            hears=host.hears,
            watch=self._silence_watch(),
            propose=self._proposer.propose_as_leader,
            clock=clock,
        )
        self._presence = PresenceKeeper(
            metadata=self.metadata,
            gossip=self.gossip,
            replica=lambda: self.replica,
            watch=self._silence_watch(),
            propose=self._proposer.propose_as_leader,
            clock=clock,
        )
        self.metadata.on_change(self._metadata_changed)
        membership.on_change(lambda member: self._tend.set())

    async def start(self, cluster_id: str, members: Members) -> None:
        """Open group 0, whose first configuration is ``members``, and begin to follow it."""
        self.cluster_id = cluster_id
        config = self._log_config(TopicConfig())
        replica = await self._host.open_group(
            METADATA_GROUP,
            members,
            MetadataMachine(self.metadata, self._host.path_of(METADATA_GROUP), self._batch_applied),
            replace(config, segment_bytes=min(config.segment_bytes, METADATA_SEGMENT_BYTES)),
        )
        self._first_last_index = replica.log.last_index
        self._keeper.began_with(replica)
        registrar = Registrar(
            node_id=self.node_id,
            metadata=self.metadata,
            gossip=self.gossip,
            check=ClaimCheck(cluster_id, self._calls.identify, self._clock),
            replica=lambda: self.replica,
            propose=self._proposer.propose_as_leader,
        )
        self._tasks = [
            asyncio.create_task(self._forever(self._keeper.reconcile, self._changed, None)),
            asyncio.create_task(self._forever(registrar.tend, self._tend, _TEND_INTERVAL_S)),
            asyncio.create_task(self._forever(self._mover.tend, self._moves, None, _PAUSE_S)),
            asyncio.create_task(self._forever(self._drainer.tend, self._drains, None, _PAUSE_S)),
            *(
                asyncio.create_task(self._forever(work, asyncio.Event(), _TEND_INTERVAL_S))
                for work in (self._presence.tend, self._replacer.tend)
            ),
            asyncio.create_task(self.retention.run()),
            asyncio.create_task(self._trimming.run()),
            asyncio.create_task(self._balance.run()),
            asyncio.create_task(
                self._keeper.settle_list(lambda: self.wait_applied(lambda: self.caught_up))
            ),
        ]

        if self._on_failure is not None:
            for task in self._tasks:
                task.add_done_callback(self._task_ended)

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and self._on_failure is not None:
            self._on_failure(error)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._mover.close()

    def _silence_watch(self) -> SilenceWatch:
        return SilenceWatch(
            node_id=self.node_id,
            metadata=self.metadata,
            replica=lambda: self.replica,
            hears=self._host.hears,
            clock=self._clock,
        )

    @property
    def replica(self) -> Replica:
        """Group 0's on this node; another object after the group was opened again.

        Raises:
            Unavailable: it is not open yet.
        """
        replica = self._host.replicas.get(METADATA_GROUP)
        if replica is None:
            raise Unavailable("this node is not in a cluster yet: try again in a moment")
        return replica

    @property
    def caught_up(self) -> bool:
        """Whether this node knows the metadata as of its start: before, "there is no such topic"
        may be a mistake."""
        replica = self._host.replicas.get(METADATA_GROUP)
        if not self._caught_up and replica is not None:
            core, log = replica.core, replica.log
            self._caught_up = (
                core.leader_id is not None
                and replica.awaited is None
                # It began empty: what it has come to know may be of long ago.
                and not core.recovering
                and replica.applied_index >= min(self._first_last_index, log.last_index)
                and replica.applied_index >= core.commit_index > 0
            )
        return self._caught_up

    async def wait_applied(
        self, condition: Callable[[], bool], timeout_s: float | None = None
    ) -> bool:
        """Wait until ``condition`` holds.

        It is looked at whenever this node applied a batch of the metadata or heard of a leader.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    changed = asyncio.get_running_loop().create_future()
                    self._waiting.append(changed)
                    await changed
        except TimeoutError:
            return condition()
        return True

    @property
    def replacements_here(self) -> Sequence[Replacement]:
        """What this node makes of those that it does not hear; empty where it does not lead."""
        return self._replacer.found

    async def replacements(self) -> Sequence[Replacement]:
        """What the metadata's leader makes of nodes that it does not hear; empty where nobody is
        replaced, or the leader does not answer."""
        leader = self.replica.core.leader_id
        if leader is None or not self.metadata.settings.replace_failed_after_s:
            return ()
        if leader == self.node_id:
            return self.replacements_here
        try:
            return await self._calls.replacements(leader)
        except QuorumlogError as error:
            _log.debug("replacements_not_known", leader=leader, error=str(error))
            return ()

    # -- following the metadata ----------------------------------------------------------------

    def _metadata_changed(self, change: Change) -> None:
        if not isinstance(change, Applied):
            self._keeper.note(change)
            self._changed.set()
            self._moves.set()
            self._drains.set()

    def _batch_applied(self) -> None:
        # The replica counts the batch as applied, and may serve, only after this call.
        asyncio.get_running_loop().call_soon(self._wake)

    def replica_event(self, replica: Replica) -> None:
        """Called for what the core of any group on this node reports.

        A node that was closed cleanly has applied everything when it hears of a leader: nothing
        else would tell those who wait for that.
        """
        self._moves.set()
        self._drains.set()
        if replica.group == METADATA_GROUP:
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        self._tend.set()
        waiting, self._waiting = self._waiting, []
        for changed in waiting:
            if not changed.done():
                changed.set_result(None)

    async def _forever(
        self,
        work: Callable[[], Awaitable[None]],
        wake: asyncio.Event,
        interval_s: float | None,
        pause_s: float = 0.0,
    ) -> None:
        """Run ``work`` whenever ``wake`` is set or the interval went by, again soon if it failed;
        at least ``pause_s`` after it was set, so that what comes together is looked at once."""
        while True:
            try:
                async with asyncio.timeout(interval_s):
                    await wake.wait()
            except TimeoutError:
                pass
            if pause_s:
                await asyncio.sleep(pause_s)
            wake.clear()
            try:
                await work()
            except InvariantViolation:
                raise
            except (QuorumlogError, OSError) as error:
                _log.warning("controller_retried", work=work.__name__, error=str(error))
                await asyncio.sleep(_RETRY_S * 5)
                wake.set()
