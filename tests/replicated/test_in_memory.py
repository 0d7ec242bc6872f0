"""The group for tests of programs behaves as a real one."""

import pytest

from quorumlog import Command, Group, InMemoryGroup
from quorumlog.errors import Closed, InvalidArgument, OutcomeUnknown, Refused, Unavailable
from support.replicated_group import Ledger


async def test_commands_are_applied_refused_and_remembered() -> None:
    async with InMemoryGroup(Ledger()) as group:
        assert await group.propose(b"one") == b"1"
        with pytest.raises(Refused, match="no, always"):
            await group.propose(b"no")
        assert await group.propose(b"two", request_id="r") == b"2"
        assert await group.propose(b"two", request_id="r") == b"2"
        await group.read()
    with pytest.raises(Closed):
        await group.propose(b"three")


async def test_a_lost_answer_is_cleared_up_by_the_same_request_id() -> None:
    ledger = Ledger()
    group: Group = (memory := InMemoryGroup(ledger))
    memory.lose_next_answer()
    with pytest.raises(OutcomeUnknown):
        await group.propose(b"one", request_id="r")
    assert await group.propose(b"one", request_id="r") == b"1"
    assert ledger.lines == ["one"]


async def test_without_a_leader_nothing_happens() -> None:
    ledger = Ledger()
    group = InMemoryGroup(ledger)
    group.set_available(False)
    with pytest.raises(Unavailable):
        await group.propose(b"one")
    with pytest.raises(Unavailable):
        await group.read()
    group.set_available(True)
    assert await group.propose(b"one") == b"1"
    assert ledger.lines == ["one"]


async def test_a_restart_goes_through_the_snapshot() -> None:
    group = InMemoryGroup(Ledger())
    await group.propose(b"one", request_id="r")
    after = Ledger()
    group.restart(after)
    assert group.machine is after
    assert await group.propose(b"one", request_id="r") == b"1"
    assert await group.propose(b"two") == b"2"


async def test_the_limits_are_those_of_a_real_group() -> None:
    with pytest.raises(InvalidArgument):
        await InMemoryGroup(Ledger()).propose(b"x", request_id="")


class Clock(Ledger):
    def apply(self, command: Command) -> bytes:
        return str(command.timestamp_ms).encode()


async def test_time_is_what_the_test_says_and_never_goes_back() -> None:
    group = InMemoryGroup(Clock())
    stamps = []
    for now_ms in (5, 3, 9):
        group.now_ms = now_ms
        stamps.append(await group.propose(b""))
    assert stamps == [b"5", b"5", b"9"]
