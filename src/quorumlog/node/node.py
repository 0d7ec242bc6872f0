"""The composition root: one node, from its settings to its services.

Everything is wired here and nowhere else. ``Node`` is what ``quorumlog serve`` runs and what a
program embeds::

    async with quorumlog.Node(NodeConfig(data_dir="data")) as node:
        ...
"""

import asyncio
import contextlib
import random
import uuid
from types import TracebackType
from typing import Self

import structlog

import quorumlog
from quorumlog.api._pb import peer_pb2
from quorumlog.api.peer_calls import GrpcPeerCalls
from quorumlog.api.peers import GrpcPeers
from quorumlog.broker.balance import BalanceConfig
from quorumlog.broker.broker import Broker
from quorumlog.broker.controller import Controller
from quorumlog.broker.gossip_view import RUNNING, claims_of
from quorumlog.broker.retention import RetentionConfig
from quorumlog.broker.topic_config import UNSET, TopicConfig
from quorumlog.discovery.gossip import Gossip
from quorumlog.errors import InvariantViolation, NodeRemoved, QuorumlogError
from quorumlog.log.cipher import check_library
from quorumlog.log.key_ring import KeyRing
from quorumlog.log.log import Log, LogConfig
from quorumlog.node.announcement import announce, tags_of_losses
from quorumlog.node.bootstrap import Bootstrap
from quorumlog.node.config import NodeConfig
from quorumlog.node.gossip_settings import gossip_config, load_gossip_keys
from quorumlog.node.identity import Seat
from quorumlog.node.peer_port import NodePeerPort
from quorumlog.node.scrubbing import Scrubbing
from quorumlog.node.server import bind_server
from quorumlog.node.storage import DataDirectory, unusable
from quorumlog.ports import Member
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.config import RaftConfig
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.ready import Event
from quorumlog.replication.host import GroupHost
from quorumlog.replication.replica import Replica
from quorumlog.system import SystemClock, SystemDisk, ThreadWorker
from quorumlog.types import GroupId, NodeId

_log = structlog.get_logger()

_DISK_THREADS = 4
_HAND_OVER_S = 2.0
_STOP_GRACE_S = 0.5
_MAX_UNREGISTERED = 256
"""Peers that this node dials because gossip alone speaks of them: anybody can say anything."""


