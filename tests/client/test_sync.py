"""``Client``: the asynchronous client from plain threads."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from client.fake_cluster import FakeCluster
from quorumlog.client.sync import Client
from quorumlog.errors import Closed, InvalidArgument, OutcomeUnknown, RecordTooLarge, UnknownTopic
from quorumlog.types import RecordData


@pytest.fixture
def cluster() -> FakeCluster:
    cluster = FakeCluster()
    cluster.delay_s = 0.0
    return cluster


@pytest.fixture
def client(cluster: FakeCluster) -> Iterator[Client]:
    with Client(*cluster.addresses, connector=cluster) as client:
        yield client


def test_topics_and_status(client: Client, cluster: FakeCluster) -> None:
    assert len(client.create_topic("t", partitions=2).partitions) == 2
    assert len(client.alter_topic("t", partitions=3).partitions) == 3
    assert client.describe_topic("t").name == "t"
    assert [topic.name for topic in client.list_topics()] == ["t"]
    assert client.cluster_status().cluster_id == "fake"
    assert client.transfer_leadership("t", 0, "node2") == "node2"
    assert client.offset("t", 0, "latest") == 0
    assert client.delete_before("t", 0, 0) == 0
    assert client.offsets("t")[2].end == 0
    client.delete_topic("t")
    with pytest.raises(UnknownTopic):
        client.describe_topic("t")


def test_what_was_produced_is_consumed(client: Client, cluster: FakeCluster) -> None:
    cluster.add_topic("t", 3)
    with client.producer("t") as producer:
        assert producer.send(b"a", partition=0).offset == 0
        assert producer.submit(b"b", partition=0).result(10).offset == 1
        summary = producer.send_many(RecordData(str(n).encode()) for n in range(25_000))
        producer.flush()
    assert summary.record_count == 25_000
    with client.consumer("t", follow=False) as consumer:
        values = {record.value for record in consumer}
        assert consumer.partitions == (0, 1, 2)
    assert values == {b"a", b"b", *(str(number).encode() for number in range(25_000))}
    assert client.fetch("t", 0, 0)[0].values()[0] == b"a"


def test_records_and_batches_mix_and_positions_and_seeks_are_exact(
    client: Client, cluster: FakeCluster
) -> None:
    cluster.add_topic("t")
    with client.producer("t") as producer:
        producer.send_many([str(number).encode() for number in range(10)])
    with client.consumer("t", follow=False) as consumer:
        assert [next(consumer).offset for _ in range(3)] == [0, 1, 2]
        assert consumer.position(0) == 3
        batch = consumer.next_batch()
        assert batch is not None
        assert (batch.start, batch.next_offset) == (3, 10)
        assert consumer.position(0) == 10
        consumer.seek(0, 8)
        assert [record.offset for record in consumer] == [8, 9]
        consumer.seek(0, 5)
        assert [batch.start for batch in consumer.batches()] == [5]


def test_errors_come_through_typed(client: Client, cluster: FakeCluster) -> None:
    cluster.add_topic("t")
    with client.producer("t") as producer:
        with pytest.raises(RecordTooLarge):
            producer.send(bytes(2_000_000))
        with pytest.raises(InvalidArgument):
            producer.submit("text")  # type: ignore[arg-type]


def test_many_threads_share_one_producer(client: Client, cluster: FakeCluster) -> None:
    partition = cluster.add_topic("t")[0]
    with client.producer("t") as producer, ThreadPoolExecutor(8) as pool:

        def work(thread: int) -> None:
            for number in range(50):
                producer.send(f"{thread}:{number}".encode())

        for done in [pool.submit(work, thread) for thread in range(8)]:
            done.result()
    stored = [value.decode().split(":") for value in partition.values() if value is not None]
    assert len(stored) == 400
    for thread in range(8):
        numbers = [int(number) for name, number in stored if name == str(thread)]
        assert numbers == list(range(50))


def test_close_ends_a_call_another_thread_is_in(cluster: FakeCluster) -> None:
    cluster.add_topic("t")
    client = Client(*cluster.addresses, connector=cluster)
    consumer = client.consumer("t")
    consumer.open()
    entered = threading.Event()

    def wait_for_a_record() -> None:
        entered.set()
        next(consumer)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait_for_a_record)
        assert entered.wait(10)
        client.close()
        with pytest.raises(Closed):
            waiting.result(10)


def test_close_is_idempotent_and_leaves_no_thread(cluster: FakeCluster) -> None:
    before = threading.active_count()
    cluster.add_topic("t")
    client = Client(*cluster.addresses, connector=cluster)
    producer = client.producer("t")
    consumer = client.consumer("t")
    client.close()
    client.close()
    producer.abort()
    consumer.close()
    assert threading.active_count() == before
    with pytest.raises(Closed):
        producer.send(b"v")
    with pytest.raises(Closed):
        client.list_topics()


def test_a_failed_with_block_gives_up_what_is_not_acknowledged(
    client: Client, cluster: FakeCluster
) -> None:
    partition = cluster.add_topic("t")[0]
    cluster.elect(partition, None)
    pending = []

    def fail() -> None:
        with client.producer("t") as producer:
            pending.append(producer.submit(b"v"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    # Whether the record was with a node that does not lead at that moment is up to the threads.
    with pytest.raises((Closed, OutcomeUnknown)):
        pending[0].result(10)
