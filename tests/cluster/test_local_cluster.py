"""The process manager that the demo, the benchmarks and these tests share."""

from pathlib import Path

import pytest

from examples.local_cluster import LocalCluster, NodeFailed, NodeProcess, free_address, serves


def test_no_process_is_left_when_the_block_fails(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path, nodes=1)
    with pytest.raises(ZeroDivisionError), cluster:
        1 / int(not serves(cluster.nodes[0].listen))
    assert not cluster.nodes[0].running
    assert not serves(cluster.nodes[0].listen)


def test_no_process_is_left_when_one_of_them_cannot_start(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path, nodes=2)
    cluster.nodes[1].data.parent.mkdir()
    cluster.nodes[1].data.write_text("in the way")
    with pytest.raises(NodeFailed, match=r"node-2 ended.*--data-dir"), cluster:
        pass
    assert not any(node.running for node in cluster.nodes)


def test_a_node_that_ends_early_is_reported_with_its_last_words(tmp_path: Path) -> None:
    node = NodeProcess(
        "misled",
        tmp_path,
        listen=free_address(),
        gossip=free_address(),
        environment={"QUORUMLOG_SEGMENT_BYTES": "12"},
    )
    node.start()
    with pytest.raises(NodeFailed, match=r"exit code 2: .*segment_bytes"):
        node.wait_serving()
