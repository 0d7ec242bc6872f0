"""A producer table that was saved and restored answers, and goes on, as the one it was made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.metadata_machine import MetadataMachine
from quorumlog.broker.partition import PartitionMachine
from quorumlog.broker.producer_snapshot import (
    AppliedBatch,
    batches_of,
    join_entries,
    split_entries,
    with_batch,
)
from quorumlog.broker.producers import Duplicate, PendingProducers, ProducerTable
from quorumlog.errors import ProducerFenced, ProtocolError
from quorumlog.log.batch import BatchHeader, Draft, Kind
from quorumlog.types import Index, Offset, Term

MAX_PRODUCERS = 4

STEPS = st.lists(
    st.tuples(
        st.integers(0, 6),  # producer; 0 is none
        st.integers(0, 2),  # epoch
        st.integers(0, 50),  # sequence
        st.integers(1, 9),  # records
        st.sampled_from([Kind.RECORDS, Kind.RECORDS, Kind.RECORDS, Kind.NOOP]),
    ),
    max_size=40,
)


def headers_of(steps: list[tuple[int, int, int, int, Kind]]) -> list[BatchHeader]:
    return [
        BatchHeader(
            body_crc=0,
            body_length=0,
            record_count=count if kind is Kind.RECORDS else 0,
            index=Index(index),
            term=Term(1),
            base_offset=Offset(index * 100),
            timestamp_ms=index * 1000,
            producer_id=producer,
            sequence=sequence,
            producer_epoch=epoch,
            kind=kind,
        )
        for index, (producer, epoch, sequence, count, kind) in enumerate(steps, 1)
    ]


@given(STEPS, STEPS)
def test_a_restored_table_goes_on_as_the_one_that_was_saved(
    before: list[tuple[int, int, int, int, Kind]], after: list[tuple[int, int, int, int, Kind]]
) -> None:
    headers = headers_of([*before, *after])
    table = ProducerTable(MAX_PRODUCERS)
    for header in headers[: len(before)]:
        table.applied(header)
    twin = ProducerTable(MAX_PRODUCERS)
    twin.restore(table.snapshot())
    assert twin.snapshot() == table.snapshot()
    # What is forgotten first depends on the order in the table, which has to come along.
    for header in headers[len(before) :]:
        table.applied(header)
        twin.applied(header)
        assert twin.snapshot() == table.snapshot()
    for header in headers:
        what = (header.producer_id, header.producer_epoch, header.sequence, header.record_count)
        assert twin.find(*what) == table.find(*what)


def test_the_bytes_are_those_of_version_1() -> None:
    batch = AppliedBatch(sequence=3, record_count=2, base_offset=40, timestamp_ms=1_000)
    entry = with_batch(b"", 9, 1, batch)
    assert batches_of(entry) == [batch]
    assert join_entries([entry]).hex() == (
        "514c5401" + "01000000"
        "0900000000000000" + "0500000000000000" + "01000000" + "01000000"
        "0300000000000000" + "02000000" + "2800000000000000" + "e803000000000000"
    )
    assert ProducerTable().snapshot().hex() == "514c540100000000"


def test_anything_else_is_refused_and_changes_nothing() -> None:
    one = with_batch(b"", 9, 1, AppliedBatch(3, 2, 40, 1_000))
    whole = join_entries([one])
    six = bytearray(whole)
    six[28] = 6
    none = bytearray(whole[:-28])
    none[28] = 0
    table = ProducerTable()
    table.restore(whole)
    for wrong in (
        b"",
        *(whole[:size] for size in range(len(whole))),
        whole + b"\0",
        b"QLT\x02" + whole[4:],
        bytes(six) + bytes(5 * 28),
        bytes(none),
        join_entries([one, one]),
        whole[:4] + b"\xff\xff\xff\xff" + whole[8:],
    ):
        with pytest.raises(ProtocolError):
            split_entries(wrong)
        with pytest.raises(ProtocolError):
            table.restore(wrong)
    assert table.snapshot() == whole


def test_a_restored_partition_knows_what_was_committed_and_nothing_that_was_pending() -> None:
    machine = PartitionMachine()
    committed, pending = headers_of([(7, 1, 0, 3, Kind.RECORDS), (7, 1, 3, 2, Kind.RECORDS)])
    machine.appended(committed)
    machine.appended(pending)
    machine.apply(Draft.of(b"", 0, Kind.NOOP).stamp(1, 1, 0, 0))
    machine.producers.applied(committed)
    machine.pending.applied(committed)
    restored = PartitionMachine()
    restored.restore(machine.snapshot())
    assert restored.snapshot() == machine.snapshot()
    assert restored.pending.check(7, 1, 0, 3) == Duplicate(100, 1000)
    assert restored.pending.check(7, 1, 3, 2) is None
    with pytest.raises(ProducerFenced):
        restored.pending.check(7, 0, 3, 2)
    assert isinstance(restored.pending, PendingProducers)


def test_a_restored_metadata_state_wakes_those_who_wait_for_it() -> None:
    woken: list[bool] = []
    machine = MetadataMachine(MetadataState(), "groups/0", lambda: woken.append(True))
    machine.restore(MetadataState().snapshot())
    assert woken == [True]
