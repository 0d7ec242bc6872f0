"""``quorumlog topic``: create, list, describe, alter, delete."""

import asyncio
import dataclasses
import sys
from typing import TYPE_CHECKING

import click

from quorumlog.cli.connect import CliContext, client_options, pass_context, with_client
from quorumlog.cli.output import plural, print_json, print_table
from quorumlog.errors import QuorumlogError

if TYPE_CHECKING:
    from quorumlog.client.client import AsyncClient
    from quorumlog.client.models import TopicInfo

EXACT_OFFSETS_TIMEOUT_S = 3.0

fsync_choice = click.Choice(["always", "interval"])


@click.group()
def topic() -> None:
    """Create, show, change and delete topics."""


@topic.command()
@click.argument("name")
@click.option("--partitions", type=click.IntRange(1, 10_000), default=1, show_default=True)
@click.option(
    "--replicas",
    type=click.IntRange(1),
    help="Nodes that hold each partition. [default: 3, or the number of nodes when fewer]",
)
@click.option(
    "--fsync",
    type=fsync_choice,
    default="always",
    show_default=True,
    help="always: acknowledged records are on the disks of a majority; interval: in their memory.",
)
@click.option("--if-not-exists", is_flag=True, help="It is fine when the topic exists.")
@client_options
@pass_context
def create(
    context: CliContext,
    name: str,
    partitions: int,
    replicas: int | None,
    fsync: str,
    if_not_exists: bool,
) -> None:
    """Create a topic."""
    made = with_client(
        context,
        lambda client: client.create_topic(
            name, partitions, replicas or 0, fsync, exist_ok=if_not_exists
        ),
    )
    _print_topic(context, made)


@topic.command("list")
@client_options
@pass_context
def list_topics(context: CliContext) -> None:
    """List all topics."""
    topics = with_client(context, lambda client: client.list_topics())
    if context.json:
        print_json([dataclasses.asdict(item) for item in topics])
        return
    print_table(
        ["TOPIC", "PARTITIONS", "REPLICAS", "FSYNC"],
        [[item.name, len(item.partitions), item.replicas, item.fsync] for item in topics],
    )


@topic.command()
@click.argument("name")
@client_options
@pass_context
def describe(context: CliContext, name: str) -> None:
    """Show a topic's partitions: leader, replicas, offsets."""
    described, names = with_client(context, lambda client: _describe(client, name))
    if context.json:
        print_json(dataclasses.asdict(described))
        return
    print(_headline(described))
    print_table(
        ["PARTITION", "LEADER", "REPLICAS", "TERM", "START", "END"],
        [
            [
                item.partition,
                names.get(item.leader, item.leader) if item.leader else None,
                ",".join(names.get(replica, replica) for replica in item.replicas),
                item.term,
                item.log_start_offset,
                # What a node that does not lead knows may be behind.
                item.high_watermark if item.exact else f">={item.high_watermark}",
            ]
            for item in described.partitions
        ],
    )


async def _describe(client: "AsyncClient", name: str) -> "tuple[TopicInfo, dict[str, str]]":
    """The topic, its offsets as the leaders know them where these answer, and the nodes' names."""
    described = await client.describe_topic(name)
    status = await client.cluster_status()
    names = {node.id: node.name for node in status.nodes if node.name}
    if all(item.exact for item in described.partitions):
        return described, names
    try:
        async with asyncio.timeout(EXACT_OFFSETS_TIMEOUT_S):
            ranges = await client.offsets(name)
    except (QuorumlogError, TimeoutError):
        return described, names
    partitions = tuple(
        dataclasses.replace(
            item,
            log_start_offset=ranges[item.partition].start,
            high_watermark=ranges[item.partition].end,
            exact=True,
        )
        if item.partition in ranges
        else item
        for item in described.partitions
    )
    return dataclasses.replace(described, partitions=partitions), names


@topic.command()
@click.argument("name")
@click.option("--partitions", type=click.IntRange(1, 10_000), help="More than there are now.")
@click.option("--fsync", type=fsync_choice)
@client_options
@pass_context
def alter(context: CliContext, name: str, partitions: int | None, fsync: str | None) -> None:
    """Change a topic's settings, or add partitions.

    New partitions move keys: a record's partition is its key modulo their number.
    """
    if partitions is None and fsync is None:
        raise click.UsageError("nothing to change: give --partitions or --fsync")
    altered = with_client(context, lambda client: client.alter_topic(name, partitions, fsync))
    _print_topic(context, altered)


@topic.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@client_options
@pass_context
def delete(context: CliContext, name: str, yes: bool) -> None:
    """Delete a topic and all of its records, for good."""
    if not yes and sys.stdin.isatty():
        click.confirm(f"Delete topic {name} and all of its records for good?", abort=True, err=True)
    with_client(context, lambda client: client.delete_topic(name))
    if context.json:
        print_json({"deleted": name})
    else:
        print(f"topic {name} is deleted")


def _print_topic(context: CliContext, item: "TopicInfo") -> None:
    if context.json:
        print_json(dataclasses.asdict(item))
        return
    print(_headline(item))


def _headline(item: "TopicInfo") -> str:
    partitions = plural(len(item.partitions), "partition")
    replicas = plural(item.replicas, "replica")
    return f"topic {item.name}: {partitions}, {replicas}, fsync {item.fsync}"
