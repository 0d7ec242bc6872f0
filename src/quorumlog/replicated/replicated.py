"""The composition root: one node of a replicated state machine, inside a program."""

import asyncio
import contextlib
import random
import uuid
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Final, Self

import structlog

from quorumlog.api.peer_calls import GrpcPeerCalls
from quorumlog.api.peers import GrpcPeers
from quorumlog.errors import Closed, ConfigError, QuorumlogError, Unavailable
from quorumlog.node.bootstrap import Bootstrap
from quorumlog.node.identity import Seat
from quorumlog.node.storage import DataDirectory, unusable
from quorumlog.replicated.command import trim_draft
from quorumlog.replicated.config import ReplicatedConfig
from quorumlog.replicated.group import DEFAULT_TIMEOUT_S
from quorumlog.replicated.group_machine import GroupMachine
from quorumlog.replicated.leader_requests import LeaderRequests
from quorumlog.replicated.machine import Machine
from quorumlog.replicated.members import MemberChanges
from quorumlog.replicated.names import check_peers, id_prefix, name_of
from quorumlog.replicated.peer_port import GroupPeerPort
from quorumlog.replicated.roster import Roster
from quorumlog.replicated.server import bind_server, start_server
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.ready import Event, LeaderChanged
from quorumlog.replication.host import GroupHost
from quorumlog.replication.log_trimming import LogTrimming
from quorumlog.replication.replica import Replica
from quorumlog.system import SystemClock, SystemDisk, ThreadWorker
from quorumlog.types import GroupId, Index, NodeId

_log = structlog.get_logger()

GROUP: Final = GroupId(1)

_DISK_THREADS = 2
_LOOK_S = 0.2
_READY_POLL_S = 0.05
_HAND_OVER_S = 1.0
_STOP_GRACE_S = 0.5


