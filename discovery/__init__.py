"""Who is out there: SWIM membership that speaks memberlist's wire protocol.

``core`` decides (no input or output), ``wire`` turns messages into bytes and back, ``gossip`` is
the asyncio shell around both. Gossip proposes, Raft decides: nothing here changes who votes.

A program that wants no more than to know who runs begins with ``Gossip.start``.
"""

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.gossip import Gossip
from quorumlog.discovery.key_ring import GossipKeys
from quorumlog.discovery.member_events import MemberEvent, MemberEventKind
from quorumlog.discovery.resolver import Resolver
from quorumlog.ports import Member, MemberState

__all__ = [
    "Gossip",
    "GossipConfig",
    "GossipKeys",
    "Member",
    "MemberEvent",
    "MemberEventKind",
    "MemberState",
    "Resolver",
]
