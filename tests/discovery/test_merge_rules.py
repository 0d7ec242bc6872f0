"""Claims about members merge to the same in any order, any number of times, and never go back."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from quorumlog.discovery.core.members import MemberTable, Merge
from quorumlog.discovery.wire.messages import Alive, Status
from quorumlog.discovery.wire.tags import encode_tags

NAMES = ("a", "b")


@dataclass(frozen=True)
class Claim:
    """What is claimed of a member; one incarnation always says the same, wherever it is heard."""

    name: str
    incarnation: int
    status: Status

    def apply(self, table: MemberTable) -> Merge:
        if self.status is Status.ALIVE:
            return table.apply_alive(word(self.name, self.incarnation), 0.0)
        return table.apply_status(self.name, self.status, self.incarnation, 0.0)


def word(name: str, incarnation: int) -> Alive:
    """A node that moved at its incarnation 3 and changes a tag each time."""
    host = "10.0.0.1" if incarnation < 3 else "10.0.0.2"
    meta = encode_tags({"id": name, "version": str(incarnation)})
    return Alive(name, incarnation, (host, 7946), meta)


CLAIMS = st.lists(
    st.builds(Claim, st.sampled_from(NAMES), st.integers(1, 5), st.sampled_from(Status)),
    max_size=12,
)


def table_of(claims: list[Claim]) -> MemberTable:
    """A table that knows the members from their first word, and has merged ``claims``."""
    table = MemberTable(10)
    for name in NAMES:
        table.apply_alive(word(name, 0), 0.0)
    for claim in claims:
        claim.apply(table)
    return table


@given(CLAIMS, st.randoms(use_true_random=False))
def test_claims_merge_to_the_same_in_any_order(claims: list[Claim], order: object) -> None:
    shuffled = list(claims)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert table_of(claims).records() == table_of(shuffled).records()


@given(CLAIMS, CLAIMS)
def test_claims_heard_again_change_nothing(claims: list[Claim], more: list[Claim]) -> None:
    table = table_of(claims + more)
    before = table.records()
    for claim in claims:
        assert claim.apply(table) is Merge.IGNORED
    assert table.records() == before


@given(CLAIMS)
def test_a_member_never_goes_back(claims: list[Claim]) -> None:
    table = table_of([])
    for claim in claims:
        before = state(table)
        outcome = claim.apply(table)
        after = state(table)
        assert all(after[name] >= before[name] for name in NAMES)
        assert (after != before) == (outcome is Merge.NEWS)


@given(CLAIMS)
def test_the_result_is_the_greatest_claim(claims: list[Claim]) -> None:
    table = table_of(claims)
    for name in NAMES:
        of_member = [claim for claim in claims if claim.name == name]
        greatest = max(((c.incarnation, c.status) for c in of_member), default=(0, Status.ALIVE))
        said = max((c.incarnation for c in of_member if c.status is Status.ALIVE), default=0)
        peer = table.get(name)
        assert peer is not None
        assert (peer.incarnation, peer.status) == greatest
        assert peer.said == word(name, said)


@given(CLAIMS)
def test_the_count_of_running_members_is_right(claims: list[Claim]) -> None:
    table = table_of(claims)
    assert table.running_count == sum(peer.running for peer in table.peers)


def state(table: MemberTable) -> dict[str, tuple[int, Status, int]]:
    found = {}
    for name in NAMES:
        peer = table.get(name)
        assert peer is not None
        found[name] = (peer.incarnation, peer.status, peer.said.incarnation)
    return found


def alive(incarnation: int, host: str, node_id: str | None) -> Alive:
    meta = encode_tags({} if node_id is None else {"id": node_id})
    return Alive("a", incarnation, (host, 7946), meta)


def known(node_id: str | None, status: Status = Status.ALIVE) -> MemberTable:
    table = MemberTable(10)
    table.apply_alive(alive(5, "10.0.0.1", node_id), 0.0)
    if status is not Status.ALIVE:
        table.apply_status("a", status, 5, 0.0)
    return table


def test_another_node_at_another_address_is_a_conflict_while_the_first_runs() -> None:
    for first, second in (("one", "two"), (None, None), ("one", None)):
        for status in (Status.ALIVE, Status.SUSPECT):
            table = known(first, status)
            before = table.records()
            assert table.apply_alive(alive(9, "10.0.0.2", second), 1.0) is Merge.CONFLICT
            assert table.records() == before


def test_the_name_of_a_failed_or_left_member_is_free_at_a_higher_incarnation() -> None:
    for status in (Status.DEAD, Status.LEFT):
        table = known("one", status)
        assert table.apply_alive(alive(5, "10.0.0.2", "two"), 1.0) is Merge.IGNORED
        assert table.apply_alive(alive(6, "10.0.0.2", "two"), 1.0) is Merge.NEWS
        peer = table.get("a")
        assert peer is not None
        assert peer.address == ("10.0.0.2", 7946)
        assert peer.status is Status.ALIVE


def test_the_same_node_moves_at_once_with_a_higher_incarnation() -> None:
    table = known("one")
    assert table.apply_alive(alive(5, "10.0.0.2", "one"), 1.0) is Merge.IGNORED
    assert table.apply_alive(alive(6, "10.0.0.2", "one"), 1.0) is Merge.NEWS
    peer = table.get("a")
    assert peer is not None
    assert peer.address == ("10.0.0.2", 7946)


def test_a_full_table_takes_no_new_member_and_still_hears_of_the_known() -> None:
    table = MemberTable(1)
    assert table.apply_alive(word("a", 1), 0.0) is Merge.NEWS
    assert table.apply_alive(word("b", 1), 0.0) is Merge.FULL
    assert table.apply_alive(word("a", 2), 0.0) is Merge.NEWS
    assert [member.name for member in table.members()] == ["a"]


def test_only_members_gone_long_enough_are_forgotten() -> None:
    table = table_of([])
    table.apply_status("a", Status.DEAD, 1, 10.0)
    table.forget(9.0)
    assert table.get("a") is not None
    table.forget(10.0)
    assert table.get("a") is None
    assert [member.name for member in table.members()] == ["b"]
