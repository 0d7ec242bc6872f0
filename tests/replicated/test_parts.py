"""Formats, bounds and names of a replicated machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.errors import ConfigError, InvalidArgument, InvariantViolation, ProtocolError
from quorumlog.log.batch import Draft, Kind
from quorumlog.replicated import remembered as bounds
from quorumlog.replicated.command import TrimCommand, UserCommand, decode_command
from quorumlog.replicated.config import ReplicatedConfig
from quorumlog.replicated.group_machine import GroupMachine
from quorumlog.replicated.machine import MAX_COMMAND_BYTES, Command
from quorumlog.replicated.names import check_peers, id_prefix, name_of
from quorumlog.replicated.outcome import Outcome, Verdict
from quorumlog.replicated.remembered import Remembered
from quorumlog.replicated.state import GroupState, decode_state, encode_state
from quorumlog.types import Index, NodeId
from support.replicated_group import Ledger

indexes = st.integers(0, 2**64 - 1).map(Index)
outcomes = st.builds(Outcome, st.sampled_from(Verdict), indexes, st.binary(max_size=20))
ids = st.binary(min_size=1, max_size=64)


@given(st.builds(UserCommand, ids, indexes, st.binary(max_size=50)))
def test_a_command_is_read_as_it_was_written(command: UserCommand) -> None:
    assert decode_command(command.encode()) == command


@given(indexes)
def test_a_trim_is_read_as_it_was_written(index: Index) -> None:
    assert decode_command(TrimCommand(index).encode()) == TrimCommand(index)


@given(st.dictionaries(ids, outcomes, max_size=5), indexes, indexes, indexes, st.binary())
def test_a_state_is_read_as_it_was_written(
    requests: dict[bytes, Outcome], index: Index, free: Index, forgotten: Index, machine: bytes
) -> None:
    remembered = Remembered()
    for request_id, outcome in requests.items():
        remembered.add(request_id, outcome)
    remembered.forgotten_index = forgotten
    encoded = encode_state(GroupState(index, free, remembered, machine))
    state = decode_state(encoded)
    assert (state.index, state.free_index, state.machine) == (index, free, machine)
    assert dict(state.remembered) == requests
    assert encode_state(state) == encoded


@given(st.binary(max_size=80))
def test_anything_else_is_refused_by_name(raw: bytes) -> None:
    for decode in (decode_command, decode_state, Outcome.decode):
        try:
            decode(raw)
        except ProtocolError:
            continue


@pytest.mark.parametrize(
    "command",
    [
        UserCommand(b"", Index(0), b""),
        UserCommand(b"i" * 65, Index(0), b""),
        UserCommand(b"i", Index(0), bytes(MAX_COMMAND_BYTES + 1)),
    ],
)
def test_what_is_over_a_limit_is_refused_before_it_is_proposed(command: UserCommand) -> None:
    with pytest.raises(InvalidArgument):
        command.encode()


def _outcome(machine: GroupMachine, name: str, since: int) -> Outcome:
    body = UserCommand(name.encode(), Index(since), b"x").encode()
    batch = Draft.of(body, kind=Kind.COMMAND).stamp(machine.index + 1, 1, 0, 0)
    outcome = machine.apply(batch)
    assert outcome is not None
    return outcome


def test_what_may_have_been_forgotten_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_REQUESTS", 4)
    ledger = Ledger()
    machine = GroupMachine(ledger, "d")
    for number in range(9):
        assert _outcome(machine, f"r{number}", since=number).verdict is Verdict.DONE
    late = _outcome(machine, "r0", since=0)
    assert (late.verdict, late.index, len(ledger.lines)) == (Verdict.FORGOTTEN, 10, 9)
    assert _outcome(machine, "new", since=10).verdict is Verdict.DONE
    assert _outcome(machine, "r8", since=0).payload == b"9"


def test_results_are_remembered_up_to_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_BYTES", 100)
    remembered = Remembered()
    for number in range(20):
        outcome = Outcome(Verdict.DONE, Index(number), bytes(18))
        remembered.add(f"{number:02}".encode(), outcome)
    assert [request_id for request_id, _ in remembered] == [b"15", b"16", b"17", b"18", b"19"]
    assert remembered.forgotten_index == 14


class Careless(Ledger):
    def __init__(self, result: object) -> None:
        super().__init__()
        self._result = result

    def apply(self, command: Command) -> bytes:
        return self._result  # type: ignore[return-value]


@pytest.mark.parametrize("result", [None, "text", bytes(1024 * 1024 + 1)])
def test_a_result_that_is_none_stops_the_replica(result: object) -> None:
    with pytest.raises(InvariantViolation, match="returned neither Refused nor bytes"):
        _outcome(GroupMachine(Careless(result), "d"), "r", since=0)


@pytest.mark.parametrize("name", ["a", "node-1", "A_b"])
def test_the_name_of_a_node_is_in_its_id(name: str) -> None:
    check_peers(name, {name: "h:1"})
    assert name_of(NodeId(id_prefix(name) + "0123")) == name


@pytest.mark.parametrize(
    ("node", "peers"),
    [
        ("a", {}),
        ("a", {"b": "h:1"}),
        ("a.b", {"a.b": "h:1"}),
        ("a", {"a": "nowhere"}),
        ("a", {"a": "h:1", "b": "h:1"}),
    ],
)
def test_impossible_peers_are_refused(node: str, peers: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        check_peers(node, peers)


@pytest.mark.parametrize(
    "settings",
    [{"snapshot_bytes": 1}, {"heartbeat_s": 1.0}, {"election_timeout_s": 0}, {"max_lag_s": -1}],
)
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        ReplicatedConfig(**settings)  # type: ignore[arg-type]
