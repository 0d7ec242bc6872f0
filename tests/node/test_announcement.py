"""Before a node takes part it asks whether it may be who it is: only a persistent no counts."""

from collections.abc import Callable
from typing import Any

import pytest

from quorumlog.api._pb import peer_pb2
from quorumlog.errors import DuplicateNode, NodeRemoved, Unavailable, WrongCluster
from quorumlog.node.announcement import announce
from quorumlog.node.identity import Seat
from quorumlog.types import NodeId
from sim.loop import SimLoop
from sim.membership import StaticMembership

HELLO = peer_pb2.Hello(cluster_id="c", node_id="a", process_id="p", address="a:1")
VOTERS = [Seat(NodeId(name), name, f"{name}:1") for name in ("a", "b", "c")]


class Answers:
    """What stands at each address answers, by time in seconds; nothing: nobody is there."""

    def __init__(self, loop: SimLoop, answers: dict[str, Callable[[float], str | None]]) -> None:
        self._loop = loop
        self._answers = answers

    async def call(self, address: str, method: str, request: Any, timeout_s: float = 1) -> Any:
        answers = self._answers.get(address)
        answer = None if answers is None else answers(self._loop.time())
        if answer is None:
            raise Unavailable("nobody is there")
        return peer_pb2.HelloReply(error=answer, message=answer)


def announced(answers: dict[str, Callable[[float], str | None]]) -> float:
    """Announce the node to those; when it may begin, in seconds."""
    loop = SimLoop(end_s=60)
    try:
        loop.run_until_complete(
            announce(
                HELLO,
                VOTERS,
                membership=StaticMembership([]),
                calls=Answers(loop, answers),
                has_seeds=False,
            )
        )
        return loop.time()
    finally:
        loop.dispose()


def always(answer: str) -> Callable[[float], str]:
    return lambda now: answer


def test_nobody_there_and_a_welcome_are_both_no_objection() -> None:
    assert announced({}) == 0
    assert announced({"b:1": always(""), "c:1": always(WrongCluster.reason)}) == 0


@pytest.mark.parametrize("error", [WrongCluster, DuplicateNode])
def test_who_is_refused_for_long_does_not_begin(error: Any) -> None:
    with pytest.raises(error):
        announced({"b:1": always(error.reason)})


@pytest.mark.parametrize("error", [WrongCluster, DuplicateNode])
def test_a_refusal_that_passes_does_not_count(error: Any) -> None:
    began_s = announced({"b:1": lambda now: error.reason if now < 2.5 else ""})
    assert 2.5 <= began_s < 4


def test_a_removed_node_is_told_at_once() -> None:
    with pytest.raises(NodeRemoved):
        announced({"b:1": lambda now: NodeRemoved.reason if now == 0 else ""})


def test_a_stranger_at_an_old_address_keeps_no_two_of_a_cluster_apart_that_start_together() -> None:
    """The other one cannot say yet of which cluster it is: it announces itself just now."""
    stranger = always(WrongCluster.reason)
    began_s = announced(
        {"c:1": stranger, "b:1": lambda now: None if now < 1.5 else Unavailable.reason}
    )
    assert 1.5 <= began_s < 3
