"""The checker of histories: by hand, against a twin that tries every order, and at size."""

import itertools
import random
import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.linearizability import NotLinearizable, Undecided, check_linearizable
from history.operations import (
    Append,
    Call,
    EndOfLog,
    Operation,
    Read,
    ReadNothing,
    Recorder,
    Refused,
    Value,
)


def timeline(*rows: tuple[float, float | None, Call]) -> list[Operation]:
    """(invoked, returned, call) of a client each."""
    return [
        Operation(f"c{number}", call, invoked, returned)
        for number, (invoked, returned, call) in enumerate(rows)
    ]


def append(value: bytes, offset: int | None, expected: int | None = None) -> Append:
    return Append((value,), offset, expected)


LINEARIZABLE = {
    "nothing happened": [],
    "one after the other": timeline(
        (0, 1, append(b"a", 0)),
        (2, 3, EndOfLog(1)),
        (4, 5, Read(0, b"a")),
        (6, 7, ReadNothing(1)),
    ),
    "overlapping appends in either order": timeline(
        (0, 9, append(b"a", 1)), (1, 8, append(b"b", 0)), (10, 11, EndOfLog(2))
    ),
    "an end seen while the append is under way": timeline(
        (0, 5, append(b"a", 0)), (1, 2, EndOfLog(0)), (3, 4, EndOfLog(1))
    ),
    "an unknown outcome that took effect long after": timeline(
        (0, None, append(b"lost?", None)),
        (1, 2, append(b"a", 0)),
        (3, 4, EndOfLog(1)),
        (5, 6, append(b"b", 2)),
        (7, 8, Read(1, b"lost?")),
    ),
    "an unknown outcome that never took effect": timeline(
        (0, None, append(b"lost?", None)), (1, 2, append(b"a", 0)), (3, 4, append(b"b", 1))
    ),
    "unknown outcomes that nobody read fill a gap": timeline(
        (0, None, append(b"x", None)),
        (0, None, append(b"y", None)),
        (1, 2, append(b"a", 2)),
        (3, 4, EndOfLog(3)),
    ),
    "a batch appended as one": timeline(
        (0, 3, Append((b"a", b"b"), 0)), (1, 2, EndOfLog(2)), (4, 5, Read(1, b"b"))
    ),
    "a conditional append and one that is refused": timeline(
        (0, 1, append(b"a", 0, expected=0)),
        (2, 3, Refused(expected=0, end=1)),
        (4, 5, append(b"b", 1, expected=1)),
    ),
    "a retry of a conditional append that had worked": timeline(
        (0, None, append(b"a", None, expected=0)), (1, 2, Refused(expected=0, end=1))
    ),
    "an old view where it is allowed": timeline(
        (0, 1, append(b"a", 0)),
        (2, 3, EndOfLog(0, confirmed=False)),
        (4, 5, ReadNothing(0, confirmed=False)),
    ),
}

VIOLATIONS = {
    "stale end": (
        timeline((0, 1, append(b"a", 0)), (2, 3, EndOfLog(0))),
        "end_of_log() -> 0",
    ),
    "an end that goes back": (
        timeline((0, 9, append(b"a", 0)), (1, 2, EndOfLog(1)), (3, 4, EndOfLog(0))),
        "end_of_log() -> 0",
    ),
    "nothing read where a record was acknowledged": (
        timeline((0, 1, append(b"a", 0)), (2, 3, ReadNothing(0))),
        "read(0) -> end",
    ),
    "lost append": (
        timeline((0, 1, append(b"a", 0)), (2, 3, append(b"b", 0)), (4, 5, Read(0, b"b"))),
        "append(b'b') -> 0",
    ),
    "acknowledged twice at one offset": (
        timeline((0, 1, append(b"a", 0)), (2, 3, append(b"a", 0))),
        "append(b'a') -> 0",
    ),
    "doubled record": (
        timeline((0, 1, append(b"a", 0)), (2, 3, Read(0, b"a")), (4, 5, Read(1, b"a"))),
        "read(1) -> b'a'",
    ),
    "reordered records": (
        timeline((0, 1, append(b"a", 1)), (2, 3, append(b"b", 0)), (4, 5, EndOfLog(2))),
        "append(b'a') -> 1",
    ),
    "a record nobody appended": (
        timeline((0, 1, append(b"a", 0)), (2, 3, Read(1, b"b"))),
        "read(1) -> b'b'",
    ),
    "read of what was not committed": (
        timeline((0, None, append(b"x", None)), (1, 2, Read(0, b"x")), (3, 4, append(b"a", 0))),
        "append(b'a') -> 0",
    ),
    "read before it was appended": (
        timeline((0, 1, Read(0, b"a")), (2, 3, append(b"a", 0))),
        "read(0) -> b'a'",
    ),
    "a hole that nothing fills": (
        timeline((0, 1, append(b"a", 0)), (2, 3, append(b"b", 2))),
        "append(b'b') -> 2",
    ),
    "part of a batch": (
        timeline((0, 3, Append((b"a", b"b"), 0)), (1, 2, EndOfLog(1))),
        "end_of_log() -> 1",
    ),
    "a condition that did not hold": (
        timeline((0, 1, append(b"a", 0)), (2, 3, append(b"b", 1, expected=0))),
        "append(b'b') if the end is 0 -> 1",
    ),
    "refused though the condition held": (
        timeline((0, 1, append(b"a", 0)), (2, 3, Refused(expected=1, end=1))),
        "append if the end is 1 -> refused, it is 1",
    ),
    "an unknown conditional append where its condition never held": (
        timeline((0, 1, append(b"a", 0)), (2, None, append(b"b", None, 0)), (3, 4, EndOfLog(2))),
        "end_of_log() -> 2",
    ),
    "an end beyond everything, unconfirmed": (
        timeline((0, 1, append(b"a", 0)), (2, 3, EndOfLog(2, confirmed=False))),
        "end_of_log() -> 2 or more",
    ),
}


