import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.broker.producer_snapshot import REMEMBERED_BATCHES
from quorumlog.broker.producers import (
    Duplicate,
    InFlight,
    PendingProducers,
    ProducerTable,
)
from quorumlog.errors import (
    DuplicateSequence,
    OutOfOrderSequence,
    ProducerFenced,
    SequenceError,
)
from quorumlog.log.batch import BatchHeader, Kind
from quorumlog.types import Index, Offset, Term


def header(
    producer: int, sequence: int, count: int = 1, epoch: int = 0, index: int = 1
) -> BatchHeader:
    """Its offset and time follow from ``index``, so that tests can tell batches apart."""
    return BatchHeader(
        body_crc=0,
        body_length=0,
        record_count=count,
        index=Index(index),
        term=Term(1),
        base_offset=Offset(index * 100),
        timestamp_ms=index * 1000,
        producer_id=producer,
        sequence=sequence,
        producer_epoch=epoch,
    )


def table_of(*headers: BatchHeader, max_producers: int = 100) -> ProducerTable:
    table = ProducerTable(max_producers)
    for each in headers:
        table.applied(each)
    return table


def test_a_new_producer_begins_at_zero() -> None:
    table = ProducerTable()
    assert table.check(7, 0, 0, 3) is None
    with pytest.raises(OutOfOrderSequence) as caught:
        table.check(7, 0, 3, 3)
    assert (caught.value.expected, caught.value.got) == (0, 3)


def test_the_next_batch_begins_where_the_last_one_ended() -> None:
    table = table_of(header(7, 0, 3))
    assert table.check(7, 0, 3, 2) is None
    with pytest.raises(OutOfOrderSequence) as caught:
        table.check(7, 0, 5, 2)
    assert (caught.value.expected, caught.value.got) == (3, 5)


def test_a_repeated_batch_is_answered_with_its_first_offset() -> None:
    table = table_of(*(header(7, 2 * at, 2, index=at + 1) for at in range(REMEMBERED_BATCHES)))
    for at in range(REMEMBERED_BATCHES):
        assert table.check(7, 0, 2 * at, 2) == Duplicate((at + 1) * 100, (at + 1) * 1000)


def test_a_batch_repeated_too_late_is_known_to_be_one() -> None:
    table = table_of(*(header(7, at, index=at + 1) for at in range(REMEMBERED_BATCHES + 1)))
    with pytest.raises(DuplicateSequence):
        table.check(7, 0, 0, 1)
    assert table.check(7, 0, 1, 1) is not None


def test_old_and_new_records_in_one_batch_are_never_taken_for_a_duplicate() -> None:
    """The producer would take the new ones for acknowledged, and lose them."""
    table = table_of(header(7, 0, 3))
    with pytest.raises(SequenceError) as caught:
        table.check(7, 0, 0, 4)
    assert type(caught.value) is SequenceError
    with pytest.raises(DuplicateSequence):
        table.check(7, 0, 0, 2)


def test_an_older_epoch_is_fenced_and_a_newer_one_begins_at_zero() -> None:
    table = table_of(header(7, 0, 3, epoch=4))
    with pytest.raises(ProducerFenced):
        table.check(7, 3, 3, 1)
    with pytest.raises(OutOfOrderSequence):
        table.check(7, 5, 3, 1)
    assert table.check(7, 5, 0, 1) is None
    table.applied(header(7, 0, 1, epoch=5, index=2))
    with pytest.raises(ProducerFenced):
        table.check(7, 4, 0, 3)


def test_without_a_producer_nothing_is_checked_or_remembered() -> None:
    table = table_of(header(0, 5, 3))
    overlay = PendingProducers(table)
    overlay.appended(header(0, 5, 3))
    assert (len(table), len(overlay)) == (0, 0)
    assert table.check(0, 9, 9, 9) is None
    assert overlay.check(0, 9, 9, 9) is None


def test_only_records_count() -> None:
    noop = BatchHeader(0, 0, 0, Index(1), Term(1), Offset(0), 0, 7, 0, 0, Kind.NOOP)
    assert len(table_of(noop)) == 0


def test_the_producer_whose_last_batch_is_oldest_is_forgotten() -> None:
    table = table_of(header(1, 0), header(2, 0), header(1, 1), header(3, 0), max_producers=2)
    assert len(table) == 2
    assert table.check(1, 0, 2, 1) is None
    # Forgotten: it begins anew, and cannot go on.
    assert table.check(2, 0, 0, 1) is None
    with pytest.raises(OutOfOrderSequence) as caught:
        table.check(2, 0, 1, 1)
    assert caught.value.expected == 0


