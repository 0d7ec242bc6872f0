"""Which members of gossip count as nodes of this cluster, and where these are."""

import pytest

from quorumlog.broker.gossip_view import GossipView
from quorumlog.ports import Member, MemberState
from quorumlog.types import NodeId

ALIVE, SUSPECT, FAILED, LEFT = MemberState
NODE = NodeId("n")


class Gossip:
    def __init__(self, *members: Member) -> None:
        self._members = list(members)

    def members(self) -> list[Member]:
        return self._members

    def set_tags(self, tags: dict[str, str]) -> None: ...

    def on_change(self, handler: object) -> None: ...


def member(name: str, state: MemberState, node: str = NODE, cluster: str = "c") -> Member:
    tags = {"id": node, "cluster": cluster, "rpc": f"{name}:7400"}
    return Member(name, name, 7946, state, tags)


def view_of(*members: Member) -> GossipView:
    return GossipView(Gossip(*members), lambda: "c")


@pytest.mark.parametrize("state", MemberState)
def test_a_node_is_where_its_only_member_runs(state: MemberState) -> None:
    view = view_of(member("a", state))
    assert view.states() == {NODE: state}
    assert view.address_of(NODE) == ("a:7400" if state in (ALIVE, SUSPECT) else None)
    assert view.is_alive(NODE) == (state is ALIVE)


def test_where_two_run_that_claim_to_be_it_nobody_knows_where_it_is() -> None:
    view = view_of(member("a", ALIVE), member("b", SUSPECT))
    assert view.states() == {NODE: ALIVE}
    assert view.address_of(NODE) is None
    assert [each.name for each in view.claims()[NODE]] == ["a", "b"]


def test_names_that_it_had_before_do_not_count_once_it_runs_under_another() -> None:
    view = view_of(member("a", LEFT), member("b", FAILED), member("c", ALIVE))
    assert view.address_of(NODE) == "c:7400"
    assert view.states() == {NODE: ALIVE}
    gone = view_of(member("a", LEFT), member("b", FAILED))
    assert [each.name for each in gone.claims()[NODE]] == ["b"]
    assert gone.states() == {NODE: FAILED}


def test_members_of_other_clusters_and_agents_are_no_nodes() -> None:
    agent = Member("agent", "agent", 7946, ALIVE, {"kind": "foreign"})
    view = view_of(member("a", ALIVE, cluster="another"), member("b", ALIVE, node=""), agent)
    assert view.claims() == {}
    assert view.address_of(NODE) is None
    assert not view.is_alive(NODE)
