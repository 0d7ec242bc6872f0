"""A cluster of real processes on this machine, for the demo, the benchmarks and the tests.

::

    with LocalCluster(Path("data"), nodes=3) as cluster:
        cluster.nodes[0].kill()
        cluster.nodes[0].start()
"""

from examples.local_cluster.cluster import LocalCluster, Place
from examples.local_cluster.health import serves
from examples.local_cluster.node_process import NodeFailed, NodeProcess, clean_environment
from examples.local_cluster.ports import free_address

__all__ = [
    "LocalCluster",
    "NodeFailed",
    "NodeProcess",
    "Place",
    "clean_environment",
    "free_address",
    "serves",
]
