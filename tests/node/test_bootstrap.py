"""Bootstrap over a simulated network: one cluster, exactly once, whatever happens on the way."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs

from quorumlog.api._pb import peer_pb2
from quorumlog.errors import Unavailable
from quorumlog.node.bootstrap import Bootstrap
from quorumlog.node.identity import Identity, Proposal, Seat
from quorumlog.ports import Member, MemberState
from quorumlog.types import NodeId
from sim.loop import SimLoop

T = TypeVar("T")


def run_simulated(scenario: Coroutine[Any, Any, T]) -> T:
    loop = SimLoop(end_s=600)
    try:
        return loop.run_until_complete(scenario)
    finally:
        loop.dispose()


@dataclass
class Seeds:
    """What a node knows of the addresses it was given."""

    tried: bool = True
    only_this_node: bool = True


class World:
    """Nodes that may crash, be cut off and come back; slow saves; messages that get lost."""

    def __init__(self, seed: int, expects: list[int], loss: float) -> None:
        self.rng = random.Random(seed)
        self.loss = loss
        self.disks = [Identity(NodeId(f"{index:032x}")) for index in range(len(expects))]
        self.expects = expects
        self.nodes: dict[int, Bootstrap] = {}
        self.tasks: dict[int, asyncio.Task[Identity]] = {}
        self.visibility = self.rng.choice([0.5, 0.9, 1.0])
        self.latency_s = self.rng.choice([0.05, 0.8])
        self.calm = False
        self.cut: set[int] = set()
        self.save_s = 0.01
        self.seeds = [Seeds() for _ in expects]
        self.suspects: set[int] = set()

    def start(self, index: int) -> None:
        self.nodes[index] = Bootstrap(
            identity=self.disks[index],
            seat=Seat(self.disks[index].node_id, f"n{index}", str(index)),
            expect=self.expects[index],
            save=lambda identity: self.save(index, identity),
            membership=View(self, index),
            calls=Caller(self, index),
            seeds=self.seeds[index],
            new_id=lambda: f"{self.rng.getrandbits(128):032x}",
        )
        self.tasks[index] = asyncio.create_task(self.nodes[index].run())

    def crash(self, index: int) -> None:
        self.nodes.pop(index, None)
        task = self.tasks.pop(index, None)
        if task is not None:
            task.cancel()

    async def save(self, index: int, identity: Identity) -> None:
        await asyncio.sleep(self.rng.uniform(0, self.save_s))
        before = self.disks[index].cluster_id
        assert before in ("", identity.cluster_id), "a node changed its cluster"
        self.disks[index] = identity

    def reaches(self, one: int, other: int) -> bool:
        return (one in self.cut) == (other in self.cut) and {one, other} <= self.nodes.keys()


class View:
    def __init__(self, world: World, index: int) -> None:
        self.world = world
        self.index = index

    def members(self) -> list[Member]:
        """As gossip under stress: some are not seen yet, who is cut off still looks alive."""
        world = self.world
        seen = [
            other
            for other in sorted(world.nodes)
            if other == self.index or world.calm or world.rng.random() < world.visibility
        ]
        return [
            Member(
                f"n{other}",
                "sim",
                0,
                MemberState.SUSPECT if other in world.suspects else MemberState.ALIVE,
                {
                    "id": world.disks[other].node_id,
                    "rpc": str(other),
                    "cluster": world.disks[other].cluster_id,
                    "expect": str(world.expects[other]),
                },
            )
            for other in seen
        ]

    def set_tags(self, tags: dict[str, str]) -> None: ...

    def on_change(self, handler: Callable[[Member], None]) -> None: ...


class Caller:
    def __init__(self, world: World, index: int) -> None:
        self.world = world
        self.index = index

    async def call(self, address: str, method: str, request: Any, timeout_s: float = 1) -> Any:
        world, target = self.world, int(address)
        await asyncio.sleep(world.rng.uniform(0, world.latency_s))
        node = world.nodes.get(target)
        if node is None or not world.reaches(self.index, target) or self.lost():
            raise Unavailable("lost request")
        reply = await self.serve(node, target, method, request)
        await asyncio.sleep(world.rng.uniform(0, world.latency_s))
        if not world.reaches(self.index, target) or self.lost():
            raise Unavailable("lost reply")
        return reply

    def lost(self) -> bool:
        return self.world.rng.random() < self.world.loss

    async def serve(self, node: Bootstrap, target: int, method: str, request: Any) -> Any:
        match method:
            case "BootstrapPrepare":
                return await node.prepare(request)
            case "BootstrapDecide":
                return await node.decide(request)
            case "BootstrapAbort":
                return await node.abort(request)
            case "BootstrapStatus":
                return node.status(request.cluster_id)
            case "Join":
                identity = self.world.disks[target]
                if not identity.cluster_id:
                    raise Unavailable("not in a cluster")
                seats = [
                    peer_pb2.BootstrapMember(node_id=s.node_id, name=s.name, address=s.address)
                    for s in identity.voters
                ]
                return peer_pb2.JoinReply(cluster_id=identity.cluster_id, members=seats)
        raise AssertionError(method)


async def unrest(world: World, rounds: int) -> None:
    """Crash, restart, cut and heal at random; then everybody is up and connected."""
    rng = world.rng
    for _ in range(rounds):
        await asyncio.sleep(rng.choice([0.05, 1.0]) * rng.random())
        index = rng.randrange(len(world.disks))
        match rng.randrange(4):
            case 0:
                world.crash(index)
            case 1:
                world.cut ^= {index}
            case _:
                world.crash(index)
                world.start(index)
    world.cut.clear()
    world.loss = 0
    world.calm = True
    for index in range(len(world.disks)):
        if index not in world.nodes:
            world.start(index)


async def form(seed: int, expects: list[int], loss: float, rounds: int) -> World:
    world = World(seed, expects, loss)
    await unrest(world, rounds)
    async with asyncio.timeout(60):
        await asyncio.gather(*world.tasks.values())
    return world


@pytest.mark.parametrize("seed", range(600))
def test_nodes_form_exactly_one_cluster_through_crashes_cuts_and_loss(seed: int) -> None:
    rng = random.Random(seed)
    expect = rng.choice([1, 2, 3, 3, 3, 5])
    late = rng.choice([0, 0, 1, 2]) if expect > 1 else 0
    nodes = expect + late
    if nodes >= 2 * expect:
        late, nodes = 0, expect
    world = run_simulated(
        form(seed, [expect] * nodes, rng.choice([0.0, 0.2]), rng.choice([0, 5, 20]))
    )
    assert len({identity.cluster_id for identity in world.disks}) == 1
    (voters,) = {identity.voters for identity in world.disks}
    assert len(voters) == expect
    assert all(identity.accepted is None for identity in world.disks)


def test_a_node_that_only_joins_waits_for_a_cluster_and_enters_it() -> None:
    world = run_simulated(form(1, [3, 3, 3, 0], 0.0, 0))
    assert len({identity.cluster_id for identity in world.disks}) == 1
    assert all(world.disks[3].node_id != seat.node_id for seat in world.disks[3].voters)


def test_a_node_joins_by_way_of_another_member_when_the_first_does_not_answer() -> None:
    async def scenario() -> None:
        world = await form(1, [3, 3, 3], 0.0, 0)
        world.disks.append(Identity(NodeId(f"{3:032x}")))
        world.expects.append(0)
        world.seeds.append(Seeds())
        world.cut.add(0)
        world.start(3)
        async with asyncio.timeout(30):
            identity = await world.tasks[3]
        assert identity.cluster_id == world.disks[0].cluster_id

    run_simulated(scenario())


def proposal_of(world: World, cluster_id: str, coordinator: int) -> peer_pb2.BootstrapProposal:
    """A cluster of the first three nodes."""
    return peer_pb2.BootstrapProposal(
        cluster_id=cluster_id,
        coordinator=world.disks[coordinator].node_id,
        members=[
            peer_pb2.BootstrapMember(node_id=world.disks[i].node_id, name=f"n{i}", address=str(i))
            for i in range(3)
        ],
    )


def promise(world: World, index: int) -> None:
    """Let node ``index`` be promised to a proposal that node 0 coordinates."""
    seats = tuple(Seat(world.disks[i].node_id, f"n{i}", str(i)) for i in range(3))
    proposal = Proposal("x", world.disks[0].node_id, seats)
    world.disks[index] = replace(world.disks[index], accepted=proposal)


def test_a_promise_that_its_caller_gave_up_waiting_for_is_kept() -> None:
    async def scenario() -> None:
        world = World(1, [3, 3, 3, 3], 0.0)
        world.save_s = 3.0
        world.start(1)
        answering = asyncio.create_task(world.nodes[1].prepare(proposal_of(world, "x", 0)))
        await asyncio.sleep(0)
        answering.cancel()
        refused = await world.nodes[1].prepare(proposal_of(world, "y", 2))
        assert refused.state == peer_pb2.BOOTSTRAP_STATE_REFUSED
        assert refused.cluster_id == "x"
        accepted = world.disks[1].accepted
        assert accepted is not None
        assert accepted.cluster_id == "x"
        world.crash(1)

    run_simulated(scenario())


def test_a_member_learns_of_the_decision_from_another_when_its_coordinator_is_gone() -> None:
    async def scenario() -> None:
        world = World(1, [3, 3, 3], 0.0)
        promise(world, 2)
        accepted = world.disks[2].accepted
        assert accepted is not None
        world.disks[1] = replace(world.disks[1], cluster_id="x", voters=accepted.seats)
        world.start(1)
        world.start(2)
        async with asyncio.timeout(30):
            identity = await world.tasks[2]
        assert (identity.cluster_id, identity.voters) == ("x", accepted.seats)

    run_simulated(scenario())


def test_only_its_coordinator_can_say_that_a_proposal_was_aborted() -> None:
    async def scenario() -> None:
        world = World(1, [3, 3, 3], 0.0)
        promise(world, 2)
        world.start(1)
        world.start(2)
        await asyncio.sleep(60)
        assert world.disks[2].accepted is not None
        world.start(0)
        async with asyncio.timeout(60):
            await asyncio.gather(*world.tasks.values())
        assert world.disks[2].cluster_id not in ("", "x")

    run_simulated(scenario())


def test_a_node_that_is_seen_under_two_names_does_not_count_as_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    members = View.members

    def doubled(self: View) -> list[Member]:
        seen = members(self)
        return [*seen, *(replace(member, name="n9") for member in seen if member.name == "n1")]

    async def scenario() -> None:
        world = World(1, [3, 3, 3], 0.0)
        world.calm = True
        world.start(0)
        world.start(1)
        with monkeypatch.context() as patch:
            patch.setattr(View, "members", doubled)
            await asyncio.sleep(10)
        assert [identity.accepted for identity in world.disks] == [None] * 3
        assert {identity.cluster_id for identity in world.disks} == {""}
        world.start(2)
        async with asyncio.timeout(30):
            await asyncio.gather(*world.tasks.values())

    run_simulated(scenario())


def test_an_aborted_proposal_sets_its_members_free() -> None:
    async def scenario() -> None:
        world = World(1, [3, 3, 3, 3], 0.0)
        world.start(0)
        world.start(1)
        proposal = proposal_of(world, "x", 0)
        reply = await world.nodes[1].prepare(proposal)
        assert reply.state == peer_pb2.BOOTSTRAP_STATE_ACCEPTED
        other = peer_pb2.BootstrapProposal()
        other.CopyFrom(proposal)
        other.cluster_id = "y"
        refused = await world.nodes[1].prepare(other)
        assert refused.state == peer_pb2.BOOTSTRAP_STATE_REFUSED
        assert refused.cluster_id == "x"
        # Node 0 never proposed "x": asked for it, it says so, and node 1 lets go.
        await asyncio.sleep(2)
        assert world.disks[1].accepted is None
        for index in (0, 1):
            world.crash(index)

    run_simulated(scenario())


async def nothing_is_promised(world: World) -> None:
    """For a while, in which a cluster would form many times over."""
    await asyncio.sleep(20)
    assert [(identity.cluster_id, identity.accepted) for identity in world.disks] == [
        ("", None) for _ in world.disks
    ]


@pytest.mark.parametrize("waiting", [0, 2])
def test_nobody_proposes_or_promises_anything_before_its_seeds_were_tried(waiting: int) -> None:
    """Node 0 has the smallest id, so it coordinates."""

    async def scenario() -> None:
        world = World(1, [3, 3, 3], 0.0)
        world.calm = True
        world.seeds[waiting] = Seeds(tried=False, only_this_node=False)
        for index in range(3):
            world.start(index)
        await asyncio.sleep(20)
        assert world.disks[waiting].accepted is None
        assert not any(identity.cluster_id for identity in world.disks)
        world.seeds[waiting].tried = True
        async with asyncio.timeout(30):
            await asyncio.gather(*world.tasks.values())
        assert len({identity.cluster_id for identity in world.disks}) == 1

    run_simulated(scenario())


def test_a_node_that_expects_one_and_was_given_others_joins_theirs_and_forms_none() -> None:
    async def scenario() -> None:
        world = World(1, [1, 1], 0.0)
        world.calm = True
        world.seeds[0].only_this_node = False
        with capture_logs() as logs:
            world.start(0)
            await nothing_is_promised(world)
        hints = [entry["hint"] for entry in logs if entry["event"] == "waiting_for_nodes"]
        assert hints
        assert all("without --join" in hint for hint in hints)
        # The one that was given nobody does not wait for the other, whose id is smaller.
        world.start(1)
        async with asyncio.timeout(30):
            await asyncio.gather(*world.tasks.values())
        (voters,) = {identity.voters for identity in world.disks}
        assert [seat.name for seat in voters] == ["n1"]

    run_simulated(scenario())


def test_who_waits_for_its_seeds_says_so() -> None:
    async def scenario() -> None:
        world = World(1, [3], 0.0)
        world.seeds[0].tried = False
        with capture_logs() as logs:
            world.start(0)
            await nothing_is_promised(world)
        (hint,) = {entry["hint"] for entry in logs if entry["event"] == "waiting_for_nodes"}
        assert hint == "not every --join has been tried yet"

    run_simulated(scenario())


async def one_cluster_and_newcomers() -> World:
    """Nodes 0 to 2 are newcomers that expect three, nodes 3 to 5 in a cluster."""
    world = World(1, [3] * 6, 0.0)
    world.calm = True
    for index in (3, 4, 5):
        world.start(index)
    async with asyncio.timeout(30):
        await asyncio.gather(*world.tasks.values())
    return world


def test_who_sees_a_cluster_promises_itself_to_no_other() -> None:
    async def scenario() -> None:
        world = await one_cluster_and_newcomers()
        world.start(1)
        refused = await world.nodes[1].prepare(proposal_of(world, "x", 0))
        assert refused.state == peer_pb2.BOOTSTRAP_STATE_REFUSED
        async with asyncio.timeout(30):
            identity = await world.tasks[1]
        assert identity.cluster_id == world.disks[3].cluster_id

    run_simulated(scenario())


def test_a_coordinator_that_sees_a_cluster_gives_up_what_all_have_accepted() -> None:
    async def scenario() -> None:
        world = await one_cluster_and_newcomers()
        accepted = Proposal(
            "x",
            world.disks[0].node_id,
            tuple(Seat(world.disks[i].node_id, f"n{i}", str(i)) for i in range(3)),
        )
        for index in range(3):
            world.disks[index] = replace(world.disks[index], accepted=accepted)
            world.start(index)
        async with asyncio.timeout(30):
            await asyncio.gather(*world.tasks.values())
        assert len({identity.cluster_id for identity in world.disks}) == 1

    run_simulated(scenario())


def test_a_cluster_whose_nodes_are_suspected_is_one() -> None:
    async def scenario() -> None:
        world = await one_cluster_and_newcomers()
        world.suspects = {3, 4, 5}
        for index in (0, 1, 2):
            world.start(index)
        async with asyncio.timeout(30):
            await asyncio.gather(*world.tasks.values())
        assert len({identity.cluster_id for identity in world.disks}) == 1

    run_simulated(scenario())


def test_who_sees_two_clusters_waits_and_says_so_now_and_then() -> None:
    async def scenario() -> None:
        world = World(1, [3, 0, 0], 0.0)
        world.calm = True
        for index, cluster_id in ((1, "x"), (2, "y")):
            world.disks[index] = replace(world.disks[index], cluster_id=cluster_id)
            world.start(index)
        with capture_logs() as logs:
            world.start(0)
            await asyncio.sleep(21)
        assert world.disks[0].cluster_id == ""
        said = [entry for entry in logs if entry["event"] == "two_clusters_seen"]
        assert [entry["clusters"] for entry in said] == [["x", "y"]] * 4
        assert not [entry for entry in logs if entry["event"] == "waiting_for_nodes"]

    run_simulated(scenario())


@pytest.mark.parametrize(("expect", "says"), [(1, False), (3, False), (2, True), (4, True)])
def test_an_even_number_is_called_no_better_than_one_less(expect: int, says: bool) -> None:
    with capture_logs() as logs:
        run_simulated(form(1, [expect] * expect, 0.0, 0))
    hints = [entry["hint"] for entry in logs if entry["event"] == "even_number_expected"]
    said = f"{expect} voters survive no more failures than {expect - 1}"
    assert hints == ([said] * expect if says else [])
