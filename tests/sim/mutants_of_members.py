"""Known bugs of members that sleep, fall behind, forget, move and go, put back."""

from dataclasses import replace
from typing import Any, Final

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.keeper import PartitionKeeper
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.metadata_changes import NodeForgotten
from quorumlog.broker.mover import Mover
from quorumlog.broker.registrar import Registrar
from quorumlog.broker.topics import PartitionInfo, Standing
from quorumlog.log.config import FSYNC_ALWAYS
from quorumlog.log.log import Log
from quorumlog.log.state_snapshot import LogOrigin, StateSnapshot
from quorumlog.replication import host
from quorumlog.replication.applier import Applier
from quorumlog.replication.catch_up.recovery import Recovery
from quorumlog.replication.core.core import RaftCore
from quorumlog.replication.core.election import Elector
from quorumlog.replication.core.role import Role
from quorumlog.replication.core.sleep import Sleeper
from quorumlog.replication.group_files import GroupFiles
from quorumlog.replication.group_list import GroupList
from quorumlog.replication.replica import Replica
from quorumlog.replication.sleep.ledger import Ledger
from quorumlog.types import GroupId, Index, NodeId, Term
from sim.mutant import Mutant
from sim.swarm import Swarm

# -- sleep ---------------------------------------------------------------------------------------


def _silence_not_noticed(check: Any) -> Any:
    def deaf(self: Ledger, *arguments: float) -> None:
        """Beats are taken, and nobody minds when they do not come."""

    return deaf


def _lossy(drawn: Swarm) -> Swarm:
    """A fifth of the nodes' messages is lost, and groups sleep at once."""
    return replace(drawn, link=replace(drawn.link, loss=0.2), sleep_after_s=0.02)


def _sleeps_with_less(sleep_following: Any) -> Any:
    def lazy(self: RaftCore, leader: NodeId, term: int, last_index: int) -> bool:
        """Who leads is right, what the log has is not asked."""
        if self.role is Role.FOLLOWER and self.leader_id == leader and self.term == term:
            self.asleep = True
            return True
        return False

    return lazy


def _drowsy(drawn: Swarm) -> Swarm:
    """Groups sleep at once, leaders nap, and two surveyors have little else around them."""
    return replace(
        drawn,
        nodes=3,
        moves=False,
        churns=False,
        faults=("nap",),
        fault_interval_s=0.4,
        fault_duration_s=5.0,
        surveyors=2,
        sleep_after_s=0.02,
        election_timeout_s=0.3,
        producers=1,
        records_per_producer=10,
        consumers=1,
    )


def _dreams_of_a_lease(lease_index: Any) -> Any:
    def dreaming(self: RaftCore, now: float) -> Any:
        return self.commit_index if self.asleep else lease_index(self, now)

    return dreaming


# -- catching up, damage -------------------------------------------------------------------------


def _votes_though_it_forgot(receive: Any) -> Any:
    def trusting(self: RaftCore, sender: Any, request: Any, now: float) -> None:
        recovering, self.recovering = self.recovering, False
        receive(self, sender, request, now)
        self.recovering = recovering

    return trusting


def _whole_at_once(compare: Any) -> Any:
    def hasty(self: Recovery, end: Index) -> None:
        """A leader was heard: that has to do."""
        self._is_whole = True
        self._whole()

    return hasty


def _left_behind(drawn: Swarm) -> Swarm:
    """Followers are cut off while their leader deletes, and are given its state, over a link that
    says everything twice, and late, and lose power."""
    return replace(
        drawn,
        nodes=3,
        moves=False,
        churns=False,
        faults=("isolate", "power"),
        fsync=FSYNC_ALWAYS,
        fault_interval_s=0.4,
        fault_duration_s=5.0,
        segment_bytes=1024,
        retention_records=2,
        max_lag_s=0.0,
        state_interval_bytes=1 << 26,
        producers=2,
        records_per_producer=100,
        record_bytes=300,
        burst=3,
        batch_bytes=1,
        election_timeout_s=0.3,
        link=replace(drawn.link, slow_chance=0.25, slow_s=0.15, duplicate=1.0, reorder=True),
    )


def _always_emptied(is_needed: Any) -> Any:
    def obedient(log: Log, start: LogOrigin) -> bool:
        """Whatever comes is installed, however late."""
        return True

    return obedient


def _state_applied_twice(take: Any) -> Any:
    def thorough(self: Applier, awaited: StateSnapshot) -> None:
        take(self, awaited)
        if self.awaited is None:
            self.applied_index = Index(self._log.start_index - 1)

    return thorough