@pytest.mark.parametrize("history", LINEARIZABLE.values(), ids=LINEARIZABLE)
def test_a_history_that_some_order_explains_is_accepted(history: list[Operation]) -> None:
    check_linearizable(history)
    assert is_linearizable_by_trying(history)


@pytest.mark.parametrize(("history", "culprit"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_history_that_no_order_explains_is_refused_and_the_operation_named(
    history: list[Operation], culprit: str
) -> None:
    assert not is_linearizable_by_trying(history)
    with pytest.raises(NotLinearizable, match=re.escape(f"{culprit} cannot be placed")) as caught:
        check_linearizable(history)
    assert str(caught.value.operation.call) == culprit


def test_a_log_that_held_records_before_the_history_begins_at_its_end() -> None:
    history = timeline((0, 1, Read(3, b"old")), (2, 3, append(b"a", 5)), (4, 5, EndOfLog(6)))
    check_linearizable(history, start=5)
    with pytest.raises(NotLinearizable):
        check_linearizable(history)


# -- a twin that is obviously right ------------------------------------------------------------


def is_linearizable_by_trying(history: Sequence[Operation]) -> bool:
    """Every order of every choice of the unknown appends, on a real list."""
    known = [each for each in history if each.returned is not None]
    unknown = [each for each in history if each.returned is None]
    return any(
        _keeps_real_time(order) and _explains(order)
        for count in range(len(unknown) + 1)
        for chosen in itertools.combinations(unknown, count)
        for order in itertools.permutations([*known, *chosen])
    )


def _keeps_real_time(order: Sequence[Operation]) -> bool:
    return not any(
        later.returned is not None and later.returned < earlier.invoked
        for earlier, later in itertools.combinations(order, 2)
    )


def _explains(order: Sequence[Operation]) -> bool:
    log: list[Value] = []
    return all(_applies(each.call, log) for each in order)


def _applies(call: Call, log: list[Value]) -> bool:
    end = len(log)
    match call:
        case Append(values, offset, expected):
            log.extend(values)
            return expected in (None, end) and offset in (None, end)
        case Refused(expected, seen):
            return seen == end != expected
        case Read(offset, value):
            return offset < end and log[offset] == value
        case ReadNothing(offset, confirmed):
            return not confirmed or offset >= end
        case EndOfLog(offset, confirmed):
            return offset == end if confirmed else offset <= end


_offsets = st.integers(0, 3)
_values = st.sampled_from([b"a", b"b", None])
_returning_calls = st.one_of(
    st.builds(Append, st.tuples(_values), _offsets, st.none() | _offsets),
    st.builds(Append, st.tuples(_values, _values), _offsets),
    st.builds(Refused, _offsets, _offsets),
    st.builds(Read, _offsets, _values),
    st.builds(ReadNothing, _offsets, st.booleans()),
    st.builds(EndOfLog, _offsets, st.booleans()),
)


@st.composite
def small_histories(draw: st.DrawFn) -> list[Operation]:
    """Up to five operations that say anything, right or wrong."""
    history = []
    for number in range(draw(st.integers(1, 5))):
        invoked = draw(st.integers(0, 6))
        if draw(st.integers(0, 3)) == 0:
            values = draw(st.tuples(_values) | st.tuples(_values, _values))
            call: Call = Append(values, None, draw(st.none() | _offsets))
            history.append(Operation(f"c{number}", call, invoked, None))
        else:
            returned = invoked + draw(st.integers(0, 4))
            history.append(Operation(f"c{number}", draw(_returning_calls), invoked, returned))
    return history


@given(small_histories())
def test_it_says_what_trying_every_order_says(history: list[Operation]) -> None:
    if is_linearizable_by_trying(history):
        check_linearizable(history)
        return
    with pytest.raises(NotLinearizable) as refusal:
        check_linearizable(history)
    if "whatever else was appended" in str(refusal.value):
        assert not is_linearizable_by_trying(refusal.value.counterexample)


# -- histories of a real object ----------------------------------------------------------------


def recorded(rng: random.Random, count: int) -> list[Operation]:
    """What ``count`` operations on a list returned, each done at its own moment within a span.

    A tenth of the appends has an unknown outcome; half of those did nothing.
    """
    log: list[Value] = []
    history = []
    for moment in range(1, count + 1):
        invoked = moment - rng.uniform(0, 6) + 0.001
        returned: float | None = moment + rng.uniform(0, 6)
        call = _done(rng, log, b"v%d" % moment)
        if isinstance(call, Append) and call.offset is None:
            returned = None
        history.append(Operation(f"c{moment % 7}", call, invoked, returned))
    return history


def _done(rng: random.Random, log: list[Value], value: bytes) -> Call:
    end = len(log)
    kind = rng.choice(["append", "append", "batch", "conditional", "read", "beyond", "end"])
    if kind == "read" and log:
        offset = rng.randrange(end)
        return Read(offset, log[offset])
    if kind == "beyond":
        return ReadNothing(end + rng.randrange(3))
    if kind == "end":
        return EndOfLog(end)
    values: tuple[Value, ...] = (value, value + b"'") if kind == "batch" else (value,)
    expected = None
    if kind == "conditional":
        expected = max(0, end - rng.randrange(2))
        if expected != end:
            return Refused(expected, end)
    is_unknown = rng.random() < 0.1
    if not is_unknown or rng.random() < 0.5:
        log.extend(values)
    return Append(values, None if is_unknown else end, expected)


@given(st.integers(0, 2**32))
def test_what_a_real_log_returned_is_accepted(seed: int) -> None:
    rng = random.Random(seed)
    check_linearizable(recorded(rng, rng.randrange(1, 80)))


def _stale(history: list[Operation], rng: random.Random) -> list[Operation]:
    """Somebody asks for the end after all of it and gets what it was before the last append."""
    last = max(each.call.offset for each in _acknowledged(history))
    return [*history, Operation("late", EndOfLog(last), 1e6, 1e6 + 1)]


def _lost(history: list[Operation], rng: random.Random) -> list[Operation]:
    """Somebody reads another record where one was acknowledged."""
    victim = rng.choice(_acknowledged(history))
    return [*history, Operation("late", Read(victim.call.offset, b"other"), 1e6, 1e6 + 1)]


def _doubled(history: list[Operation], rng: random.Random) -> list[Operation]:
    """A record is found a second time, behind the end."""
    victim = rng.choice(_acknowledged(history))
    end = max(each.call.offset + len(each.call.values) for each in _acknowledged(history))
    again = Operation("late", Read(end, victim.call.values[0]), 1e6, 1e6 + 1)
    return [*history, again]


def _reordered(history: list[Operation], rng: random.Random) -> list[Operation]:
    """Two acknowledged appends that did not overlap change places."""
    first = min(_acknowledged(history), key=lambda each: each.call.offset)
    last = max(_acknowledged(history), key=lambda each: each.call.offset)
    rest = [each for each in history if each not in (first, last)]
    return [
        *rest,
        Operation(first.client, first.call, last.invoked, last.returned),
        Operation(last.client, last.call, first.invoked, first.returned),
    ]


def _acknowledged(history: list[Operation]) -> list[Operation]:
    return [
        each for each in history if isinstance(each.call, Append) and each.call.offset is not None
    ]


@pytest.mark.parametrize("mutation", [_stale, _lost, _doubled, _reordered])
def test_a_real_history_with_something_wrong_in_it_is_refused(
    mutation: Callable[[list[Operation], random.Random], list[Operation]],
) -> None:
    for seed in range(30):
        rng = random.Random(seed)
        history = recorded(rng, 60)
        check_linearizable(history)
        with pytest.raises(NotLinearizable):
            check_linearizable(mutation(history, rng))


# -- size --------------------------------------------------------------------------------------


def test_a_long_history_takes_few_steps_for_each_operation() -> None:
    history = recorded(random.Random(1), 5_000)
    assert check_linearizable(history) < 20 * len(history)


def test_a_stale_end_in_a_long_history_comes_with_a_counterexample_of_two() -> None:
    history = recorded(random.Random(2), 400)
    with pytest.raises(NotLinearizable, match="whatever else was appended") as caught:
        check_linearizable(_stale(history, random.Random(2)))
    assert len(caught.value.counterexample) == 2
    assert str(caught.value).count("\n") == 3


def test_a_search_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(Undecided):
        check_linearizable(recorded(random.Random(3), 100), steps=10)


def test_the_recorder_puts_operations_in_the_order_in_which_they_happened() -> None:
    recorder = Recorder()
    first = recorder.begin()
    second = recorder.begin()
    recorder.end("b", second, append(b"b", 0))
    third = recorder.begin()
    recorder.end("a", first, append(b"a", None))
    recorder.end("c", third, EndOfLog(1), Read(0, b"b"))
    spans = [(each.client, each.invoked, each.returned) for each in recorder.operations]
    assert spans == [("b", 1, 2), ("a", 0, None), ("c", 3, 5), ("c", 3, 5)]
    check_linearizable(recorder.operations)
