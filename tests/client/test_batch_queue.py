"""What becomes of batches: numbers, order, doubt."""

import asyncio
from collections.abc import Iterator

import pytest

from quorumlog.client.accumulator import OpenBatch, ProducerIdentity, SealedBatch
from quorumlog.client.batch_queue import MAX_IN_FLIGHT, BatchQueue
from quorumlog.client.models import RunMetadata
from quorumlog.errors import InvalidBatch, OutcomeUnknown, QuorumlogError, Unavailable

ERROR = InvalidBatch("refused")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def queue_of(loop: asyncio.AbstractEventLoop, counts: list[int]) -> BatchQueue:
    queue = BatchQueue(batch_bytes=100)
    queue.adopt(ProducerIdentity(7, 0))
    for count in counts:
        queue.open = OpenBatch(deadline_s=10.0)
        future: asyncio.Future[RunMetadata] = loop.create_future()
        queue.open.add_run(b"x" * count, count, future)
        queue.seal()
    return queue


def take_all(queue: BatchQueue) -> list[SealedBatch]:
    taken = []
    while queue.may_send():
        taken.append(queue.take())
    return taken


def kinds(lost: list[tuple[SealedBatch, QuorumlogError]]) -> list[tuple[int, type]]:
    return [(batch.record_count, type(error)) for batch, error in lost]


def test_sequences_count_records_and_at_most_five_batches_are_taken(
    loop: asyncio.AbstractEventLoop,
) -> None:
    queue = queue_of(loop, [3, 1, 2, 4, 5, 6, 7])
    taken = take_all(queue)
    assert [batch.sequence for batch in taken] == [0, 3, 4, 6, 10]
    assert len(taken) == MAX_IN_FLIGHT


def test_rewind_restores_the_order_keeps_the_numbers_and_doubts_what_had_no_answer(
    loop: asyncio.AbstractEventLoop,
) -> None:
    queue = queue_of(loop, [1, 2, 3])
    taken = take_all(queue)
    taken[0].answer = Unavailable("later")
    attempt = queue.attempt
    queue.rewind()
    assert queue.attempt == attempt + 1
    assert [batch.in_doubt for batch in taken] == [False, True, True]
    assert take_all(queue) == taken
    assert [batch.sequence for batch in taken] == [0, 1, 3]


def test_a_first_batch_that_is_surely_absent_fails_alone_and_the_rest_gets_new_numbers(
    loop: asyncio.AbstractEventLoop,
) -> None:
    queue = queue_of(loop, [1, 2, 3])
    take_all(queue)[0].answer = ERROR
    queue.rewind()
    assert kinds(queue.give_up_first(ERROR)) == [(1, InvalidBatch)]
    assert queue.identity is None
    queue.adopt(ProducerIdentity(8, 0))
    again = take_all(queue)
    assert [(batch.identity, batch.sequence, batch.in_doubt) for batch in again] == [
        (ProducerIdentity(8, 0), 0, False),
        (ProducerIdentity(8, 0), 2, False),
    ]


def test_a_first_batch_in_doubt_takes_with_it_what_was_sent_behind_it_and_no_more(
    loop: asyncio.AbstractEventLoop,
) -> None:
    queue = queue_of(loop, [1, 2, 3, 4, 5, 6])
    take_all(queue)
    queue.rewind()
    assert kinds(queue.give_up_first(ERROR)) == [(n, OutcomeUnknown) for n in (1, 2, 3, 4, 5)]
    assert queue.identity is None
    assert [batch.record_count for batch in queue.waiting] == [6]


def test_a_batch_that_was_never_sent_fails_without_a_new_identity(
    loop: asyncio.AbstractEventLoop,
) -> None:
    queue = queue_of(loop, [1, 2])
    assert kinds(queue.give_up_first(ERROR)) == [(1, InvalidBatch)]
    assert queue.identity == ProducerIdentity(7, 0)


def test_giving_up_all_tells_what_may_be_in_the_log_from_what_is_not(
    loop: asyncio.AbstractEventLoop,
) -> None:
    queue = queue_of(loop, [1, 2, 3, 4, 5, 6])
    take_all(queue)
    assert kinds(queue.give_up_all(ERROR)) == [
        *((n, OutcomeUnknown) for n in (1, 2, 3, 4, 5)),
        (6, InvalidBatch),
    ]
    assert queue.empty
