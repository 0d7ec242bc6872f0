"""Checkpoints and fencing tokens of real processes: there after the leader is killed, or all."""

import pytest

from examples.local_cluster import LocalCluster
from quorumlog import Client
from quorumlog.errors import StaleFencingToken
from support.waiting import wait_for


def leader_of(client: Client, topic: str) -> str | None:
    return client.describe_topic(topic).partitions[0].leader


def test_what_is_noted_holds_behind_the_next_leader_and_after_all_were_killed(
    cluster: LocalCluster,
) -> None:
    with Client(*cluster.servers) as client:
        client.create_topic("noted", replicas=3)
        with client.producer("noted", fencing_token=1) as producer:
            producer.send_many([b"%d" % number for number in range(10)])
        with client.consumer("noted", checkpoint="billing", follow=False) as consumer:
            for _ in range(4):
                next(consumer)
            assert consumer.commit() == {0: 4}
        assert client.fence("noted", 0, 2) == 2

        leader = wait_for("a leader", lambda: leader_of(client, "noted"))
        ids = {node.id: node.name for node in client.cluster_status().nodes}
        killed = next(node for node in cluster.nodes if node.name == ids[leader])
        killed.kill()
        assert client.checkpoints("noted") == {"billing": {0: 4}}
        # The client knows the new leader by now: nothing is in doubt.
        late = client.producer("noted", fencing_token=1)
        with pytest.raises(StaleFencingToken):
            late.send(b"late")
        late.abort()
        killed.start()
        killed.wait_serving()

    for node in cluster.nodes:
        node.kill()
    for node in cluster.nodes:
        node.start()
    for node in cluster.nodes:
        node.wait_serving()
    with Client(*cluster.servers) as client:
        assert client.fencing_token("noted", 0) == 2
        with client.consumer("noted", checkpoint="billing", follow=False) as consumer:
            assert [record.offset for record in consumer] == list(range(4, 10))
            consumer.commit()
        assert client.checkpoints("noted") == {"billing": {0: 10}}
