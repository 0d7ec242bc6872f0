"""Members of protocol versions 1 to 5: who is taken, what each is sent, what of each is read."""

import random
from collections.abc import Iterable

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.core.gossip_core import GossipCore
from quorumlog.discovery.core.members import MemberTable, Merge
from quorumlog.discovery.core.output import ClaimRefused, OpenPing, Output, SendPacket
from quorumlog.discovery.core.versions import MAX_KINDS
from quorumlog.discovery.gossip import Gossip
from quorumlog.discovery.wire.codec import encode_message, encode_push_pull
from quorumlog.discovery.wire.messages import (
    UNSAID_VERSIONS,
    VERSIONS,
    Ack,
    Address,
    Alive,
    Dead,
    IndirectPing,
    MemberRecord,
    MessageType,
    Nack,
    PacketMessage,
    Ping,
    PushPull,
    Status,
)
from quorumlog.discovery.wire.packet import decode_packet, encode_packet
from quorumlog.discovery.wire.stream import StreamDecoder
from quorumlog.errors import ProtocolError

LAN = GossipConfig.lan()
HERE: Address = ("10.0.0.1", 7946)
THERE: Address = ("10.0.0.2", 7946)
FAR: Address = ("10.0.0.3", 7946)

FOREIGN = [
    pytest.param([7, 9, 8, 2, 5, 4], id="understands and speaks newer ones only"),
    pytest.param([3, 5, 3, 2, 5, 4], id="does not understand ours"),
    pytest.param([1, 1, 1, 2, 5, 4], id="understands the first only"),
    pytest.param([1, 6, 6, 2, 5, 4], id="speaks one that we do not understand"),
    pytest.param([1, 5, 0, 2, 5, 4], id="speaks none"),
    pytest.param([0, 5, 2, 2, 5, 4], id="one below the first"),
    pytest.param([5, 1, 2, 2, 5, 4], id="a range upside down"),
    pytest.param([1, 5, 2, 9, 9, 9], id="another layer above"),
    pytest.param([1, 5, 2, 2, 3, 3], id="an older layer above"),
    pytest.param([1, 5, 2, 2, 5, 6], id="a newer layer above"),
    pytest.param([1, 5, 2, 0, 0, 0], id="no layer above"),
]
"""Versions that do not go together with ours, ``[1, 5, 2, 2, 5, 4]``."""


def core(config: GossipConfig = LAN) -> GossipCore:
    return GossipCore(
        name="me", address=HERE, tags={"id": "me"}, config=config, rng=random.Random(1), now=0.0
    )


def alive(
    name: str,
    address: Address = THERE,
    versions: Iterable[int] = VERSIONS,
    incarnation: int = 1,
) -> Alive:
    return Alive(name, incarnation, address, b"", bytes(versions))


def understands(version: int) -> bytes:
    """A member whose library knows the versions to ``version`` and that speaks 2, as ours."""
    return bytes([1, version, 2, 2, 5, 4])


def tell(node: GossipCore, *messages: PacketMessage, now: float = 0.0) -> None:
    node.receive_packet(THERE, encode_packet([encode_message(m) for m in messages]), now)


def packets(outputs: Iterable[Output], to: Address) -> list[bytes]:
    return [o.data for o in outputs if isinstance(o, SendPacket) and o.address == to]


def names(node: GossipCore) -> set[str]:
    return {member.name for member in node.members()}


def alive_bytes(versions: object) -> bytes:
    fields: dict[str, object] = {"Incarnation": 1, "Node": "old", "Addr": b"\x0a\0\0\2"}
    fields |= {"Port": 7946, "Meta": b""}
    if versions is not None:
        fields["Vsn"] = versions
    return bytes([MessageType.ALIVE]) + msgpack.packb(fields, use_bin_type=False)


