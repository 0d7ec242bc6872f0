"""Is there an order of these operations, one after the other, that explains what they returned?

Linearizability (Herlihy and Wing 1990) of one append-only log. Partitions are logs of their own,
and what is linearizable for each is for all, so each is checked alone.

The search is Wing and Gong's (1993), as Lowe (2017) orders it: events in real time, and at each
return the ways to have placed what returns, remembered by (what of the pending is placed, state).
Two properties of a log make it fast:

- What stands at an offset never changes. So all that any operation says of an offset is collected
  first (contradictions are found there), every append has to agree with it, and the state of the
  search is one number: the length of the log.
- An operation that changes nothing and fits now can be placed now: that never forbids anything.

Appends with an unknown outcome could multiply without bound. They are kept in check so: beyond the
last offset anybody has seen none is tried, for it would change nothing that was seen; a value that
was seen as often as it was appended goes where it was seen; of those that look the same only
the oldest is tried; and a way that has used more of them than another, for the same, is dropped.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from history.operations import (
    Append,
    EndOfLog,
    Operation,
    Read,
    ReadNothing,
    Refused,
    Value,
    shown,
)

DEFAULT_STEPS: Final = 2_000_000
"""Of the search: a few seconds. Histories of thousands of operations take thousands."""

_SHRINK_STEPS: Final = 4_000_000
_SHOWN: Final = 30

_Configuration = tuple[int, int]
"""The pending operations that are placed, as bits, and the length of the log."""


class NotLinearizable(AssertionError):
    """No order explains the history.

    Attributes:
        operation: the first one, by the time of its return, that cannot be placed.
        counterexample: operations that contradict each other already by themselves, whatever else
            was appended; or, where it takes all appends to see it, the last ones before.
    """

    def __init__(
        self, operation: Operation, why: str, counterexample: Sequence[Operation], note: str
    ) -> None:
        self.operation = operation
        self.counterexample = list(counterexample)
        super().__init__(
            f"{operation.call} cannot be placed: {why}\n{note}\n{shown(counterexample)}"
        )


class Undecided(Exception):
    """The search took more steps than it was given."""


class _NoPlace(Exception):
    def __init__(self, operation: Operation, why: str) -> None:
        super().__init__(why)
        self.operation = operation
        self.why = why


def check_linearizable(
    operations: Iterable[Operation], start: int = 0, steps: int = DEFAULT_STEPS
) -> int:
    """Return how many steps the search took; the log held ``start`` records before all of it.

    Raises:
        NotLinearizable: there is no such order.
        Undecided: not known after so many ``steps``.
    """
    history = list(operations)
    search = _Search(history, start, steps)
    try:
        return search.run()
    except _NoPlace as failure:
        example, note = _shrunk(history, start, failure.operation)
        raise NotLinearizable(failure.operation, failure.why, example, note) from None


class _Search:
    def __init__(
        self, history: Sequence[Operation], start: int, steps: int, *, others: bool = False
    ) -> None:
        """``others``: somebody whom nobody watched may append anything at any time."""
        self._history = history
        self._start = start
        self._budget = steps
        self._steps = 0
        self._others = others
        self._facts: dict[int, Value] = {}
        self._seen_end = start
        self._seen: set[Value] = set()
        self._scarce: set[Value] = set()
        self._pending_writes: dict[int, Append] = {}
        self._pending_reads: dict[int, Operation] = {}
        self._unknown = 0
        """The unknown appends that have begun, as bits."""

    def run(self) -> int:
        for operation in self._in_order_of_return():
            self._learn(operation)
        self._seen = set(self._facts.values())
        if not self._others:
            self._scarce = self._find_scarce()
        configurations = {(0, self._start)}
        for number, is_return in self._events():
            operation = self._history[number]
            if not is_return:
                self._begin(number, operation)
                continue
            placed = self._place(configurations, number)
            if not placed:
                lengths = sorted({length for _, length in configurations})
                shown_lengths = ", ".join(map(str, lengths[:10]))
                raise _NoPlace(operation, f"before it the log may have had {shown_lengths} records")
            configurations = placed
            self._pending_writes.pop(number, None)
            self._pending_reads.pop(number, None)
        return self._steps

    def _in_order_of_return(self) -> list[Operation]:
        done = [each for each in self._history if each.returned is not None]
        return sorted(done, key=lambda each: each.returned or 0)

    def _learn(self, operation: Operation) -> None:
        """Take in what ``operation`` says of the log for ever: values, and how long it became."""
        call = operation.call
        if isinstance(call, Append) and call.offset is not None:
            for offset, value in enumerate(call.values, call.offset):
                self._learn_value(operation, offset, value)
        elif isinstance(call, Read):
            self._learn_value(operation, call.offset, call.value)
        elif isinstance(call, EndOfLog):
            self._seen_end = max(self._seen_end, call.offset)
        elif isinstance(call, Refused):
            self._seen_end = max(self._seen_end, call.end)

    def _learn_value(self, operation: Operation, offset: int, value: Value) -> None:
        known = self._facts.setdefault(offset, value)
        if known != value:
            raise _NoPlace(operation, f"{known!r} stands at offset {offset}")
        self._seen_end = max(self._seen_end, offset + 1)

    def _find_scarce(self) -> set[Value]:
        """The values that stand at as many offsets as there were appends of them, or at more."""
        appended: Counter[Value] = Counter()
        for operation in self._history:
            if isinstance(operation.call, Append):
                appended.update(operation.call.values)
        seen = Counter(value for offset, value in self._facts.items() if offset >= self._start)
        return {value for value, count in seen.items() if count >= appended[value]}

    def _events(self) -> Iterator[tuple[int, bool]]:
        """(operation, whether it returns) by time; at the same moment, beginnings first."""
        events: list[tuple[float, bool, int]] = []
        for number, operation in enumerate(self._history):
            events.append((operation.invoked, False, number))
            if operation.returned is not None:
                events.append((operation.returned, True, number))
        for _, is_return, number in sorted(events):
            yield number, is_return

    def _begin(self, number: int, operation: Operation) -> None:
        if isinstance(operation.call, Append):
            self._pending_writes[number] = operation.call
            if operation.returned is None:
                self._unknown |= 1 << number
        elif operation.returned is not None:
            self._pending_reads[number] = operation

    def _place(self, configurations: set[_Configuration], target: int) -> set[_Configuration]:
        """All the ways to have placed ``target``, each with as little else as it takes."""
        bit = 1 << target
        longest = _longest(self._history[target])
        stack = sorted(configurations)
        known = set(stack)
        placed: set[_Configuration] = set()
        while stack:
            self._steps += 1
            if self._steps > self._budget:
                raise Undecided(f"not decided after {self._budget:,} steps")
            done, length = stack.pop()
            done = self._place_reads(done, length)
            if done & bit:
                placed.add(((done & ~bit) | self._expired(length), length))
                continue
            if length > longest:
                continue
            for following in self._after_one_write(done, length):
                if following not in known:
                    known.add(following)
                    stack.append(following)
        return self._without_wasteful(placed)

    def _without_wasteful(self, placed: set[_Configuration]) -> set[_Configuration]:
        """``placed`` without what has used the same unknown appends as another, and more."""
        if len(placed) < 2:
            return placed
        kept: dict[tuple[int, int], list[int]] = {}
        for done, length in sorted(placed, key=lambda each: each[0].bit_count()):
            used = done & self._unknown
            fewer = kept.setdefault((done & ~self._unknown, length), [])
            if not any(others & used == others for others in fewer):
                fewer.append(used)
        return {(rest | used, length) for (rest, length), uses in kept.items() for used in uses}

    def _expired(self, length: int) -> int:
        """The unknown conditional appends whose condition can never hold again: as good as used."""
        bits = 0
        for number, append in self._pending_writes.items():
            if append.offset is None and append.expected is not None and append.expected < length:
                bits |= 1 << number
        return bits

    def _place_reads(self, done: int, length: int) -> int:
        for number, operation in self._pending_reads.items():
            if not done >> number & 1 and _holds(operation, length):
                done |= 1 << number
        return done

    def _after_one_write(self, done: int, length: int) -> Iterator[_Configuration]:
        tried = set()
        for number, append in self._pending_writes.items():
            if done >> number & 1 or not self._fits(append, length):
                continue
            if append.offset is None:
                looks = (self._seen_values(append), len(append.values), append.expected)
                if looks in tried:
                    continue
                tried.add(looks)
            yield done | 1 << number, length + len(append.values)
        if self._others and length < self._seen_end:
            yield done, length + 1

    def _fits(self, append: Append, length: int) -> bool:
        if append.expected is not None and append.expected != length:
            return False
        if append.offset is not None:
            # What it says of its values is among the facts.
            return append.offset == length
        return length < self._seen_end and all(
            self._may_stand_at(offset, value) for offset, value in enumerate(append.values, length)
        )

    def _may_stand_at(self, offset: int, value: Value) -> bool:
        if offset in self._facts:
            return self._facts[offset] == value
        return value not in self._scarce

    def _seen_values(self, append: Append) -> tuple[Value, ...] | None:
        """Its values if somebody saw one of them; the others look all the same."""
        return append.values if self._seen.intersection(append.values) else None


def _holds(operation: Operation, length: int) -> bool:
    """Whether an operation that changes nothing returns what it did in a log of ``length``."""
    call = operation.call
    if isinstance(call, Read):
        return call.offset < length
    if isinstance(call, ReadNothing):
        return not call.confirmed or call.offset >= length
    if isinstance(call, EndOfLog):
        return call.offset == length if call.confirmed else call.offset <= length
    if isinstance(call, Refused):
        return call.end == length != call.expected
    raise TypeError(f"{call} changes the log")


def _longest(operation: Operation) -> int:
    """In a log longer than this ``operation`` has no place any more."""
    call = operation.call
    if isinstance(call, Append) and call.offset is not None:
        return call.offset
    if isinstance(call, Refused):
        return call.end
    if isinstance(call, EndOfLog | ReadNothing | Read):
        return call.offset
    raise TypeError(f"{call} never returns")


# -- a small counterexample --------------------------------------------------------------------


def _shrunk(
    history: Sequence[Operation], start: int, failed: Operation
) -> tuple[list[Operation], str]:
    """Few operations of ``history`` that cannot all be true, and a word on what is shown."""
    budget = [_SHRINK_STEPS]
    if _is_refuted(history, start, budget):
        kept = list(history)
        size = max(1, len(kept) // 2)
        while True:
            kept = _without_chunks(kept, size, start, budget)
            if size == 1:
                return kept, "These contradict each other, whatever else was appended:"
            size //= 2
    moment = failed.returned or 0
    before = [each for each in history if each.invoked <= moment]
    before.sort(key=lambda each: each.invoked)
    shown_ones = before[-_SHOWN:]
    if failed not in shown_ones:
        shown_ones.insert(0, failed)
    return shown_ones, "It takes all appends to see it. The last operations before its return:"


def _without_chunks(
    kept: list[Operation], size: int, start: int, budget: list[int]
) -> list[Operation]:
    """``kept`` without those chunks of ``size`` that the contradiction does not need."""
    at = 0
    while at < len(kept):
        candidate = kept[:at] + kept[at + size :]
        if _is_refuted(candidate, start, budget):
            kept = candidate
        else:
            at += size
    return kept


def _is_refuted(history: Sequence[Operation], start: int, budget: list[int]) -> bool:
    """Whether ``history`` is impossible even if others appended anything at any time.

    So leaving an operation out never makes a history impossible that was possible. ``budget``
    holds the steps that are left, and is charged.
    """
    search = _Search(history, start, max(0, budget[0]), others=True)
    try:
        budget[0] -= search.run() + len(history)
    except _NoPlace:
        budget[0] -= len(history)
        return True
    except Undecided:
        budget[0] = 0
    return False
