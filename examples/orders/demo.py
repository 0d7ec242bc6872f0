"""The story: orders go their way, one is refused, the leader is killed, all agree."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from examples.orders.processes import Answer, DemoFailed, Processes, ask, local_plan, running

_AGREE_S: Final = 10.0
_POLL_S: Final = 0.05


def run_demo(directory: Path, say: Callable[[str], None]) -> None:
    """Start three nodes in ``directory``, which is new, and stop them again.

    Raises:
        DemoFailed: an answer was not the right one.
    """
    with running(directory, local_plan()) as nodes:
        addresses = {name: each.http for name, each in nodes.plan.items()}
        say(f"three nodes: {', '.join(f'{n} http://{a}' for n, a in addresses.items())}")
        leader = str(ask(addresses["a"], "GET", "/status").body["leader"])
        followers = [name for name in addresses if name != leader]
        say(f"the leader is {leader}")

        for event, state in (("create", "new"), ("pay", "paid"), ("pack", "packed")):
            answer = _post(nodes, followers[0], f"/orders/7/{event}")
            _expect(answer, 200, state)
            say(f"order 7, {event} at follower {followers[0]}: {state}")
        refused = _post(nodes, followers[0], "/orders/7/cancel")
        _expect(refused, 409)
        say(f"order 7, cancel: 409, {refused.body['error']}")
        _expect(ask(addresses[followers[1]], "GET", "/orders/7"), 200, "packed")
        say(f"order 7, read at follower {followers[1]}: packed")

        began_s = time.monotonic()
        nodes.kill(leader)
        _expect(_post(nodes, followers[0], "/orders/7/ship", key="ship 7"), 200, "shipped")
        pause_ms = (time.monotonic() - began_s) * 1000
        say(f"{leader} killed with SIGKILL; order 7, ship: shipped, {pause_ms:.0f} ms later")
        _expect(_post(nodes, followers[1], "/orders/7/ship", key="ship 7"), 200, "shipped")
        say("the same request again, at another node: shipped, as it was; not shipped twice")

        nodes.start(leader)
        nodes.wait_ready()
        say(f"{leader} is back: all three have checksum {_agreed(nodes)}")


def _post(nodes: Processes, name: str, path: str, key: str | None = None) -> Answer:
    return ask(nodes.plan[name].http, "POST", path, key)


def _expect(answer: Answer, status: int, state: str | None = None) -> None:
    if answer.status != status or (state is not None and answer.body.get("state") != state):
        raise DemoFailed(f"expected {status} {state or ''}, got {answer.status} {answer.body}")


def _agreed(nodes: Processes) -> str:
    """The checksum of the state on all nodes, once they have applied the same."""
    deadline = time.monotonic() + _AGREE_S
    while True:
        found = {ask(each.http, "GET", "/status").body["checksum"] for each in nodes.plan.values()}
        if len(found) == 1:
            return str(found.pop())
        if time.monotonic() > deadline:
            raise DemoFailed(f"the nodes do not agree: {sorted(found)}")
        time.sleep(_POLL_S)