class TestWhoIsTaken:
    @pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 16])
    def test_other_than_six_versions_are_malformed(self, size: int) -> None:
        node = core()
        versions = (VERSIONS * 3)[:size]
        with pytest.raises(ProtocolError):
            node.receive_packet(THERE, alive_bytes(versions), 0.0)
        state = PushPull((MemberRecord(alive("a", versions=versions), Status.ALIVE),), True)
        with pytest.raises(ProtocolError):
            StreamDecoder().feed(encode_push_pull(state))
        assert names(node) == {"me"}

    @pytest.mark.parametrize("versions", FOREIGN)
    def test_a_claim_that_does_not_fit_is_refused_alone(self, versions: list[int]) -> None:
        node = core()
        tell(node, alive("a", FAR, versions), alive("b", THERE), Ping(7, "me"))
        outputs = node.take_output()
        refused = [output for output in outputs if isinstance(output, ClaimRefused)]
        assert refused == [ClaimRefused("a", FAR, bytes(versions))]
        assert refused[0].error().reason == "INCOMPATIBLE_MEMBER"
        assert names(node) == {"me", "b"}
        said = [m for data in packets(outputs, THERE) for m in decode_packet(data)]
        assert Ack(7) in said
        assert alive("b", THERE) in said
        assert not [m for m in said if isinstance(m, Alive) and m.name == "a"]

    @pytest.mark.parametrize("versions", FOREIGN)
    def test_a_state_is_merged_without_the_member_that_does_not_fit(
        self, versions: list[int]
    ) -> None:
        node = core()
        records = (
            MemberRecord(alive("a", FAR, versions), Status.ALIVE),
            MemberRecord(alive("b", THERE), Status.ALIVE),
        )
        state = StreamDecoder().feed(encode_push_pull(PushPull(records, True)))
        assert isinstance(state, PushPull)
        node.receive_push_pull(state, 0.0)
        assert names(node) == {"me", "b"}
        assert {r.alive.name for r in node.local_state(join=False).records} == {"me", "b"}
        assert sum(isinstance(output, ClaimRefused) for output in node.take_output()) == 1

    @pytest.mark.parametrize("versions", FOREIGN)
    def test_a_member_that_is_known_stays_what_it_was(self, versions: list[int]) -> None:
        node = core()
        tell(node, alive("a"))
        before = node.local_state(join=False)
        tell(node, alive("a", THERE, versions, incarnation=2))
        assert node.local_state(join=False) == before

    def test_what_one_member_speaks_every_other_has_to_understand(self) -> None:
        table = MemberTable(10)
        for name, versions, outcome in (
            ("me", VERSIONS, Merge.NEWS),
            ("old", [1, 2, 2, 2, 5, 4], Merge.NEWS),
            ("five", [1, 5, 5, 2, 5, 4], Merge.INCOMPATIBLE),
            ("one", [1, 5, 1, 2, 5, 4], Merge.NEWS),
            ("from two", [2, 5, 2, 2, 5, 4], Merge.INCOMPATIBLE),
            ("serf 5", [1, 5, 2, 2, 5, 5], Merge.NEWS),
            ("serf to 4", [1, 5, 2, 2, 4, 4], Merge.INCOMPATIBLE),
        ):
            assert table.apply_alive(alive(name, versions=versions), 0.0) is outcome, name

    def test_a_member_may_be_replaced_by_a_newer_one_of_its_name(self) -> None:
        table = MemberTable(10)
        table.apply_alive(alive("me"), 0.0)
        table.apply_alive(alive("a", versions=understands(2)), 0.0)
        newer = alive("a", versions=[1, 5, 5, 2, 5, 4], incarnation=2)
        assert table.apply_alive(newer, 0.0) is Merge.NEWS

    def test_of_two_old_ones_the_second_still_counts(self) -> None:
        table = MemberTable(10)
        for name in ("a", "b"):
            table.apply_alive(alive(name, versions=understands(2)), 0.0)
        newer = alive("a", versions=[1, 5, 5, 2, 5, 4], incarnation=2)
        assert table.apply_alive(newer, 0.0) is Merge.INCOMPATIBLE

    def test_a_claim_is_compared_with_so_many_kinds_of_versions_and_no_more(self) -> None:
        table = MemberTable(1000)
        kinds = [bytes([1, 2 + number, 2, 2, 5, 4]) for number in range(MAX_KINDS + 1)]
        for kind in kinds[:-1]:
            assert table.apply_alive(alive(f"one of {kind[1]}", versions=kind), 0.0) is Merge.NEWS
        late = alive("late", versions=kinds[-1])
        assert table.apply_alive(late, 0.0) is Merge.INCOMPATIBLE
        assert table.apply_alive(alive("late", versions=kinds[0]), 0.0) is Merge.NEWS
        # Who was the only one of its kind makes room for another.
        changed = alive(f"one of {kinds[1][1]}", versions=kinds[-1], incarnation=2)
        assert table.apply_alive(changed, 0.0) is Merge.NEWS

    def test_who_is_forgotten_keeps_nobody_out(self) -> None:
        newest = alive("new", versions=[1, 5, 5, 2, 5, 4])
        table = MemberTable(10)
        for name in ("a", "b"):
            table.apply_alive(alive(name, versions=understands(2)), 0.0)
            table.apply_status(name, Status.LEFT, 1, 0.0)
        assert table.apply_alive(newest, 0.0) is Merge.INCOMPATIBLE
        table.forget_left("a")
        assert table.apply_alive(newest, 0.0) is Merge.INCOMPATIBLE
        table.forget(1.0)
        assert table.apply_alive(newest, 0.0) is Merge.NEWS

    @given(
        st.lists(
            st.tuples(
                st.sampled_from("abc"),
                st.lists(st.integers(0, 6), min_size=6, max_size=6),
                st.booleans(),
            ),
            max_size=12,
        )
    )
    def test_memberlist_would_take_every_state(
        self, claims: list[tuple[str, list[int], bool]]
    ) -> None:
        node = core()
        for incarnation, (name, versions, left) in enumerate(claims, 1):
            tell(node, alive(name, THERE, versions, incarnation))
            if left:
                tell(node, Dead(name, incarnation, name))
        memberlist_verifies(node.local_state(join=True).records)

    async def test_they_are_counted(self) -> None:
        gossip = await Gossip.start(
            name="me", bind=("127.0.0.1", 0), tags={}, config=GossipConfig.local(), rng=random
        )
        try:
            state = PushPull(
                (MemberRecord(alive("a", versions=[7, 9, 8, 2, 5, 4]), Status.ALIVE),), True
            )
            gossip._core.receive_push_pull(state, gossip._loop.time())
            gossip._drain()
            assert gossip.rejected == {"INCOMPATIBLE_MEMBER": 1}
        finally:
            await gossip.close()


