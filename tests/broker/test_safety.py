"""What a change of members is refused for: by the voters that answer, not by the nodes."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.broker.led_groups import LedGroup, LedGroups
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.moves import Assignment
from quorumlog.broker.safety import MAX_NAMED, check_metadata_voters, check_moves, voters_without
from quorumlog.errors import UnsafeChange
from quorumlog.types import METADATA_GROUP, GroupId, NodeId

FIVE = "abcde"
NOT_ASKED: LedGroups = {}


def nodes(names: str) -> tuple[NodeId, ...]:
    return tuple(NodeId(name) for name in names)


def led(voters: str, outgoing: str = "", silent: str = "") -> LedGroup:
    return LedGroup(3, nodes(voters), nodes(outgoing), frozenset(nodes(silent)))


class World:
    """Five nodes; topic ``t`` with its partitions on the first three of them."""

    def __init__(self, partitions: int = 1, replicas: int = 3) -> None:
        self.metadata = MetadataState()
        for name in FIVE:
            node = pb.Node(id=name, name=f"node-{name}", address=f"{name}:7400", version="1")
            self.do(pb.Command(register_node=pb.RegisterNode(node=node)))
        self.do(
            pb.Command(
                create_topic=pb.CreateTopic(
                    name="t",
                    partitions=partitions,
                    replicas=replicas,
                    candidates=FIVE[:replicas],
                )
            )
        )

    def do(self, command: pb.Command) -> None:
        result = self.metadata.apply(command.SerializeToString(), self.metadata.applied_index + 1)
        assert not result.error, result.message

    def order(self, wanted: str, group: int = 1) -> None:
        self.do(pb.Command(assign_replicas=pb.AssignReplicas(group=group, wanted=wanted)))

    def moves_to(self, wanted: str) -> list[Assignment]:
        topic = self.metadata.topic("t")
        return [(topic, partition, nodes(wanted)) for partition in topic.partitions]

    def check(self, wanted: str, alive: str, seen: LedGroup | None) -> None:
        check_moves(self.metadata, self.moves_to(wanted), nodes(alive), {GroupId(1): seen})


def refusal(world: World, wanted: str, alive: str, seen: LedGroup | None) -> str:
    with pytest.raises(UnsafeChange) as caught:
        world.check(wanted, alive, seen)
    return str(caught.value)


def test_a_node_that_is_up_does_not_count_where_its_replica_does_not_answer() -> None:
    world = World()
    world.check("abd", FIVE, led("abc", silent="b"))
    error = refusal(world, "abd", "abde", led("abc", silent="bc"))
    assert "t/0 has no majority of voters that answers" in error
    assert "node-c down; node-b up, but not the replica there" in error
    assert "start one of them again first" in error
    # By nodes it would be done, and never come to an end.
    check_moves(world.metadata, world.moves_to("abd"), nodes("abde"), NOT_ASKED)


def test_voters_of_five_nodes_two_of_which_are_down_are_three() -> None:
    world = World()
    assert "node-a, node-b down" in refusal(world, "cde", "cde", led("abc", silent="ab"))
    world.check("abe", "abc", led("abc"))


def test_nothing_shrinks_to_replicas_that_do_not_answer() -> None:
    world = World()
    error = refusal(world, "ab", FIVE, led("abc", silent="b"))
    assert "t/0 would have no majority of voters that answers (node-b up" in error
    assert "see the log of those nodes" in error
    assert "choose other nodes" in error
    world.check("ac", FIVE, led("abc", silent="b"))


def test_a_learner_on_the_way_counts_only_where_it_answers() -> None:
    world = World()
    world.order("cde")
    assert "would have no majority" in refusal(world, "cde", FIVE, led("abc", silent="de"))
    world.check("cde", FIVE, led("abc", silent="d"))


def test_in_the_midst_of_a_move_those_count_who_vote_by_now() -> None:
    """The members have changed; the report is still to come."""
    world = World()
    world.order("cde")
    with pytest.raises(UnsafeChange):
        check_moves(world.metadata, world.moves_to("cda"), nodes("cde"), NOT_ASKED)
    world.check("cde", "cde", led("cde"))
    assert "node-d, node-e down" in refusal(world, "abc", "abc", led("cde", silent="de"))
    # In the middle of the change it takes both majorities.
    world.check("cde", FIVE, led("cde", outgoing="abc"))
    assert "node-a, node-b down" in refusal(
        world, "cde", "cde", led("cde", outgoing="abc", silent="ab")
    )


def test_nodes_that_are_up_are_no_majority_without_a_leader() -> None:
    error = refusal(World(), "abd", FIVE, None)
    assert "(nobody leads on node-a, node-b, node-c)" in error
    assert "see the log of those nodes" in error
    error = refusal(World(), "abd", "bcde", None)
    assert "(node-a down; nobody leads on node-b, node-c)" in error


def test_the_only_replica_is_not_given_up() -> None:
    world = World(replicas=1)
    world.check("b", FIVE, led("a"))
    error = refusal(world, "b", "bcde", None)
    assert error.startswith("t/0: the only replica does not answer (node-a down), and its records")
    assert "delete the topic" in error
    assert "nobody leads on node-a" in refusal(world, "b", FIVE, None)


def test_what_is_not_known_of_a_group_is_judged_by_its_nodes() -> None:
    world = World()
    check_moves(world.metadata, world.moves_to("abd"), nodes("abd"), NOT_ASKED)
    for wanted, alive in (("abd", "ade"), ("ade", "abc")):
        with pytest.raises(UnsafeChange):
            check_moves(world.metadata, world.moves_to(wanted), nodes(alive), NOT_ASKED)


@pytest.mark.parametrize(
    ("count", "named"),
    [
        (1, "t/0 has no"),
        (2, "t/0 and t/1 have no"),
        (MAX_NAMED, "t/0, t/1, t/2, t/3 and t/4 have no"),
        (9, "t/0, t/1, t/2, t/3, t/4 and 4 more have no"),
    ],
)
def test_a_refusal_names_some_partitions_and_counts_the_others(count: int, named: str) -> None:
    world = World(partitions=count)
    moves = world.moves_to("abd")
    seen = {partition.group: led("abc", silent="bc") for _, partition, _ in moves}
    with pytest.raises(UnsafeChange, match=f"^{named} majority"):
        check_moves(world.metadata, moves, nodes(FIVE), seen)
    # One that is not safe is enough, and is the one that is named.
    safe = {**seen, **{group: led("abc") for group in list(seen)[:-1]}}
    with pytest.raises(UnsafeChange, match=f"^t/{count - 1} has no majority"):
        check_moves(world.metadata, moves, nodes(FIVE), safe)


names = st.sets(st.sampled_from(FIVE)).map(lambda found: "".join(sorted(found)))
some = names.filter(bool)


@given(some, names, names, names, some)
def test_an_order_is_taken_where_all_majorities_answer_and_only_there(
    voters: str, outgoing: str, silent: str, alive: str, wanted: str
) -> None:
    world = World()

    def is_majority_of(those: Sequence[str]) -> bool:
        return 2 * len(set(those) & set(alive) - set(silent)) > len(those)

    is_safe = is_majority_of(voters) and is_majority_of(wanted)
    if outgoing:
        is_safe = is_safe and is_majority_of(outgoing)
    try:
        world.check(wanted, alive, led(voters, outgoing, silent))
    except UnsafeChange:
        assert not is_safe
    else:
        assert is_safe


def test_the_metadata_count_the_voters_that_answer() -> None:
    world = World()

    def check(wanted: str, alive: str, seen: LedGroups) -> None:
        check_metadata_voters(world.metadata, nodes("abc"), nodes(wanted), nodes(alive), seen)

    check("abd", FIVE, {METADATA_GROUP: led("abc", silent="c")})
    check("abd", FIVE, NOT_ASKED)
    for wanted, alive, seen, said in (
        ("abd", FIVE, led("abc", silent="bc"), "has no majority of voters that answers"),
        ("abd", "ade", None, "node-b, node-c down"),
        ("abd", FIVE, None, "nobody leads on node-a, node-b, node-c"),
        ("bd", FIVE, led("abc", silent="d"), "would have no majority .*node-d up, but not the"),
        ("", FIVE, led("abc"), "would have no majority .*none left"),
    ):
        with pytest.raises(UnsafeChange, match=f"the cluster's metadata.*{said}"):
            check(wanted, alive, {METADATA_GROUP: seen})


def test_a_vote_goes_to_a_spare_whose_replica_answers() -> None:
    world = World()
    voters, alive = nodes("abc"), list(nodes(FIVE))
    random.Random(1).shuffle(alive)
    seen = {METADATA_GROUP: led("abc", silent="d")}
    for _ in range(5):
        alive = alive[1:] + alive[:1]
        found = voters_without(world.metadata, voters, NodeId("c"), None, alive, seen)
        assert found == nodes("abe")
    silent = {METADATA_GROUP: led("abc", silent="de")}
    found = voters_without(world.metadata, voters, NodeId("c"), None, alive, silent)
    assert found == nodes("ab")
