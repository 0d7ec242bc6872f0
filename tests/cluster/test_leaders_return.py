"""Leaders of many partitions when a node dies and comes back."""

from collections import Counter
from pathlib import Path

from examples.local_cluster import LocalCluster
from quorumlog import Client
from support.waiting import wait_for

PARTITIONS = 30


def test_a_node_that_was_killed_leads_again_what_it_led_before(tmp_path: Path) -> None:
    environment = {"QUORUMLOG_LEADER_RETURN_MS": "500"}
    with (
        LocalCluster(tmp_path, environment=environment) as cluster,
        Client(*cluster.servers) as client,
    ):
        client.create_topic("t", partitions=PARTITIONS, replicas=3)

        def leaders() -> list[str | None]:
            return [partition.leader for partition in client.describe_topic("t").partitions]

        preferred = [part.replicas[0] for part in client.describe_topic("t").partitions]
        assert set(Counter(preferred).values()) == {PARTITIONS // 3}
        wait_for("the first leaders", lambda: leaders() == preferred)
        victim = cluster.nodes[2]
        nodes = client.cluster_status().nodes
        victim_id = next(node.id for node in nodes if node.address == victim.listen)

        victim.kill()
        wait_for("other leaders", lambda: None not in (now := leaders()) and victim_id not in now)
        victim.start()

        wait_for("the leaders as before", lambda: leaders() == preferred)