class TestWhatEachIsSent:
    @pytest.mark.parametrize("version", [2, 3, 4, 5])
    def test_a_checksum_is_for_those_who_know_it(self, version: int) -> None:
        node = core()
        tell(node, alive("a", THERE, understands(version)), Ping(1, "me", "a", THERE))
        node.tick(node.deadline)
        while not (probes := packets(outputs := node.take_output(), THERE)):
            node.tick(node.deadline)
        for data in probes:
            assert (data[0] == MessageType.CRC) == (version >= 5)
            decode_packet(data)
        assert outputs

    def test_a_stranger_gets_no_checksum(self) -> None:
        node = core()
        tell(node, Ping(1, "me"))
        [answer] = packets(node.take_output(), THERE)
        assert answer[0] == MessageType.ACK
        assert decode_packet(answer) == [Ack(1)]

    def test_what_is_relayed_goes_by_the_one_it_is_sent_to(self) -> None:
        for target, origin in ((2, 5), (5, 2)):
            node = core()
            tell(node, alive("a", FAR, understands(target)), alive("b", THERE, understands(origin)))
            node.take_output()
            tell(node, IndirectPing(7, "a", FAR, True))
            [ping] = packets(node.take_output(), FAR)
            assert (ping[0] == MessageType.CRC) == (target == 5)
            node.tick(0.4)
            sent = packets(node.take_output(), THERE)
            assert {data[0] == MessageType.CRC for data in sent} == {origin == 5}
            assert Nack(7) in [message for data in sent for message in decode_packet(data)]

    def test_who_comes_to_an_address_after_another_is_asked_for_itself(self) -> None:
        table = MemberTable(10)
        assert not table.checks_at(THERE)
        table.apply_alive(alive("a", THERE), 0.0)
        assert table.checks_at(THERE)
        table.apply_alive(alive("b", THERE, understands(4)), 0.0)
        assert not table.checks_at(THERE)
        table.apply_alive(alive("b", THERE, understands(5), incarnation=2), 0.0)
        assert table.checks_at(THERE)
        for name in ("a", "b"):
            table.apply_status(name, Status.LEFT, 2, 0.0)
        table.apply_alive(alive("b", FAR, understands(4), incarnation=3), 0.0)
        assert table.checks_at(THERE)
        assert not table.checks_at(FAR)
        table.forget(1.0)
        assert not table.checks_at(THERE)

    @pytest.mark.parametrize("version", [2, 3, 4, 5])
    def test_a_nack_is_wanted_of_those_who_send_it(self, version: int) -> None:
        requests = [
            message
            for output in failed_probe(relay=version, target=5)
            if isinstance(output, SendPacket) and output.address == FAR
            for message in decode_packet(output.data)
            if isinstance(message, IndirectPing)
        ]
        assert [request.wants_nack for request in requests] == [version >= 4]

    @pytest.mark.parametrize("version", [2, 3, 4, 5])
    def test_tcp_is_tried_with_those_who_answer_there(self, version: int) -> None:
        tried = [
            o.address for o in failed_probe(relay=5, target=version) if isinstance(o, OpenPing)
        ]
        assert tried == ([THERE] if version >= 3 else [])

    @pytest.mark.parametrize("wanted", [True, False])
    def test_a_nack_is_sent_to_who_wants_it(self, wanted: bool) -> None:
        node = core()
        tell(node, IndirectPing(7, "a", FAR, wanted))
        sent = []
        for _ in range(3):
            node.tick(node.deadline)
            sent += packets(node.take_output(), THERE)
        assert [decode_packet(data) for data in sent] == ([[Nack(7)]] if wanted else [])


