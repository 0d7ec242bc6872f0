"""A node that lost the list of its groups, in a whole cluster in virtual time: it opens what is
new, whenever that was given out, and nothing that it may have had."""

import asyncio
from collections.abc import Sequence

from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.replication.group_list import list_path_of
from quorumlog.types import GroupId, NodeId
from sim.node import DATA_DIRECTORY, SimNode
from support.moving_cluster import MovingCluster

NODE = NodeId("n3")
ALL = ("n1", "n2", "n3")


async def given_out(cluster: MovingCluster, name: str, nodes: Sequence[str] = ALL) -> GroupId:
    """A new topic with its only partition on ``nodes``."""
    create = pb.CreateTopic(name=name, partitions=1, replicas=len(nodes), candidates=nodes)
    await cluster.order(pb.Command(create_topic=create))
    await cluster.until(lambda: cluster.metadata.has_topic(name))
    return cluster.metadata.partition(name, 0).group


async def without_list(cluster: MovingCluster) -> SimNode:
    """The node, down, with its list gone."""
    node = cluster.nodes[NODE]
    cluster.crash(node)
    await cluster.until(lambda: not node.up)
    node.disk.remove(list_path_of(DATA_DIRECTORY))
    return node


def has_open(node: SimNode, group: GroupId) -> bool:
    return node.up and node.host is not None and group in node.host.replicas


def test_a_group_that_was_given_out_while_it_was_down_is_opened() -> None:
    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start(*ALL)
        node = await without_list(cluster)
        group = await given_out(cluster, "u")
        cluster.restart(node)
        await cluster.until(lambda: has_open(node, group))
        await cluster.until_whole()

    MovingCluster(3).run(scenario)


def test_a_group_that_was_given_out_between_its_start_and_catching_up_is_opened() -> None:
    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start(*ALL)
        node = await without_list(cluster)
        await asyncio.sleep(1.0)
        cluster.isolate(node, for_s=4.0)
        cluster.restart(node)
        await cluster.until(lambda: node.ready)
        group = await given_out(cluster, "u")
        assert not has_open(node, group)
        await cluster.until(lambda: has_open(node, group))
        # And with the list as it is now again.
        cluster.crash(node)
        cluster.restart(node, 1.0)
        await cluster.until(lambda: not node.up)
        await cluster.until(lambda: has_open(node, group))
        await cluster.until_whole()

    MovingCluster(3).run(scenario)


def test_a_group_that_it_may_have_had_stays_closed_to_the_last_one() -> None:
    """Of what is given out its own log has the command, committed or not known to be."""

    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start(*ALL)
        node = cluster.nodes[NODE]
        group = await given_out(cluster, "u")
        await cluster.until(lambda: has_open(node, group))
        await without_list(cluster)
        node.disk.remove_directory(f"{DATA_DIRECTORY}/{group}")
        node.disk.sync_directory(DATA_DIRECTORY)
        node.was_rotten = True
        new = await given_out(cluster, "v")
        cluster.restart(node)
        await cluster.until(lambda: has_open(node, new))
        await asyncio.sleep(5.0)
        assert not has_open(node, group)
        assert not node.disk.exists(f"{DATA_DIRECTORY}/{group}")
        # Nor with a list that says what it may lack.
        cluster.crash(node)
        cluster.restart(node, 1.0)
        await cluster.until(lambda: not node.up)
        await cluster.until(lambda: has_open(node, new))
        await asyncio.sleep(5.0)
        assert not has_open(node, group)

    MovingCluster(3).run(scenario)


def test_without_the_metadatas_log_it_opens_what_is_given_out_once_it_knows_all() -> None:
    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start(*ALL)
        node = await without_list(cluster)
        log = max(n for n in node.disk.list_directory(f"{DATA_DIRECTORY}/0") if ".log" in n)
        node.disk.flip_bit(f"{DATA_DIRECTORY}/0/{log}", 0, 1)
        node.was_rotten = True
        early = await given_out(cluster, "u")
        cluster.restart(node)
        await cluster.until(lambda: has_open(node, cluster.group))
        await asyncio.sleep(5.0)
        # It may have had it: nothing here says that it has not.
        assert not has_open(node, early)
        late = await given_out(cluster, "v")
        await cluster.until(lambda: has_open(node, late))

    MovingCluster(3).run(scenario)