class Replicated:
    """A :class:`~quorumlog.replicated.group.Group` of nodes with fixed addresses::

        peers = {"a": "10.0.0.1:7501", "b": "10.0.0.2:7501", "c": "10.0.0.3:7501"}
        async with Replicated(Doors(), node="a", peers=peers, data_dir="data") as group:
            await group.propose(b"open")

    All of ``peers`` have to be up once, for the group to form; a majority is enough from then on. A
    single peer is a group of its own. Everything is called in the event loop it was started in.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        node: str,
        peers: Mapping[str, str],
        data_dir: str,
        listen: str = "",
        config: ReplicatedConfig | None = None,
    ) -> None:
        """
        Args:
            machine: new, without any state; this group calls it from now on.
            node: the name of this one, a key of ``peers``.
            peers: name to HOST:PORT of every node, the same on all of them. There is neither
                encryption nor authentication: a network that is trusted.
            data_dir: of this node alone; made when missing. Emptied, it is another node's: see
                :meth:`admit`.
            listen: where to listen, if not at this node's address in ``peers``.

        Raises:
            ConfigError.
        """
        check_peers(node, peers)
        self.machine = machine
        self.node = node
        self.config = config or ReplicatedConfig()
        self._peer_addresses = dict(peers)
        self._data_dir = data_dir
        self._listen = listen or peers[node]
        self._rng = random.Random()
        self._stack = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: QuorumlogError | None = None
        self._closed = False

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the data directory, listen, and begin to look for the others.

        Raises (nothing is left behind):
            LogLocked, UnusableDirectory, Corrupt, DiskFull: the data directory.
            ConfigError: it is that of another node. AddressInUse.
        """
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        config, stack = self.config, self._stack
        worker, disk, clock = ThreadWorker(_DISK_THREADS), SystemDisk(), SystemClock()
        stack.callback(worker.close)
        prefix = id_prefix(self.node)
        data = await worker.run(lambda: DataDirectory.open(disk, self._data_dir, prefix))
        stack.callback(data.release)
        # Before the release: what a thread has begun is written before another may have the lock.
        stack.callback(worker.close)
        self._node_id = data.identity.node_id
        if name_of(self._node_id) != self.node:
            raise ConfigError(
                f"{self._data_dir} belongs to node {name_of(self._node_id)!r}, not {self.node!r}"
            )
        server = bind_server(self._listen)
        stack.push_async_callback(server.stop, _STOP_GRACE_S)
        calls = GrpcPeerCalls(self._address_of)
        stack.push_async_callback(calls.close)
        self._peers = GrpcPeers(
            node_id=self._node_id,
            process_id=uuid.uuid4().hex,
            address=self._peer_addresses[self.node],
            resolve=self._address_of,
            rng=self._rng,
        )
        stack.push_async_callback(self._peers.close)
        self._host = GroupHost(
            node_id=self._node_id,
            directory=data.groups,
            disk=disk,
            clock=clock,
            worker=worker,
            transport=self._peers,
            rng=self._rng,
            config=config.replication(),
            events=self._replica_event,
        )
        stack.push_async_callback(self._host.close)
        directory = self._host.path_of(GROUP)
        self._group_machine = GroupMachine(self.machine, directory)
        self._wire(data, calls, worker)
        trimming = LogTrimming(
            replica=self._replica,
            clock=clock,
            interval_s=config.trim_interval_s,
            max_lag_s=config.max_lag_s,
            trim_draft=trim_draft,
            on_damage=partial(self._host.report_damage, GROUP),
        )
        port = GroupPeerPort(
            self._peer_addresses, self._peers, self._bootstrap, self._requests.answer
        )
        await start_server(server, port, self._peers.rpc_handler())
        self._tasks = [
            asyncio.create_task(self._enter_group()),
            asyncio.create_task(self._guarded_run(trimming)),
        ]
        _log.info("replicated_started", node=self._node_id, listen=self._listen)

    def _wire(self, data: DataDirectory, calls: GrpcPeerCalls, worker: ThreadWorker) -> None:
        """Make what asks other nodes."""
        self._requests = LeaderRequests(
            node_id=self._node_id,
            machine=self._group_machine,
            replica=self._replica,
            calls=calls,
            address_of=self._address_of,
        )
        self._roster = Roster(self.node, self._peer_addresses, self._peers.hello, calls)
        self._bootstrap = Bootstrap(
            identity=data.identity,
            seat=Seat(self._node_id, self.node, self._peer_addresses[self.node]),
            expect=len(self._peer_addresses),
            save=lambda changed: worker.run(lambda: data.save(changed)),
            membership=self._roster,
            calls=calls,
        )
        self._changes = MemberChanges(
            self._replica, self._roster, self._address_of, self._update_peers
        )

    async def wait_ready(self, timeout_s: float | None = None) -> None:
        """Wait until the group has formed, has a leader, and this node holds all that was
        acknowledged before.

        Raises:
            TimeoutError; what stands in ``failure``.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                if self.failure is not None:
                    raise self.failure
                with contextlib.suppress(Unavailable):
                    await self.read()
                    return
                await asyncio.sleep(_READY_POLL_S)

    async def close(self) -> None:
        """Hand leadership over, save the state and stop; within seconds. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        try:
            await self._hand_over()
        finally:
            await self._stack.aclose()
        _log.info("replicated_stopped", node=self._node_id)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # -- what a program asks -------------------------------------------------------------------

    async def propose(
        self,
        command: bytes,
        *,
        request_id: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        forward: bool = True,
    ) -> bytes:
        """See :meth:`quorumlog.replicated.group.Group.propose`."""
        return await self._requests.propose(
            command, request_id=request_id, timeout_s=timeout_s, forward=forward
        )

    async def read(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """See :meth:`quorumlog.replicated.group.Group.read`."""
        await self._requests.read(timeout_s=timeout_s)

    @property
    def leader(self) -> str | None:
        """The name of the leader as far as this node knows."""
        leader = self._leader_id()
        return None if leader is None else name_of(leader)

    @property
    def is_leader(self) -> bool:
        """Whether this node believes to lead; only ``read`` makes that certain."""
        replica = self._host.replicas.get(GROUP)
        return replica is not None and replica.serving

    @property
    def applied_index(self) -> Index:
        """The last batch of the group's log that is in the machine's state here."""
        return self._group_machine.index

    @property
    def voters(self) -> tuple[str, ...]:
        """Their names, sorted; empty before the group has formed here."""
        replica = self._host.replicas.get(GROUP)
        members = () if replica is None else replica.core.members.voters
        return tuple(sorted(name_of(node_id) for node_id in members))

    @property
    def failure(self) -> Exception | None:
        """Why this node has stopped for good: its disk, its machine, its place in the group."""
        replica = self._host.replicas.get(GROUP)
        return self._failure or (None if replica is None else replica.failure)

    # -- members: at the leader ----------------------------------------------------------------

    async def admit(self, name: str, *, timeout_s: float = 60.0) -> None:
        """Make the node that runs as ``name`` a voter, in place of any other of that name.

        For a node that came with an empty data directory: one whose disk was lost, or a new one,
        whose name and address all nodes were restarted with. The old directory must not come back.

        Raises:
            NotLeader: with the leader's address. Unavailable: ``name`` does not answer or did not
                catch up in time; as a learner it stays, and the next call goes on.
        """
        await self._changes.admit(name, timeout_s)

    async def remove(self, name: str, *, timeout_s: float = 60.0) -> None:
        """Take the voters of this name out of the group. Raises as :meth:`admit`, and
        ``InvalidArgument``: there is none, or no other."""
        await self._changes.remove(name, timeout_s)

    async def transfer(self, name: str, *, timeout_s: float = 5.0) -> None:
        """Have the voter of this name lead. Raises as :meth:`remove`."""
        await self._changes.transfer(name, timeout_s)

    # -- into the group ------------------------------------------------------------------------

    async def _enter_group(self) -> None:
        looking = asyncio.create_task(self._look())
        try:
            identity = await self._bootstrap.run()
            looking.cancel()
            self._peers.cluster_id = identity.cluster_id
            voters = Members(tuple(seat.node_id for seat in identity.voters))
            self._peers.set_peers(voters.voters)
            await self._host.open_group(GROUP, voters, self._group_machine, self.config.log())
        except QuorumlogError as error:
            self._fail(error)
        except OSError as error:
            self._fail(unusable(self._data_dir, error))
        else:
            self._update_peers()
            _log.info("replicated_ready", node=self._node_id, group=identity.cluster_id)
        finally:
            looking.cancel()

    async def _look(self) -> None:
        while True:
            await self._roster.look()
            await asyncio.sleep(_LOOK_S)

    async def _guarded_run(self, trimming: LogTrimming) -> None:
        try:
            await trimming.run()
        except QuorumlogError as error:
            self._fail(error)

    def _fail(self, error: QuorumlogError) -> None:
        _log.error("replicated_failed", node=self._node_id, error=str(error), exc_info=error)
        self._failure = error

    async def _hand_over(self) -> None:
        """Have somebody else lead, so that nobody waits for an election."""
        replica = self._host.replicas.get(GROUP)
        if replica is None or not replica.serving:
            return
        others = (node_id for node_id in replica.core.members.voters if node_id != self._node_id)
        target = next((node_id for node_id in others if self._peers.connected(node_id)), None)
        if target is not None:
            with contextlib.suppress(QuorumlogError):
                await self._changes.hand_over(replica, target, _HAND_OVER_S)

    # -- who is where --------------------------------------------------------------------------

    def _replica(self) -> Replica:
        """Raises Unavailable: not open yet, or just being opened again. Closed."""
        if self._closed:
            raise Closed("this group is closed")
        if self._failure is not None:
            raise self._failure
        replica = self._host.replicas.get(GROUP)
        if replica is None:
            raise Unavailable("the group has not formed yet: are all of its nodes up?")
        if not replica.takes_part and replica.failure is None:
            raise Unavailable("this replica is being opened again")
        return replica

    def _leader_id(self) -> NodeId | None:
        replica = self._host.replicas.get(GROUP)
        return None if replica is None else replica.core.leader_id

    def _address_of(self, node_id: NodeId) -> str | None:
        return self._peer_addresses.get(name_of(node_id))

    def _replica_event(self, replica: Replica, event: Event) -> None:
        if isinstance(event, LeaderChanged):
            self._requests.leader_moved()
        self._update_peers()

    def _update_peers(self) -> None:
        """Keep a stream with every member, and with who may become one."""
        replica = self._host.replicas.get(GROUP)
        if replica is not None:
            self._peers.set_peers({*replica.core.members.everybody, *self._roster.ids()})
