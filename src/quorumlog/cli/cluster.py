"""``quorumlog cluster``: status, settings, members, transfer; beside what changes who belongs."""

import dataclasses
from typing import TYPE_CHECKING

import click

from quorumlog.cli.cluster_changes import add, drain, move, remove
from quorumlog.cli.connect import CliContext, client_options, pass_context, with_client
from quorumlog.cli.member_views import difference, explanation, kind
from quorumlog.cli.output import local_time, plural, print_json, print_table

if TYPE_CHECKING:
    from quorumlog.client.client import AsyncClient
    from quorumlog.client.models import (
        ClusterInfo,
        ClusterSettings,
        NodeInfo,
        ReplacementInfo,
    )


@click.group()
def cluster() -> None:
    """Look at the cluster, change who belongs to it, move leaders and replicas."""


for each in (add, remove, drain, move):
    cluster.add_command(each)


@cluster.command()
@client_options
@pass_context
def status(context: CliContext) -> None:
    """Show the cluster's state and its nodes, as one of them knows it."""
    info = with_client(context, lambda client: client.cluster_status())
    if context.json:
        print_json(dataclasses.asdict(info))
        return
    leader = next((node.name for node in info.nodes if node.id == info.leader), info.leader)
    print(f"cluster {info.cluster_id}, metadata leader {leader or 'none'} (term {info.term})")
    led = info.partitions - info.partitions_without_leader
    print(
        f"{plural(info.topics, 'topic')}, {plural(info.partitions, 'partition')}, "
        f"{led:,} with a leader"
        + (f", {info.partitions_moving:,} moving" if info.partitions_moving else "")
    )
    _print_nodes(info)
    for node in info.nodes:
        if node.absent_since_ms:
            since = local_time(node.absent_since_ms)
            print(f"{node.name or node.id} has {node.presence}, and was last heard {since}")
        if node.replacement is not None:
            print(_replacement(node.name or node.id, node.replacement))


@cluster.command()
@click.option(
    "--replace-failed-after-s",
    metavar="SECONDS",
    type=int,
    help="Make the replicas of a node that is not heard for so long anew on others; 0: never.",
)
@client_options
@pass_context
def settings(context: CliContext, replace_failed_after_s: int | None) -> None:
    """Show what holds for the whole cluster, and change what is given."""

    async def work(client: "AsyncClient") -> "ClusterSettings":
        if replace_failed_after_s is None:
            return (await client.cluster_status()).settings
        return await client.alter_cluster(replace_failed_after_s=replace_failed_after_s)

    found = with_client(context, work)
    if context.json:
        print_json(dataclasses.asdict(found))
    else:
        print(f"replace_failed_after_s  {found.replace_failed_after_s or '0 (never)'}")


@cluster.command()
@client_options
@pass_context
def members(context: CliContext) -> None:
    """List the nodes as gossip sees them and as the metadata know them, and where they differ.

    Also who else is in the same gossip: Serf agents, nodes of other clusters or of none yet.
    """
    info = with_client(context, lambda client: client.cluster_status())
    if context.json:
        print_json(_members_as_json(info))
        return
    named = [node.rack for node in info.nodes] + [other.rack for other in info.others]
    racks = ["RACK"] if any(named) else []
    print_table(
        ["NODE", "GOSSIP", "METADATA", "ROLE", *racks, "ADDRESS", "DIFFERENCE", "ID"],
        [
            [
                node.name,
                node.state,
                _on_record(node),
                node.role or None,
                *(node.rack or None for _ in racks),
                node.address,
                difference(node, info),
                node.id,
            ]
            for node in info.nodes
        ]
        + [
            [
                other.name,
                other.state,
                None,
                None,
                *(other.rack or None for _ in racks),
                other.address or other.gossip,
                explanation(other, info),
                other.id or None,
            ]
            for other in info.others
        ],
    )


@cluster.command()
@click.argument("topic")
@click.argument("partition", type=click.IntRange(0))
@click.option("--to", "target", metavar="NODE", help="Name or id; the best follower if not given.")
@client_options
@pass_context
def transfer(context: CliContext, topic: str, partition: int, target: str | None) -> None:
    """Hand the leadership of a partition to another node."""
    leader, name = with_client(context, lambda client: _transfer(client, topic, partition, target))
    if context.json:
        print_json({"topic": topic, "partition": partition, "leader": leader})
    else:
        print(f"partition {partition} of {topic} is led by {name}")


async def _transfer(
    client: "AsyncClient", topic: str, partition: int, target: str | None
) -> tuple[str, str]:
    """The new leader's id and name."""
    nodes = (await client.cluster_status()).nodes
    if target is not None:
        target = next((node.id for node in nodes if target in (node.id, node.name)), None)
        if target is None:
            known = ", ".join(node.name or node.id for node in nodes)
            raise click.UsageError(f"there is no such node; there are {known}")
    leader = await client.transfer_leadership(topic, partition, target)
    return leader, next((node.name for node in nodes if node.id == leader), "") or leader


def _members_as_json(info: "ClusterInfo") -> list[dict[str, object]]:
    """The nodes, then the others; of all ``kind`` and ``difference``."""
    nodes = [
        dataclasses.asdict(node) | {"kind": "node", "difference": difference(node, info)}
        for node in info.nodes
    ]
    others = [
        dataclasses.asdict(other)
        | {"kind": kind(other, info), "difference": explanation(other, info)}
        for other in info.others
    ]
    return nodes + others


def _on_record(node: "NodeInfo") -> str | None:
    """What the metadata say of ``node``."""
    if node.presence in ("", "present"):
        return node.standing or None
    return f"{node.standing}, {node.presence}"


def _replacement(name: str, found: "ReplacementInfo") -> str:
    """What is done about a node that the metadata's leader does not hear."""
    line = f"{name} was not heard for {found.silent_s:.0f} s"
    if found.stage == "counting":
        return f"{line}; its replicas are made anew elsewhere in {found.remaining_s:.0f} s"
    left = plural(found.partitions, "partition")
    if found.stage == "refused" and not found.partitions:
        return f"{line} and keeps its vote: {found.reason}"
    if found.stage == "moving":
        also = f"; not all: {found.reason}" if found.reason else ""
        return f"{line} and is being replaced, {left} to go{also}"
    if found.stage == "replaced":
        return f"{line} and holds nothing any more; back again, it is a spare"
    return f"{line} and is not replaced, {left} on it: {found.reason}"


def _print_nodes(info: "ClusterInfo") -> None:
    racks = ["RACK"] if any(node.rack for node in info.nodes) else []
    print_table(
        [
            *("NODE", "ADDRESS", "ROLE", "STATE", "STANDING"),
            *racks,
            *("LEADS", "REPLICAS", "VERSION", "ID"),
        ],
        [
            [
                node.name,
                node.address,
                node.role,
                node.state,
                node.standing or None,
                *(node.rack or None for _ in racks),
                node.leads,
                node.replicas,
                node.version,
                node.id,
            ]
            for node in info.nodes
        ],
    )
