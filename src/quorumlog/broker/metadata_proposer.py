"""Commands to the metadata: proposed here, or by way of the node that leads."""

import asyncio
from collections.abc import Callable
from typing import Final

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.metadata_command import check_command, parse_command, raise_for
from quorumlog.broker.peer_calls import PeerCalls
from quorumlog.errors import NotLeader, OutcomeUnknown, Unavailable
from quorumlog.log.batch import Draft, Kind
from quorumlog.replication.replica import Replica
from quorumlog.types import NodeId

_TIMEOUT_S: Final = 10.0
_RETRY_S: Final = 0.1


class MetadataProposer:
    def __init__(
        self, *, node_id: NodeId, replica: Callable[[], Replica], calls: PeerCalls
    ) -> None:
        """``replica`` gives that of group 0, or raises Unavailable."""
        self._node_id = node_id
        self._replica = replica
        self._calls = calls

    async def propose(self, command: metadata_pb2.Command) -> metadata_pb2.Result:
        """Have ``command`` applied, by way of the leader; typed errors as the state decided.

        Raises:
            Unavailable: no leader within 10 s; nothing was changed.
            OutcomeUnknown: it was sent and no answer came.
        """
        encoded = command.SerializeToString(deterministic=True)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _TIMEOUT_S
        while True:
            try:
                return raise_for(await self._propose_once(encoded))
            except (NotLeader, Unavailable) as error:
                if loop.time() + _RETRY_S > deadline:
                    raise Unavailable(
                        f"the cluster's metadata has no leader now ({error}): is a majority of its "
                        "voters up? See `quorumlog cluster status`"
                    ) from error
            await asyncio.sleep(_RETRY_S)

    async def propose_here(self, encoded: bytes) -> metadata_pb2.Result:
        """Apply a command as the leader.

        Raises:
            InvalidArgument: this release does not know the command, or it can never be done.
            NotLeader, and what :meth:`Replica.propose` raises.
        """
        check_command(parse_command(encoded))
        # Not wait_for: it loses a cancellation that comes together with the result.
        async with asyncio.timeout(_TIMEOUT_S):
            result = await self._replica().propose(Draft.of(encoded, kind=Kind.COMMAND))
        if not isinstance(result, metadata_pb2.Result):
            raise OutcomeUnknown("the command was applied and its result is not known")
        return result

    async def propose_as_leader(self, command: metadata_pb2.Command) -> metadata_pb2.Result:
        """As :meth:`propose_here`; typed errors as the state decided."""
        return raise_for(await self.propose_here(command.SerializeToString(deterministic=True)))

    async def _propose_once(self, encoded: bytes) -> metadata_pb2.Result:
        replica = self._replica()
        if replica.serving:
            try:
                return await self.propose_here(encoded)
            except TimeoutError:
                raise OutcomeUnknown("the command was not committed in time") from None
        leader = replica.core.leader_id
        if leader is None or leader == self._node_id:
            raise NotLeader("the metadata group has no leader now")
        return metadata_pb2.Result.FromString(await self._calls.propose(leader, encoded))