def test_checking_does_not_change_who_is_forgotten() -> None:
    """A question is not in the log; only the log may decide, or replicas would differ."""
    table = table_of(header(1, 0), header(2, 0), max_producers=2)
    table.check(1, 0, 1, 1)
    table.applied(header(3, 0))
    assert table.check(2, 0, 1, 1) is None
    assert table.check(1, 0, 0, 1) is None


class TestPending:
    def test_a_batch_under_way_is_found_by_its_index(self) -> None:
        overlay = PendingProducers(ProducerTable())
        overlay.appended(header(7, 0, 2, index=4))
        overlay.appended(header(7, 2, 1, index=5))
        assert overlay.check(7, 0, 0, 2) == InFlight(Index(4))
        assert overlay.check(7, 0, 2, 1) == InFlight(Index(5))
        assert overlay.check(7, 0, 3, 1) is None

    def test_the_next_sequence_counts_what_is_under_way(self) -> None:
        overlay = PendingProducers(table_of(header(7, 0, 2, index=1)))
        overlay.appended(header(7, 2, 3, index=2))
        with pytest.raises(OutOfOrderSequence) as caught:
            overlay.check(7, 0, 9, 1)
        assert caught.value.expected == 5
        with pytest.raises(SequenceError) as mixed:
            overlay.check(7, 0, 2, 4)
        assert type(mixed.value) is SequenceError

    def test_behind_what_is_under_way_the_table_answers(self) -> None:
        table = table_of(*(header(7, at, index=at + 1) for at in range(6)))
        overlay = PendingProducers(table)
        overlay.appended(header(7, 6, index=7))
        assert overlay.check(7, 0, 5, 1) == Duplicate(600, 6000)
        with pytest.raises(DuplicateSequence):
            overlay.check(7, 0, 0, 1)

    def test_what_is_applied_is_answered_by_the_table(self) -> None:
        table = ProducerTable()
        overlay = PendingProducers(table)
        first, second = header(7, 0, index=1), header(7, 1, index=2)
        overlay.appended(first)
        overlay.appended(second)
        table.applied(first)
        overlay.applied(first)
        assert overlay.check(7, 0, 0, 1) == Duplicate(100, 1000)
        assert overlay.check(7, 0, 1, 1) == InFlight(Index(2))
        assert len(overlay) == 1

    def test_an_epoch_under_way_fences_the_older_one(self) -> None:
        overlay = PendingProducers(table_of(header(7, 0, epoch=1)))
        overlay.appended(header(7, 0, epoch=2, index=2))
        with pytest.raises(ProducerFenced):
            overlay.check(7, 1, 1, 1)
        with pytest.raises(OutOfOrderSequence):
            overlay.check(7, 3, 1, 1)
        assert overlay.check(7, 3, 0, 1) is None

    def test_a_producer_the_table_forgot_meanwhile_is_not_started_anew(self) -> None:
        table = table_of(header(7, 0, index=1), header(7, 1, index=2), max_producers=1)
        overlay = PendingProducers(table)
        overlay.appended(header(7, 2, index=4))
        table.applied(header(8, 0, index=3))
        for sequence in (0, 1):
            with pytest.raises(DuplicateSequence):
                overlay.check(7, 0, sequence, 1)

    def test_after_leadership_is_lost_only_the_log_counts(self) -> None:
        overlay = PendingProducers(table_of(header(7, 0, index=1)))
        overlay.appended(header(7, 1, index=2))
        overlay.clear()
        assert len(overlay) == 0
        assert overlay.check(7, 0, 1, 1) is None


# ------------------------------------------------------------------------------- against a twin


def remembered(log: list[BatchHeader], producer: int, max_producers: int) -> list[BatchHeader]:
    """The batches of ``producer`` since it was last forgotten, straight from the rule."""
    kept: list[BatchHeader] = []
    others: set[int] = set()
    for each in log:
        if each.producer_id == producer:
            others.clear()
            kept.append(each)
        else:
            others.add(each.producer_id)
            if len(others) >= max_producers:
                kept.clear()
    return kept


def expected(
    log: list[BatchHeader], producer: int, epoch: int, sequence: int, count: int, limit: int
) -> object:
    """What ``check`` gives: a value, or the class of its error."""
    history = remembered(log, producer, limit)
    current = history[-1].producer_epoch if history else epoch
    if epoch < current:
        return ProducerFenced
    same = [each for each in history if each.producer_epoch == epoch]
    next_sequence = same[-1].sequence + same[-1].record_count if same else 0
    if sequence == next_sequence:
        return None
    if sequence > next_sequence:
        return OutOfOrderSequence
    for each in same[-REMEMBERED_BATCHES:]:
        if (each.sequence, each.record_count) == (sequence, count):
            return Duplicate(each.base_offset, each.timestamp_ms)
    return SequenceError if sequence + count > next_sequence else DuplicateSequence