class TestWhatIsRead:
    def test_packets_without_a_checksum(self) -> None:
        node = core()
        node.receive_packet(THERE, encode_message(Ping(7, "me")), 0.0)
        [answer] = packets(node.take_output(), THERE)
        assert decode_packet(answer) == [Ack(7)]

    @pytest.mark.parametrize("versions", [None, b"", bytes(6)])
    def test_a_member_that_says_no_versions_is_taken_for_an_old_one(
        self, versions: bytes | None
    ) -> None:
        node = core()
        node.receive_packet(THERE, alive_bytes(versions), 0.0)
        [record] = [r for r in node.local_state(join=False).records if r.alive.name == "old"]
        assert record.alive.versions == UNSAID_VERSIONS
        tell(node, Ping(7, "me"))
        [answer] = packets(node.take_output(), THERE)
        assert answer[0] != MessageType.CRC

    @pytest.mark.parametrize("version", [2, 3, 4, 5])
    def test_members_of_every_version(self, version: int) -> None:
        node = core()
        claim = alive("a", versions=understands(version))
        tell(node, claim)
        assert MemberRecord(claim, Status.ALIVE) in node.local_state(join=False).records

    def test_a_death_without_an_accuser(self) -> None:
        node = core()
        tell(node, alive("a"))
        fields = msgpack.packb({"Incarnation": 1, "Node": "a"}, use_bin_type=False)
        node.receive_packet(THERE, bytes([MessageType.DEAD]) + fields, 0.0)
        [record] = [r for r in node.local_state(join=False).records if r.alive.name == "a"]
        assert record.status is Status.DEAD


def failed_probe(*, relay: int, target: int) -> list[Output]:
    """What is sent until ``target``, at THERE, was probed in vain, with a relay at FAR."""
    node = core()
    tell(
        node,
        alive("target", THERE, understands(target)),
        alive("relay", FAR, understands(relay)),
    )
    outputs: list[Output] = []
    while not any(
        isinstance(message, IndirectPing) and message.target == "target"
        for data in packets(outputs, FAR)
        for message in decode_packet(data)
    ):
        outputs = []
        now = node.deadline
        node.tick(now)
        outputs = node.take_output()
        for data in packets(outputs, FAR):
            for message in decode_packet(data):
                if isinstance(message, Ping) and message.target == "relay":
                    node.receive_packet(
                        FAR, encode_packet([encode_message(Ack(message.sequence))]), now
                    )
    return outputs


def memberlist_verifies(records: Iterable[MemberRecord]) -> None:
    """The rule by which memberlist takes or refuses a state, with nobody else known to it."""
    said = [record.alive.versions for record in records]
    for minimum, maximum, current in ((0, 1, 2), (3, 4, 5)):
        lowest = max(versions[minimum] for versions in said)
        highest = min(versions[maximum] for versions in said)
        assert all(lowest <= versions[current] <= highest for versions in said)
