"""The demo's check finds what it is there to find."""

import pytest

from examples.flights.check import ReplayCheck, Verdict
from examples.flights.dataset import Flight
from quorumlog.types import Offset, Record

FLIGHTS = [
    Flight(b"N1", b"first of N1"),
    Flight(b"N2", b"first of N2"),
    Flight(None, b"unknown aircraft"),
    Flight(b"N1", b"second of N1"),
]


def verdict_of(*numbers_by_partition: list[int]) -> Verdict:
    """The verdict on partitions that hold the flights of these numbers, in this order."""
    check = ReplayCheck(FLIGHTS)
    for partition, numbers in enumerate(numbers_by_partition):
        records = [
            Record(Offset(offset), FLIGHTS[number].value, FLIGHTS[number].key)
            for offset, number in enumerate(numbers)
        ]
        check.add(partition, records)
    return check.finish()


def test_every_flight_once_and_in_order_passes() -> None:
    verdict = verdict_of([0, 3], [1, 2])
    assert verdict.passed
    assert verdict.records == 4
    assert verdict.size_bytes == sum(len(f.value) + len(f.key or b"") for f in FLIGHTS)


@pytest.mark.parametrize(
    ("partitions", "lost", "doubled", "misplaced"),
    [
        (([0, 3], [1]), 1, 0, 0),
        (([0, 3, 0], [1, 2]), 0, 1, 0),
        (([0, 3], [1, 2, 1]), 0, 1, 0),
        (([3, 0], [1, 2]), 0, 0, 1),
        (([0], [1, 2, 3]), 0, 0, 1),
    ],
    ids=["lost", "doubled", "doubled in the other partition", "reordered", "key in two partitions"],
)
def test_what_is_wrong_is_counted_under_its_name(
    partitions: tuple[list[int], ...], lost: int, doubled: int, misplaced: int
) -> None:
    verdict = verdict_of(*partitions)
    assert not verdict.passed
    assert (verdict.lost, verdict.doubled, verdict.misplaced) == (lost, doubled, misplaced)
    assert verdict.damaged == 0
    assert verdict.examples


@pytest.mark.parametrize(
    "record",
    [
        Record(Offset(0), b"never sent", b"N1"),
        Record(Offset(0), b"first of N1", b"N2"),
        Record(Offset(0), b"unknown aircraft", b""),
        Record(Offset(0), None, b"N1"),
    ],
    ids=["unknown value", "another key", "empty key for none", "no value"],
)
def test_a_record_that_was_not_sent_like_this_is_damaged(record: Record) -> None:
    check = ReplayCheck(FLIGHTS)
    check.add(0, [record])
    verdict = check.finish()
    assert verdict.damaged == 1
    assert verdict.lost == len(FLIGHTS)


def test_a_gap_in_the_offsets_is_out_of_place() -> None:
    check = ReplayCheck(FLIGHTS)
    check.add(0, [Record(Offset(0), FLIGHTS[0].value, b"N1")])
    check.add(0, [Record(Offset(2), FLIGHTS[3].value, b"N1")])
    assert check.finish().misplaced == 1
