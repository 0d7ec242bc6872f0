"""What clients did with one partition, and when, as the linearizability checker reads it."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

Value = bytes | None
"""A record's value; None is a value too."""


@dataclass(frozen=True, slots=True)
class Append:
    """``values`` were appended as one; ``offset`` is the first one's.

    Without an offset the outcome is unknown: it took effect at some time after it began, or never
    will. What surely had no effect is no operation. ``expected`` makes it conditional: it takes
    effect only where the log ends at that offset.
    """

    values: tuple[Value, ...]
    offset: int | None
    expected: int | None = None

    def __str__(self) -> str:
        condition = "" if self.expected is None else f" if the end is {self.expected}"
        result = "no answer" if self.offset is None else str(self.offset)
        return f"append({', '.join(map(repr, self.values))}){condition} -> {result}"


@dataclass(frozen=True, slots=True)
class Refused:
    """A conditional append that failed because the log ended at ``end``, not at ``expected``."""

    expected: int
    end: int

    def __str__(self) -> str:
        return f"append if the end is {self.expected} -> refused, it is {self.end}"


@dataclass(frozen=True, slots=True)
class Read:
    """The record at ``offset`` has ``value``."""

    offset: int
    value: Value

    def __str__(self) -> str:
        return f"read({self.offset}) -> {self.value!r}"


@dataclass(frozen=True, slots=True)
class ReadNothing:
    """No record stands at ``offset``: the log ends there, or before.

    Not ``confirmed`` by a majority it may be an old view, which allows any answer.
    """

    offset: int
    confirmed: bool = True

    def __str__(self) -> str:
        return f"read({self.offset}) -> {'end' if self.confirmed else 'perhaps the end'}"


@dataclass(frozen=True, slots=True)
class EndOfLog:
    """The log ends at ``offset``; not ``confirmed``: it ends there or behind, the view is old."""

    offset: int
    confirmed: bool = True

    def __str__(self) -> str:
        return f"end_of_log() -> {self.offset}{'' if self.confirmed else ' or more'}"


Call = Append | Refused | Read | ReadNothing | EndOfLog


@dataclass(frozen=True, slots=True)
class Operation:
    """``client`` did ``call`` between two moments; ``returned`` None: nobody saw it return.

    Moments are numbers in the order of what happened. An operation takes effect at one moment
    between its own two; where two operations share one they overlap.
    """

    client: str
    call: Call
    invoked: float
    returned: float | None

    def __str__(self) -> str:
        returned = "" if self.returned is None else f"{self.returned:g}"
        return f"{self.client:>12}  [{self.invoked:g}, {returned}]  {self.call}"


class Recorder:
    """Collects the operations of one partition's clients, which all live in one event loop.

    ``began = recorder.begin()``, then the call, then ``recorder.end(client, began, Call(...))``.
    """

    def __init__(self) -> None:
        self._moments = itertools.count()
        self._operations: list[Operation] = []

    def begin(self) -> int:
        """The moment before a call is made."""
        return next(self._moments)

    def end(self, client: str, invoked: int, *calls: Call) -> None:
        """The call that began at ``invoked`` is over, and what it did or saw is each of ``calls``.

        An append without an offset stays open: it may take effect later.
        """
        returned = next(self._moments)
        for call in calls:
            is_open = isinstance(call, Append) and call.offset is None
            self._operations.append(Operation(client, call, invoked, None if is_open else returned))

    @property
    def operations(self) -> list[Operation]:
        """In the order in which they ended."""
        return list(self._operations)


def shown(operations: Iterable[Operation]) -> str:
    """One line each, in the order in which they began."""
    return "\n".join(map(str, sorted(operations, key=lambda each: each.invoked)))