asked = st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(0, 9), st.integers(1, 3))


@given(st.lists(asked, max_size=60), st.integers(1, 4))
def test_the_table_equals_an_obviously_correct_twin(
    script: list[tuple[int, int, int, int]], limit: int
) -> None:
    table = ProducerTable(limit)
    log: list[BatchHeader] = []
    for producer, epoch, sequence, count in script:
        outcome: object
        try:
            outcome = table.check(producer, epoch, sequence, count)
        except SequenceError as error:
            outcome = type(error)
        assert outcome == expected(log, producer, epoch, sequence, count, limit)
        if outcome is None:
            log.append(header(producer, sequence, count, epoch, len(log) + 1))
            table.applied(log[-1])


class Cluster:
    """A leader's log of one partition, and what of it is committed; leaders come and go."""

    def __init__(self) -> None:
        self.log: list[BatchHeader] = []
        self.committed = 0
        self.table = ProducerTable()
        self.overlay = PendingProducers(self.table)

    def send(self, producer: int, sequence: int, count: int) -> int | None:
        """The index of the batch, appended now or before; None: too old to know; or raises."""
        try:
            found = self.overlay.check(producer, 0, sequence, count)
        except DuplicateSequence:
            return None
        if isinstance(found, InFlight):
            return found.index
        if isinstance(found, Duplicate):
            return found.base_offset // 100
        self.log.append(header(producer, sequence, count, index=len(self.log) + 1))
        self.overlay.appended(self.log[-1])
        return len(self.log)

    def commit(self, batches: int) -> None:
        for each in self.log[self.committed : self.committed + batches]:
            self.table.applied(each)
            self.overlay.applied(each)
            self.committed += 1

    def elect(self, survivors: int) -> None:
        """A new leader: it has what is committed and ``survivors`` more, and its own table."""
        del self.log[self.committed + survivors :]
        self.table = table_of(*self.log)
        self.overlay = PendingProducers(self.table)
        self.committed = len(self.log)


@given(st.data())
def test_retry_storms_never_double_nor_lose_nor_reorder(data: st.DataObject) -> None:
    """Three producers, at most five batches in flight each; any batch may arrive again."""
    cluster = Cluster()
    sizes = {producer: [1, 3, 2, 1, 4, 2, 1, 1, 2, 3, 1, 2] for producer in (1, 2, 3)}
    starts = {
        producer: [sum(counts[:at]) for at in range(len(counts))]
        for producer, counts in sizes.items()
    }
    indices: dict[tuple[int, int], int] = {}
    acknowledged = {1: 0, 2: 0, 3: 0}

    def deliver(producer: int, at: int) -> None:
        try:
            index = cluster.send(producer, starts[producer][at], sizes[producer][at])
        except OutOfOrderSequence:
            return
        if index is not None:
            indices[producer, at] = index

    def acknowledge() -> None:
        for producer in acknowledged:
            at = acknowledged[producer]
            while indices.get((producer, at), cluster.committed + 1) <= cluster.committed:
                at += 1
            acknowledged[producer] = at

    for _ in range(data.draw(st.integers(0, 60))):
        match data.draw(st.sampled_from(["send", "send", "send", "late", "commit", "elect"])):
            case "send":
                producer = data.draw(st.integers(1, 3))
                at = acknowledged[producer] + data.draw(st.integers(0, REMEMBERED_BATCHES - 1))
                if at < len(sizes[producer]):
                    deliver(producer, at)
            case "late":
                producer = data.draw(st.integers(1, 3))
                at = data.draw(st.integers(0, acknowledged[producer]))
                if at < acknowledged[producer]:
                    cluster.send(producer, starts[producer][at], sizes[producer][at])
            case "commit":
                cluster.commit(data.draw(st.integers(0, 4)))
                acknowledge()
            case "elect":
                cluster.elect(data.draw(st.integers(0, 3)))
                # What the old leader said of batches that did not survive is void.
                indices = {key: at for key, at in indices.items() if at <= cluster.committed}
                acknowledge()
    for producer in sizes:
        for at in range(acknowledged[producer], len(sizes[producer])):
            deliver(producer, at)
    cluster.commit(len(cluster.log))
    for producer in sizes:
        stored = [
            (each.sequence, each.record_count)
            for each in cluster.log
            if each.producer_id == producer
        ]
        assert stored == list(zip(starts[producer], sizes[producer], strict=True))
