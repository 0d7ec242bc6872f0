"""Nodes as processes of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.local_cluster import LocalCluster, NodeProcess, free_address
from faults.namespaces import Namespaces, NotPossible
from quorumlog import Client

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """Three nodes that serve; those that a test stopped are started again after it."""
    yield shared_cluster
    stopped = [node for node in shared_cluster.nodes if not node.running]
    for node in stopped:
        node.start()
    for node in stopped:
        node.wait_serving()


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(*cluster.servers) as client:
        yield client


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    directory = tmp_path_factory.mktemp("single")
    process = NodeProcess("single", directory, listen=free_address(), gossip=free_address())
    try:
        yield process
    finally:
        if process.running:
            process.kill()


@pytest.fixture
def node(shared_node: NodeProcess) -> NodeProcess:
    """A cluster of one node, serving: for all tests of a module, as the one before left it."""
    if not shared_node.running:
        shared_node.start()
        shared_node.wait_serving()
    return shared_node


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    """Three network namespaces; the test is skipped, with the reason, where there can be none."""
    try:
        with Namespaces(3) as namespaces:
            yield namespaces
    except NotPossible as why:
        pytest.skip(str(why))
