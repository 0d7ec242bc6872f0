"""Fencing tokens and checkpoints: their bytes, their order in the log, and what survives."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.broker.led_partition import LedPartition
from quorumlog.broker.note_command import (
    ForgetCheckpoint,
    RaiseFence,
    SetCheckpoint,
    decode_note,
    is_note_command,
)
from quorumlog.broker.note_keeper import NoteKeeper
from quorumlog.broker.notes import (
    BLANK,
    MAX_CHECKPOINTS,
    MAX_FENCING_TOKEN,
    Notes,
    check_checkpoint_name,
)
from quorumlog.broker.partition import PartitionMachine
from quorumlog.broker.start_command import StartCommand
from quorumlog.errors import (
    InvalidArgument,
    NotLeader,
    OffsetOutOfRange,
    OutcomeUnknown,
    ProtocolError,
    StaleFencingToken,
)
from quorumlog.replication.config import ReplicationConfig
from quorumlog.types import Index, NodeId, Offset
from support.replica_cluster import Cluster, draft, simulated

names = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=20)
offsets = st.integers(0, (1 << 63) - 1).map(Offset)
tokens = st.integers(1, MAX_FENCING_TOKEN)


@given(st.integers(0, MAX_FENCING_TOKEN), st.dictionaries(names, offsets, max_size=5))
def test_notes_are_read_back_and_the_order_they_came_in_does_not_matter(
    token: int, checkpoints: dict[str, Offset]
) -> None:
    notes = Notes(token, checkpoints)
    encoded = notes.encode()
    assert Notes.decode(memoryview(encoded)) == notes
    assert Notes(token, dict(reversed(checkpoints.items()))).encode() == encoded
    assert StartCommand.decode(
        StartCommand(Offset(1), Index(2), 3, notes).encode()
    ) == StartCommand(Offset(1), Index(2), 3, notes)
    for wrong in (encoded[:-1], encoded + b"\0"):
        with pytest.raises(ProtocolError):
            Notes.decode(wrong)


commands = st.one_of(
    tokens.map(RaiseFence),
    st.builds(SetCheckpoint, names, offsets, st.booleans()),
    names.map(ForgetCheckpoint),
)


@given(commands)
def test_a_command_is_read_back(command: RaiseFence | SetCheckpoint | ForgetCheckpoint) -> None:
    encoded = command.encode()
    assert is_note_command(memoryview(encoded))
    assert decode_note(memoryview(encoded)) == command


def test_the_bytes_are_those_of_version_1() -> None:
    assert RaiseFence(7).encode().hex() == "514c4301" + "01" + "0700000000000000"
    advance = SetCheckpoint("a", Offset(3))
    assert advance.encode().hex() == "514c4301" + "02" + "0300000000000000" + "61"
    notes = Notes(7, {"a": Offset(3)})
    assert notes.encode().hex() == (
        "0700000000000000" + "01000000" + "0100" + "61" + "0300000000000000"
    )
    for wrong in ("514c4302", "514c430100", "514c4301010700000000000000" + "61"):
        with pytest.raises(ProtocolError):
            decode_note(bytes.fromhex(wrong))


def test_a_checkpoint_goes_back_only_when_told_to_and_a_fence_never() -> None:
    notes = SetCheckpoint("a", Offset(5)).applied_to(BLANK)
    assert SetCheckpoint("a", Offset(4)).applied_to(notes) is notes
    assert SetCheckpoint("a", Offset(4), rewind=True).applied_to(notes).checkpoints == {"a": 4}
    assert ForgetCheckpoint("a").applied_to(notes) == BLANK
    fenced = RaiseFence(9).applied_to(notes)
    assert RaiseFence(8).applied_to(fenced) == fenced


@pytest.mark.parametrize("name", ["", "x" * 201, "é" * 101, "a\nb", "\ud800"])
def test_a_name_that_no_checkpoint_can_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="checkpoint"):
        check_checkpoint_name(name)


class Noted:
    """Three replicas of a partition, and a keeper of each one's notes."""

    def __init__(self) -> None:
        self.cluster = Cluster(3, machine=PartitionMachine)

    async def open(self) -> None:
        await self.cluster.open(ReplicationConfig())
        await self.cluster.leader()

    def led_by(self, node: NodeId) -> LedPartition:
        replica = self.cluster.replicas[node]
        if not replica.serving:
            raise NotLeader()
        machine = replica.state_machine
        assert isinstance(machine, PartitionMachine)
        return LedPartition(replica.group, replica, machine, lambda: None)

    async def led(self) -> LedPartition:
        leader = await self.cluster.leader()
        node = next(name for name, each in self.cluster.replicas.items() if each is leader)
        return self.led_by(node)

    async def keeper(self) -> NoteKeeper:
        led = await self.led()
        return NoteKeeper(lambda topic, partition: led)

    async def hand_over(self) -> None:
        led = await self.led()
        before = led.replica
        others = [node for node, each in self.cluster.replicas.items() if each is not before]
        before.transfer_leadership(others[0])
        async with asyncio.timeout(10):
            while not self.cluster.replicas[others[0]].serving:
                await asyncio.sleep(0.01)


