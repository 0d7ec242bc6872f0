"""The state machine: what is what with every order, and where it may go from there."""

import json
from typing import Final

from quorumlog import Command, Refused

TRANSITIONS: Final = {
    (None, "create"): "new",
    ("new", "pay"): "paid",
    ("new", "cancel"): "cancelled",
    ("paid", "pack"): "packed",
    ("paid", "cancel"): "refunded",
    ("packed", "ship"): "shipped",
    ("shipped", "deliver"): "delivered",
    ("delivered", "return"): "refunded",
}
"""From a state, by an event, to the next state. What is not here is refused."""

EVENTS: Final = frozenset(event for _, event in TRANSITIONS)


class Orders:
    """A ``quorumlog.Machine``. A command is the JSON that :func:`encode_event` makes; its result is
    the order's new state."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}

    def apply(self, command: Command) -> bytes:
        event = json.loads(command.body)
        order, name = event["order"], event["event"]
        before = self.states.get(order)
        after = TRANSITIONS.get((before, name))
        if after is None:
            raise Refused(f"an order that is {before or 'unknown'} cannot {name}")
        self.states[order] = after
        return after.encode()

    def snapshot(self) -> bytes:
        # Sorted: the same state gives the same bytes on every node.
        return json.dumps(self.states, sort_keys=True).encode()

    def restore(self, snapshot: bytes) -> None:
        self.states = json.loads(snapshot)


def encode_event(order: str, event: str) -> bytes:
    return json.dumps({"order": order, "event": event}).encode()
