"""A trace, and how TLA+ writes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class State:
    """A node's Raft state; the log is the terms of its entries."""

    term: int
    vote: str
    role: str
    log: tuple[int, ...]
    commit: int


FRESH: Final = State(0, "none", "follower", (), 0)


@dataclass(slots=True)
class Trace:
    """Who there is, who votes at first, and what happened (:func:`trace_line`)."""

    nodes: tuple[str, ...]
    voters: tuple[str, ...]
    events: list[str]


def trace_module(traces: Sequence[Trace]) -> str:
    """``TraceData``, for ``RaftTrace.tla``. The ``traces`` are of the same nodes and voters."""
    nodes, voters = frozenset(traces[0].nodes), frozenset(traces[0].voters)
    sequences = ",\n".join(f"<<{','.join(trace.events)}>>" for trace in traces)
    return (
        "---- MODULE TraceData ----\n"
        f"TraceNodes == {_value(nodes)}\nTraceVoters == {_value(voters)}\n"
        f"Traces == <<\n{sequences}\n>>\n====\n"
    )


def kinds_of(trace: Trace) -> list[str]:
    """Of its events, in order."""
    return [event.split('"', 2)[1] for event in trace.events]


def trace_line(kind: str, node: str, **fields: object) -> str:
    """An event as a record of TLA+."""
    return _record({"kind": kind, "node": node, **fields})


def _record(fields: dict[str, object]) -> str:
    """``[name |-> value, ...]``."""
    return "[" + ", ".join(f"{name} |-> {_value(value)}" for name, value in fields.items()) + "]"


def _value(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"<<{', '.join(map(_value, value))}>>"
    if isinstance(value, frozenset):
        return f"{{{', '.join(map(_value, sorted(value)))}}}"
    if isinstance(value, State):
        return _record({name: getattr(value, name) for name in State.__slots__})
    return str(value)
