"""Who of the peers answers, and under which id: takes the place of gossip where addresses are
fixed."""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from quorumlog.api._pb import peer_pb2
from quorumlog.errors import QuorumlogError
from quorumlog.node.bootstrap import Calls
from quorumlog.ports import Member, MemberState
from quorumlog.replicated.names import name_of
from quorumlog.types import NodeId

_log = structlog.get_logger()

_TIMEOUT_S = 1.0


class Roster:
    """A :class:`quorumlog.ports.Membership` for the bootstrap: as of the last :meth:`look`."""

    def __init__(
        self,
        node: str,
        peers: Mapping[str, str],
        hello: Callable[[], peer_pb2.Hello],
        calls: Calls,
    ) -> None:
        """``peers``: name to HOST:PORT, ``node`` the name of this one."""
        self._node = node
        self._peers = peers
        self._hello = hello
        self._calls = calls
        self._seen: dict[str, Member] = {}

    async def look(self) -> None:
        """Ask all others who they are. Takes a second at most."""
        others = sorted(name for name in self._peers if name != self._node)
        found = await asyncio.gather(*(self._ask(name) for name in others))
        self._seen = {member.name: member for member in found if member is not None}

    def id_of(self, name: str) -> NodeId | None:
        """Of the node that answered under ``name``."""
        member = self._seen.get(name)
        return None if member is None else NodeId(member.tags["id"])

    def ids(self) -> list[NodeId]:
        return [NodeId(self._seen[name].tags["id"]) for name in sorted(self._seen)]

    def members(self) -> list[Member]:
        return [self._seen[name] for name in sorted(self._seen)]

    def set_tags(self, tags: dict[str, str]) -> None:
        """The others ask for what they want to know."""

    def on_change(self, handler: Callable[[Member], None]) -> None:
        """Nothing changes but by :meth:`look`, whose caller knows."""

    async def _ask(self, name: str) -> Member | None:
        address = self._peers[name]
        try:
            reply = await self._calls.call(address, "Announce", self._hello(), _TIMEOUT_S)
        except QuorumlogError as error:
            _log.debug("peer_silent", peer=name, address=address, error=str(error))
            return None
        hello = reply.hello
        if name_of(NodeId(hello.node_id)) != name:
            _log.warning("peer_is_another", peer=name, address=address, node=hello.node_id)
            return None
        host, _, port = address.rpartition(":")
        tags = {
            "id": hello.node_id,
            "rpc": address,
            "cluster": hello.cluster_id,
            "expect": str(len(self._peers)),
        }
        return Member(name, host, int(port), MemberState.ALIVE, tags)