class Node:
    """A member of a cluster, inside this process and its running event loop.

    ``start`` returns when the node serves; with ``expect`` 1 it is then ready to produce and
    consume, otherwise :meth:`wait_ready` waits for the cluster. ``failed`` is set when the node
    found out that it must not go on (its identity is somebody else's, its data another
    cluster's); ``close`` it then.
    """

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.address = ""
        """HOST:PORT of the gRPC endpoint as others dial it; known once started."""
        self.gossip_address = ""
        self.failure: QuorumlogError | None = None
        self.failed = asyncio.Event()
        self._ready = asyncio.Event()
        self._rng = random.Random()
        self._process_id = uuid.uuid4().hex
        self._stack = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._keys: KeyRing | None = None

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the data directory, bind the ports, find the others.

        Raises (nothing is left behind):
            LogLocked, UnusableDirectory, Corrupt, DiskFull: the data directory.
            AddressInUse: a port.
            ConfigError: a key file.
        """
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        config, stack = self.config, self._stack
        worker = ThreadWorker(_DISK_THREADS)
        stack.callback(worker.close)
        if config.keys:
            self._keys = await worker.run(lambda: KeyRing.load(config.keys))
            check_library()
        gossip_keys = await worker.run(lambda: load_gossip_keys(config))
        disk = SystemDisk()
        self._data = await worker.run(lambda: DataDirectory.open(disk, config.data_dir))
        stack.callback(self._data.release)
        # Before the release: what a thread has begun is written before another may have the lock.
        stack.callback(worker.close)
        identity = self._data.identity
        self.node_id = identity.node_id
        self.name = config.name or f"node-{identity.node_id[:8]}"

        self._server, self.address = bind_server(config)
        stack.push_async_callback(self._server.stop, _STOP_GRACE_S)
        self._calls = GrpcPeerCalls(self._resolve)
        stack.push_async_callback(self._calls.close)
        self._peers = GrpcPeers(
            node_id=self.node_id,
            process_id=self._process_id,
            address=self.address,
            resolve=self._resolve,
            rng=self._rng,
        )
        stack.push_async_callback(self._peers.close)
        self._gossip = await Gossip.start(
            name=self.name,
            bind=config.gossip_address,
            advertise=None,
            seeds=config.join,
            tags=self._tags(identity.cluster_id),
            config=gossip_config(config),
            keys=gossip_keys,
            rng=self._rng,
        )
        stack.push_async_callback(self._gossip.close)
        self._gossip.on_failure(self._fail)
        self.gossip_address = "{}:{}".format(*self._gossip.address)
        self.host = GroupHost(
            node_id=self.node_id,
            directory=self._data.groups,
            disk=disk,
            clock=SystemClock(),
            worker=worker,
            transport=self._peers,
            rng=self._rng,
            config=self._replication_config(),
            events=self._replica_event,
        )
        stack.push_async_callback(self.host.close)
        self._peers.patience_s = self.host.patience_with
        scrubbing = Scrubbing(
            self._logs,
            disk,
            SystemClock(),
            config.scrub_bytes_s,
            on_damage=self.host.report_damage,
        )
        stack.push_async_callback(scrubbing.close)
        self._controller = Controller(
            node_id=self.node_id,
            host=self.host,
            membership=self._gossip,
            calls=self._calls,
            log_config=self._log_config,
            clock=SystemClock(),
            retention=RetentionConfig(
                interval_s=config.retention_interval_ms / 1000,
                max_lag_s=config.retention_max_lag_ms / 1000,
            ),
            balance=BalanceConfig(settle_s=config.leader_return_ms / 1000),
            on_failure=self._fail,
        )
        stack.push_async_callback(self._controller.close)
        self.broker = Broker(
            node_id=self.node_id,
            host=self.host,
            controller=self._controller,
            membership=self._gossip,
        )
        self._bootstrap = Bootstrap(
            identity=identity,
            seat=Seat(self.node_id, self.name, self.address),
            expect=config.expect,
            save=lambda changed: worker.run(lambda: self._data.save(changed)),
            membership=self._gossip,
            calls=self._calls,
            seeds=self._gossip.seeds,
        )
        peer_port = NodePeerPort(self._peers, self._bootstrap, self._controller, self._calls)
        await self._server.start(self.broker, peer_port, self._peers.rpc_handler(), config)
        self._gossip.on_change(self._member_changed)
        self._tasks = [asyncio.create_task(self._enter_cluster())]
        _log.info(
            "node_started",
            node=self.node_id,
            name=self.name,
            listen=self.address,
            gossip=self.gossip_address,
            data_dir=config.data_dir,
            version=quorumlog.__version__,
        )

    async def wait_ready(self, timeout_s: float | None = None) -> None:
        """Wait until the node knows its cluster's metadata and is known there.

        Raises:
            TimeoutError; what stands in ``failure``.
        """
        async with asyncio.timeout(timeout_s):
            waits = [asyncio.ensure_future(e.wait()) for e in (self._ready, self.failed)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        if self.failure is not None:
            raise self.failure

    async def close(self) -> None:
        """Hand leadership over, flush, leave and stop; within seconds. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        try:
            if self.failure is None:
                await self._hand_over()
                await self._gossip.leave()
        finally:
            await self._stack.aclose()
        _log.info("node_stopped", node=self.node_id)

    async def __aenter__(self) -> Self:
        await self.start()
        try:
            if self.config.expect == 1:
                await self.wait_ready()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # -- into the cluster ----------------------------------------------------------------------

    async def _enter_cluster(self) -> None:
        try:
            identity = await self._bootstrap.run()
            await announce(
                self._hello(identity.cluster_id),
                identity.voters,
                membership=self._gossip,
                calls=self._calls,
                has_seeds=bool(self.config.join),
            )
            self._peers.is_removed = self._controller.metadata.is_removed
            self._peers.on_removed = self._was_removed
            self._peers.cluster_id = identity.cluster_id
            lost = await tags_of_losses(self.host)
            self._gossip.set_tags(self._tags(identity.cluster_id) | lost)
            voters = Members(tuple(seat.node_id for seat in identity.voters))
            await self._controller.start(identity.cluster_id, voters)
            self._controller.metadata.on_change(lambda change: self._metadata_changed())
            self._metadata_changed()
            await self._controller.wait_applied(self._is_registered)
        except OSError as error:
            self._fail(unusable(self.config.data_dir, error))
            return
        except Exception as error:  # nobody waits for this task
            self._fail(error)
            return
        await self._server.set_serving()
        self._ready.set()
        _log.info("node_ready", node=self.node_id, cluster=identity.cluster_id)

    def _fail(self, error: BaseException) -> None:
        is_bug = isinstance(error, InvariantViolation) or not isinstance(error, QuorumlogError)
        _log.error("node_failed", error=str(error), exc_info=error if is_bug else None)
        if not isinstance(error, QuorumlogError):
            error = InvariantViolation(f"this node cannot go on after {error!r}: restart it")
        self.failure = error
        self.failed.set()

    def _is_registered(self) -> bool:
        controller = self._controller
        return controller.caught_up and controller.metadata.node(self.node_id) is not None

    def _hello(self, cluster_id: str) -> peer_pb2.Hello:
        return peer_pb2.Hello(
            format=self._peers.hello().format,
            cluster_id=cluster_id,
            node_id=self.node_id,
            process_id=self._process_id,
            address=self.address,
        )

    def _tags(self, cluster_id: str) -> dict[str, str]:
        rack = {"rack": self.config.rack} if self.config.rack else {}
        return rack | {
            "id": self.node_id,
            "cluster": cluster_id,
            "rpc": self.address,
            "expect": str(self.config.expect),
            "ver": quorumlog.__version__,
        }

    # -- who is where --------------------------------------------------------------------------

    def _resolve(self, node: NodeId) -> str | None:
        address = self.broker.address_of(node)
        if address is None:
            seats = self._bootstrap.identity.voters
            address = next((seat.address for seat in seats if seat.node_id == node), None)
        return address

    def _member_changed(self, member: Member) -> None:
        self._update_peers()

    def _metadata_changed(self) -> None:
        if self._controller.metadata.is_removed(self.node_id):
            self._was_removed(
                "this node was removed from its cluster and its data belong to nobody: delete or "
                f"keep {self.config.data_dir}, and start with an empty directory to join as a new "
                "node"
            )
        self._update_peers()

    def _was_removed(self, message: str) -> None:
        if self.failure is None:
            self._fail(NodeRemoved(message))

    def _replica_event(self, replica: Replica, event: Event) -> None:
        self._controller.replica_event(replica)
        self._update_peers()

    def _update_peers(self) -> None:
        cluster_id = self._peers.cluster_id
        if not cluster_id:
            return
        peers = {seat.node_id for seat in self._bootstrap.identity.voters}
        peers.update(NodeId(node.id) for node in self._controller.metadata.nodes())
        # A node that has just joined hears of the others only so.
        claims = claims_of(self._gossip.members(), cluster_id)
        running = (node for node, members in claims.items() if members[0].state in RUNNING)
        peers.update(sorted(set(running) - peers)[:_MAX_UNREGISTERED])
        self._peers.set_peers(peers)

    async def _hand_over(self) -> None:
        """Give the groups this node leads to others, so that nobody waits for an election."""
        led = [replica for replica in self.host.replicas.values() if replica.serving]
        for replica in led:
            others = [node for node in replica.core.members.voters if node != self.node_id]
            target = next((node for node in others if self._peers.connected(node)), None)
            if target is not None:
                with contextlib.suppress(QuorumlogError):
                    replica.transfer_leadership(target)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _HAND_OVER_S
        while any(replica.serving for replica in led) and loop.time() < deadline:
            if not any(replica.transferring for replica in led):
                break
            await asyncio.sleep(0.02)

    # -- settings of the parts -----------------------------------------------------------------

    def _replication_config(self) -> ReplicationConfig:
        return ReplicationConfig(
            raft=RaftConfig(
                election_timeout_s=self.config.election_timeout_ms / 1000,
                heartbeat_s=self.config.heartbeat_ms / 1000,
            )
        )

    def _logs(self) -> dict[GroupId, Log]:
        return {group: replica.log for group, replica in self.host.replicas.items()}

    def _log_config(self, topic: TopicConfig) -> LogConfig:
        has_own_size = topic.segment_bytes != UNSET
        return LogConfig(
            segment_bytes=topic.segment_bytes if has_own_size else self.config.segment_bytes,
            fsync=topic.fsync,
            fsync_interval_s=self.config.fsync_interval_ms / 1000,
            keys=self._keys,
        )