def _moves_reported_at_once(look_at: Any) -> Any:
    def hasty(self: Mover, replica: Replica, partition: PartitionInfo, **rest: Any) -> Any:
        is_there = set(replica.core.members.voters) == set(partition.target)
        if partition.wanted and replica.serving and is_there:
            return self._settled(replica, partition)
        return look_at(self, replica, partition, **rest)

    return hasty


def _let_go_when_ordered(is_not_held: Any) -> Any:
    def eager(self: PartitionKeeper, group: GroupId) -> bool:
        partition = self._metadata.group(group)
        return partition is not None and self._node_id not in partition.target

    return eager


def _settled_without_asking(settled_without: Any) -> Any:
    def careless(self: PartitionKeeper, replica: Replica) -> Index:
        return Index(1)

    return careless


# -- nodes that go -------------------------------------------------------------------------------


def _forgotten_at_once(forget_removed: Any) -> Any:
    async def hasty(self: Registrar) -> None:
        for node in self._metadata.nodes():
            if node.standing is Standing.LEAVING:
                message = metadata_pb2.ForgetNode(node=node.id)
                await self._propose(metadata_pb2.Command(forget_node=message))

    return hasty


def _forgets_whoever_is_named(forget_node: Any) -> Any:
    def obedient(self: MetadataState, message: Any) -> list[Any]:
        if NodeId(message.node) in self._nodes.removed:
            return []
        return [NodeForgotten(self._nodes.forget(NodeId(message.node)))]

    return obedient


def _losses_not_noticed(check_is_new: Any) -> Any:
    def careless(self: GroupFiles, group: GroupId) -> None:
        return

    return careless


def _first_term_again(term_bound: Any) -> Any:
    def forgetful(self: GroupList, group: GroupId) -> Term | None:
        return None if term_bound(self, group) is None else Term(1)

    return forgetful


def _rotting(drawn: Swarm) -> Swarm:
    """Disks lose what was synced."""
    return drawn if "rot" in drawn.faults else replace(drawn, faults=(*drawn.faults, "rot"))


def _slowly_mended(drawn: Swarm) -> Swarm:
    """Disks rot, and what is lost comes back batch by batch, read from disks."""
    return replace(
        _rotting(drawn),
        fault_interval_s=0.15,
        fault_duration_s=5.0,
        segment_bytes=1024,
        tail_cache_bytes=0,
        max_append_bytes=256,
        max_inflight_bytes=4096,
        producers=2,
        records_per_producer=100,
        record_bytes=300,
        batch_bytes=1,
    )


MEMBER_MUTANTS: Final = (
    Mutant("silence of a node not noticed", Ledger, "check", _silence_not_noticed, 5),
    Mutant("installed state applied twice", Applier, "_take_awaited", _state_applied_twice, 50),
    Mutant(
        "recovering member votes",
        Elector,
        "_receive_vote_request",
        _votes_though_it_forgot,
        20,
        shape=_rotting,
    ),
    Mutant(
        "recovered once a leader was heard",
        Recovery,
        "_compare",
        _whole_at_once,
        20,
        shape=_slowly_mended,
    ),
    Mutant("moves reported at once", Mover, "_look_at", _moves_reported_at_once, 30),
    Mutant(
        "replica deleted when the move is ordered",
        PartitionKeeper,
        "_is_not_held",
        _let_go_when_ordered,
        20,
        also=Mutant("", PartitionKeeper, "_settled_without", _settled_without_asking, 0),
    ),
    Mutant(
        "follower sleeps with less",
        Sleeper,
        "sleep_following",
        _sleeps_with_less,
        20,
        shape=_lossy,
    ),
    Mutant(
        "sleeping leader keeps its lease",
        RaftCore,
        "lease_index",
        _dreams_of_a_lease,
        250,
        shape=_drowsy,
    ),
    Mutant(
        "late state empties the log", host, "is_needed", _always_emptied, 20, shape=_left_behind
    ),
    Mutant(
        "node removed with its replicas",
        Registrar,
        "_forget_removed",
        _forgotten_at_once,
        50,
        also=Mutant("", MetadataState, "_forget_node", _forgets_whoever_is_named, 0),
    ),
    Mutant(
        "lost group taken for a new one",
        GroupFiles,
        "_check_is_new",
        _losses_not_noticed,
        20,
        shape=_rotting,
    ),
    Mutant(
        "lost group goes on in a term it voted in",
        GroupList,
        "term_bound",
        _first_term_again,
        40,
        shape=_rotting,
    ),
)