@simulated
async def test_an_older_token_is_refused_as_soon_as_a_newer_one_is_proposed() -> None:
    noted = Noted()
    await noted.open()
    led, keeper = await noted.led(), await noted.keeper()
    keeper.admit(led, 5)
    newest = led.propose(draft(b"by 5"))
    # Neither is committed yet.
    with pytest.raises(StaleFencingToken) as caught:
        keeper.admit(led, 4)
    assert (caught.value.token, caught.value.newest) == (4, 5)
    keeper.admit(led, 5)
    await newest
    assert led.machine.notes.fencing_token == 5
    assert await keeper.fence("t", 0, 6) == 6
    with pytest.raises(StaleFencingToken):
        keeper.admit(led, 5)
    with pytest.raises(StaleFencingToken):
        await keeper.fence("t", 0, 5)
    for wrong in (0, -1, MAX_FENCING_TOKEN + 1):
        with pytest.raises(InvalidArgument):
            await keeper.fence("t", 0, wrong)


@simulated
async def test_what_is_noted_outlives_its_leader_and_a_restart_of_all() -> None:
    noted = Noted()
    await noted.open()
    keeper = await noted.keeper()
    led = await noted.led()
    await led.propose(draft(b"a record"))
    await keeper.fence("t", 0, 3)
    assert await keeper.set_checkpoint("t", 0, "billing", 1, rewind=False) == 1
    assert await keeper.set_checkpoint("t", 0, "billing", 0, rewind=False) == 1
    await keeper.set_checkpoint("t", 0, "mail", 0, rewind=False)
    await keeper.forget_checkpoint("t", 0, "mail")
    expected = Notes(3, {"billing": Offset(1)})
    await noted.hand_over()
    keeper = await noted.keeper()
    assert await keeper.notes("t", 0) == expected
    with pytest.raises(StaleFencingToken):
        keeper.admit(await noted.led(), 2)
    for node in noted.cluster.nodes:
        noted.cluster.power_cut(node)
    await noted.cluster.open(ReplicationConfig())
    keeper = await noted.keeper()
    assert await keeper.notes("t", 0) == expected


@simulated
async def test_what_a_leader_proposed_and_lost_is_not_held_against_its_callers_later() -> None:
    noted = Noted()
    await noted.open()
    led, keeper = await noted.led(), await noted.keeper()
    node = next(name for name, each in noted.cluster.replicas.items() if each is led.replica)
    noted.cluster.wire.cut = {node}
    lost = asyncio.ensure_future(keeper.fence("t", 0, 9))
    await asyncio.sleep(0)
    assert led.machine.latest_notes.fencing_token == 9
    await asyncio.wait([lost])
    with pytest.raises(OutcomeUnknown):
        lost.result()
    assert led.machine.latest_notes.fencing_token == 0
    noted.cluster.wire.cut = set()
    second = await noted.led()
    assert second.replica is not led.replica
    await (await noted.keeper()).fence("t", 0, 4)
    await asyncio.sleep(5)
    assert led.machine.notes.fencing_token == 4


@simulated
async def test_a_deposed_leader_does_not_say_that_a_checkpoint_is_behind_the_end() -> None:
    noted = Noted()
    await noted.open()
    led, keeper = await noted.led(), await noted.keeper()
    noted.cluster.wire.cut = {noted.cluster.node_of(led.replica)}
    raft = ReplicationConfig().raft
    await asyncio.sleep((raft.lease_fraction + 0.1) * raft.election_timeout_s)
    assert led.replica.serving
    # Its successor may have the record that was read; it has not heard of either.
    with pytest.raises(NotLeader):
        await keeper.set_checkpoint("t", 0, "a", 1, rewind=False)


@simulated
async def test_a_checkpoint_that_cannot_be_is_refused_with_the_reason() -> None:
    noted = Noted()
    await noted.open()
    keeper = await noted.keeper()
    with pytest.raises(OffsetOutOfRange):
        await keeper.set_checkpoint("t", 0, "a", 1, rewind=False)
    with pytest.raises(InvalidArgument):
        await keeper.set_checkpoint("t", 0, "", 0, rewind=False)
    led = await noted.led()
    for number in range(MAX_CHECKPOINTS):
        led.machine.note_appended(SetCheckpoint(f"name-{number}", Offset(0)))
    await keeper.set_checkpoint("t", 0, "name-0", 0, rewind=False)
    with pytest.raises(InvalidArgument, match="1000 checkpoints already"):
        await keeper.set_checkpoint("t", 0, "one more", 0, rewind=False)
