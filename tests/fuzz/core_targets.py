"""A whole member of gossip, given what nobody vouches for: all of it is taken, or nothing."""

from random import Random
from typing import Final

from fuzz.target import Target, expect
from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.core.gossip_core import GossipCore
from quorumlog.discovery.wire.codec import encode_message, encode_push_pull
from quorumlog.discovery.wire.messages import (
    Ack,
    Alive,
    Dead,
    IndirectPing,
    MemberRecord,
    Ping,
    PushPull,
    Status,
    Suspect,
)
from quorumlog.discovery.wire.packet import encode_packet
from quorumlog.discovery.wire.serf_codec import encode_serf, encode_state
from quorumlog.discovery.wire.serf_messages import Intent, Query, QueryFlag, SerfState, UserEvent
from quorumlog.discovery.wire.stream import StreamDecoder
from quorumlog.discovery.wire.tags import encode_tags
from quorumlog.errors import ProtocolError
from quorumlog.ports import MemberState

_ME, _OTHER = ("10.0.0.1", 7946), ("10.0.0.2", 7946)
_NOW: Final = 5.0
_LATER_S: Final = 10.0


def _alive(name: str, incarnation: int) -> Alive:
    return Alive(name, incarnation, _OTHER, encode_tags({"id": name}))


def _core() -> GossipCore:
    """``me``, which knows ``a``."""
    core = GossipCore(
        name="me",
        address=_ME,
        tags={"id": "me"},
        config=GossipConfig(),
        rng=Random(1),
        now=0.0,
    )
    core.receive_push_pull(PushPull((MemberRecord(_alive("a", 1), Status.ALIVE),), True, b""), 0.0)
    core.tick(_NOW)
    core.take_output()
    return core


def _packets() -> list[bytes]:
    gossip = (
        Ping(7, "me"),
        IndirectPing(8, "a", _OTHER, True, "a", _OTHER),
        Ack(7),
        _alive("b", 3),
        _alive("a", 2),
        Suspect("a", 2, "b"),
        Suspect("me", 9, "a"),
        Dead("me", 9, "a"),
        Dead("a", 2, "a"),
    )
    serf = (
        Intent("me", 9, leaves=True),
        Intent("a", 9, leaves=True, prune=True),
        UserEvent(3, "deploy", b"v1"),
        Query(6, 7, _OTHER, "a", "_serf_list-keys", flags=QueryFlag.ACK),
    )
    parts = [encode_message(each) for each in gossip]
    parts += [encode_message(encode_serf(each)) for each in serf]
    return [*parts, encode_packet(parts[:1] + parts[2:]), encode_packet(parts[1:])]


def _check_packet(data: bytes) -> None:
    core = _core()
    before = core.members(), core.local_state(join=False)
    try:
        core.receive_packet(_OTHER, data, _NOW)
    except ProtocolError:
        _expect_nothing_taken(core, before)
        raise
    _expect_it_goes_on(core)


def _states() -> list[bytes]:
    serf = SerfState(9, {"a": 4, "me": 3}, ("me",), 5, (UserEvent(3, "deploy", b"v1"),), 6)
    records = [
        MemberRecord(_alive("a", 5), Status.SUSPECT),
        MemberRecord(_alive("b", 1), Status.LEFT),
        MemberRecord(_alive("me", 7), Status.DEAD),
    ]
    return [
        encode_push_pull(PushPull(tuple(records), True, encode_state(serf))),
        encode_push_pull(PushPull((), False, b"not Serf's")),
    ]


def _check_state(data: bytes) -> None:
    message = StreamDecoder().feed(data)
    if not isinstance(message, PushPull):
        return
    core = _core()
    before = core.members(), core.local_state(join=False)
    try:
        core.receive_push_pull(message, _NOW)
    except ProtocolError:
        _expect_nothing_taken(core, before)
        raise
    _expect_it_goes_on(core)


def _expect_nothing_taken(core: GossipCore, before: object) -> None:
    expect((core.members(), core.local_state(join=False)) == before, "nothing has changed")
    expect(core.take_output() == [], "nothing is said to it")


def _expect_it_goes_on(core: GossipCore) -> None:
    for seconds in range(1, int(_LATER_S)):
        core.tick(_NOW + seconds)
        core.take_output()
    (me,) = [member for member in core.members() if member.name == "me"]
    expect(me.state is MemberState.ALIVE, "it denies what is said of itself")
    state = core.local_state(join=True)
    told = StreamDecoder().feed(encode_push_pull(state))
    expect(told == state, "what it has taken it can tell others")


CORE_TARGETS: Final = (
    Target("gossip-core", _check_packet, (ProtocolError,), _packets),
    Target("gossip-core-state", _check_state, (ProtocolError,), _states),
)
