"""The start of a partition's log: the command, what it makes of the state, the bytes of both."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.broker.note_command import (
    ForgetCheckpoint,
    NoteCommand,
    RaiseFence,
    SetCheckpoint,
    note_draft,
)
from quorumlog.broker.partition import PartitionMachine
from quorumlog.broker.partition_snapshot import PartitionState
from quorumlog.broker.producer_snapshot import REMEMBERED_BATCHES
from quorumlog.broker.producers import Duplicate, ProducerTable
from quorumlog.broker.start_command import StartCommand
from quorumlog.errors import (
    DuplicateSequence,
    InvariantViolation,
    ProducerForgotten,
    ProtocolError,
)
from quorumlog.log.batch import Batch, Draft, Kind
from quorumlog.replication.state_machine import WHOLE_LOG, LogStart
from quorumlog.types import Index, Offset


class History:
    """A log of which every batch is committed at once, and the machine that applied all of it."""

    def __init__(self, max_producers: int = 100) -> None:
        self.max_producers = max_producers
        self.batches: list[Batch] = []
        self.machine = self.new_machine()

    def new_machine(self) -> PartitionMachine:
        machine = PartitionMachine()
        machine.producers = ProducerTable(self.max_producers)
        return machine

    @property
    def end_offset(self) -> int:
        return self.batches[-1].header.next_offset if self.batches else 0

    def add(self, draft: Draft) -> object:
        index = len(self.batches) + 1
        batch = draft.stamp(index, 1, self.end_offset, 1000 * index)
        self.batches.append(batch)
        return self.machine.apply(batch)

    def produce(self, producer: int, sequence: int, count: int = 1, epoch: int = 0) -> None:
        draft = Draft(b"", 0, count, producer_id=producer, producer_epoch=epoch, sequence=sequence)
        self.add(draft)

    def trim(self, offset: int, free_index: int) -> object:
        return self.add(self.machine.start_draft(offset, free_index))

    def note(self, command: NoteCommand) -> object:
        return self.add(note_draft(command))


def test_the_bytes_of_a_command_are_those_of_version_1() -> None:
    command = StartCommand(Offset(7), Index(5), 9)
    encoded = command.encode()
    assert encoded.hex() == "514c5301" + "070000000000000005000000000000000900000000000000"
    assert StartCommand.decode(memoryview(encoded)) == command
    wrong = (b"", encoded[:-1], encoded + b"\0", b"QLS\x03" + encoded[4:])
    for each in wrong:
        with pytest.raises(ProtocolError):
            StartCommand.decode(each)


def test_a_command_of_another_release_stops_the_replica() -> None:
    with pytest.raises(InvariantViolation, match="upgrade this node"):
        History().add(Draft.of(b"QLS\x03", kind=Kind.COMMAND))


def test_the_bytes_of_a_state_are_those_of_version_1_and_a_bare_table_is_read_still() -> None:
    history = History()
    history.produce(3, 0, 2)
    old = history.machine.producers.snapshot()
    history.produce(4, 0, 1)
    assert history.trim(2, 1) == LogStart(Offset(2), Index(1))
    state = history.machine.snapshot()
    assert state.startswith(
        bytes.fromhex("514c4e01" + "020000000000000001000000000000000300000000000000")
    )
    restored = PartitionMachine()
    restored.restore(state)
    assert restored.snapshot() == state
    assert restored.log_start == LogStart(Offset(2), Index(1))
    with pytest.raises(ProducerForgotten):
        restored.producers.check(3, 0, 0, 2)
    restored = PartitionMachine()
    restored.restore(old)
    assert restored.log_start == WHOLE_LOG
    assert restored.producers.check(3, 0, 0, 2) == Duplicate(0, 1000)
    for wrong in (b"", state[:27], b"QLN\x03" + state[4:], state + b"\0"):
        with pytest.raises(ProtocolError):
            restored.restore(wrong)
    assert PartitionState.decode(restored.snapshot()).producers == old


def test_the_start_never_goes_back_and_never_beyond_what_was_committed() -> None:
    history = History()
    for number in range(4):
        history.produce(0, 0, 10)
        assert history.machine.log_start == WHOLE_LOG, number
    assert history.trim(20, 2) == LogStart(Offset(20), Index(2))
    assert history.trim(5, 1) == LogStart(Offset(20), Index(2))
    late = StartCommand(Offset(5), Index(1), 0)
    assert history.add(Draft.of(late.encode(), kind=Kind.COMMAND)) == LogStart(Offset(20), Index(2))
    greedy = StartCommand(Offset(1000), Index(1000), 0)
    assert history.add(Draft.of(greedy.encode(), kind=Kind.COMMAND)) == LogStart(
        Offset(40), Index(7)
    )


def test_producers_are_forgotten_with_their_records_and_not_taken_for_new_ones() -> None:
    history = History()
    history.produce(1, 0)
    history.produce(2, 0)
    history.produce(1, 1)
    history.trim(2, 2)
    check = history.machine.producers.check
    # Of the first batch of 1 nothing is known but that it was there.
    with pytest.raises(DuplicateSequence):
        check(1, 0, 0, 1)
    assert check(1, 0, 1, 1) == Duplicate(2, 3000)
    assert check(1, 0, 2, 1) is None
    for sequence in (0, 1):
        with pytest.raises(ProducerForgotten):
            check(2, 0, sequence, 1)
    assert check(3, 0, 0, 1) is None


def test_a_batch_that_stands_across_the_start_is_remembered() -> None:
    history = History()
    history.produce(1, 0, 10)
    history.trim(9, 0)
    assert history.machine.producers.check(1, 0, 0, 10) == Duplicate(0, 1000)
    history.trim(10, 0)
    with pytest.raises(ProducerForgotten):
        history.machine.producers.check(1, 0, 0, 10)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("produce"), st.integers(1, 6), st.integers(1, 3), st.integers(0, 1)),
        st.tuples(st.just("trim"), st.integers(0, 30), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("fence"), st.integers(1, 9), st.just(0), st.just(0)),
        st.tuples(st.just("checkpoint"), st.integers(1, 3), st.integers(0, 9), st.integers(0, 1)),
        st.tuples(st.just("forget"), st.integers(1, 3), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@given(steps, st.sampled_from([2, 3, 100]), st.integers(1, 10))
def test_a_state_made_from_what_is_left_of_the_log_is_the_one_that_saw_all_of_it(
    script: list[tuple[str, int, int, int]], max_producers: int, segment_batches: int
) -> None:
    history = History(max_producers)
    sequences: dict[tuple[int, int], int] = {}
    for what, first, second, epoch in script:
        if what == "trim":
            history.trim(min(first, history.end_offset), min(second, len(history.batches)))
        elif what == "fence":
            history.note(RaiseFence(first))
        elif what == "checkpoint":
            history.note(SetCheckpoint(str(first), Offset(second), rewind=bool(epoch)))
        elif what == "forget":
            history.note(ForgetCheckpoint(str(first)))
        else:
            sequence = sequences.get((first, epoch), 0)
            sequences[first, epoch] = sequence + second
            history.produce(first, sequence, second, epoch)
    start = history.machine.log_start
    kept = 0
    # As Log.remove_deleted does it: whole segments, any size, whose records are all deleted.
    while (
        kept + segment_batches < len(history.batches)
        and history.batches[kept + segment_batches - 1].header.next_offset <= start.offset
        and kept + segment_batches <= start.free_index
    ):
        kept += segment_batches
    rebuilt = history.new_machine()
    for batch in history.batches[kept:]:
        rebuilt.apply(batch)
    assert rebuilt.snapshot() == history.machine.snapshot()


@given(st.lists(st.integers(1, 3), min_size=1, max_size=2 * REMEMBERED_BATCHES), st.integers(0, 40))
def test_what_is_left_of_a_producer_are_its_batches_from_the_start_on(
    counts: list[int], offset: int
) -> None:
    history = History()
    sequence = 0
    for count in counts:
        history.produce(1, sequence, count)
        sequence += count
    offset = min(offset, history.end_offset)
    history.trim(offset, 0)
    found = []
    for batch in history.batches[:-1]:
        header = batch.header
        if history.machine.producers.find(1, 0, header.sequence, header.record_count):
            found.append(header)
    alive = [batch.header for batch in history.batches[:-1] if batch.header.next_offset > offset]
    assert found == alive[-REMEMBERED_BATCHES:]
