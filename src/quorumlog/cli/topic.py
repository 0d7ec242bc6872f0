"""``quorumlog topic``: create, list, describe, alter, delete, trim."""

import asyncio
import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from quorumlog.cli.connect import CliContext, client_options, pass_context, with_client
from quorumlog.cli.output import plural, print_json, print_table
from quorumlog.errors import QuorumlogError

if TYPE_CHECKING:
    from quorumlog.client.client import AsyncClient
    from quorumlog.client.models import PartitionInfo, TopicInfo

EXACT_OFFSETS_TIMEOUT_S = 3.0

fsync_choice = click.Choice(["always", "interval"])
Command = TypeVar("Command", bound=Callable[..., Any])

_LIMIT = click.IntRange(-1, 2**63 - 1)
_KEPT_OPTIONS = (
    click.option(
        "--retention-ms",
        type=_LIMIT,
        metavar="MS",
        help="Records of the last MS milliseconds stay, older segments are deleted; -1: no limit.",
    ),
    click.option(
        "--retention-bytes",
        type=_LIMIT,
        metavar="BYTES",
        help="The newest BYTES of each partition stay; -1: no limit.",
    ),
    click.option(
        "--retention-records",
        type=_LIMIT,
        metavar="N",
        help="The newest N records of each partition stay; -1: no limit.",
    ),
    click.option(
        "--segment-bytes",
        type=_LIMIT,
        metavar="BYTES",
        help="Size of a file, and of what is deleted at once; -1: what the nodes are set to.",
    ),
    click.option(
        "--cleanup",
        type=click.Choice(["delete", "compact"]),
        help="What becomes of old records. Only delete works so far.",
    ),
)


def kept_options(command: Command) -> Command:
    """Add the options that say how long records stay, and in which files."""
    for option in reversed(_KEPT_OPTIONS):
        command = option(command)
    return command


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
@kept_options
@click.option("--if-not-exists", is_flag=True, help="It is fine when the topic exists.")
@client_options
@pass_context
def create(
    context: CliContext,
    /,
    name: str,
    partitions: int,
    replicas: int | None,
    fsync: str,
    if_not_exists: bool,
    **kept: Any,
) -> None:
    """Create a topic."""
    made = with_client(
        context,
        lambda client: client.create_topic(
            name, partitions, replicas or 0, fsync, exist_ok=if_not_exists, **kept
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
        ["TOPIC", "PARTITIONS", "REPLICAS", "FSYNC", "RETENTION"],
        [
            [item.name, len(item.partitions), item.replicas, item.fsync, _retention(item)]
            for item in topics
        ],
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
                _replicas(item, names),
                item.term,
                item.log_start_offset,
                # What a node that does not lead knows may be behind.
                item.high_watermark if item.exact else f">={item.high_watermark}",
            ]
            for item in described.partitions
        ],
    )


def _replicas(partition: "PartitionInfo", names: dict[str, str]) -> str:
    """Where they are, and where they are moving to."""
    shown = [
        ",".join(names.get(node, node) for node in nodes)
        for nodes in (partition.replicas, partition.wanted)
        if nodes
    ]
    return " > ".join(shown)


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
@click.option("--replicas", type=click.IntRange(1), help="Nodes that hold each partition.")
@click.option("--fsync", type=fsync_choice)
@kept_options
@client_options
@pass_context
def alter(
    context: CliContext,
    /,
    name: str,
    partitions: int | None,
    replicas: int | None,
    fsync: str | None,
    **kept: Any,
) -> None:
    """Change a topic's settings, add partitions, have more or fewer replicas.

    New partitions move keys: a record's partition is its key modulo their number. Replicas are
    made and taken away in the background; `topic describe` shows how far that is.
    """
    if all(value is None for value in (partitions, replicas, fsync, *kept.values())):
        raise click.UsageError(
            "nothing to change: give --partitions or --fsync, --replicas, a --retention or "
            "--segment-bytes"
        )
    altered = with_client(
        context,
        lambda client: client.alter_topic(name, partitions, fsync, replicas=replicas, **kept),
    )
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


@topic.command()
@click.argument("name")
@click.option("--partition", type=click.IntRange(0), required=True)
@click.option(
    "--before",
    type=click.IntRange(0, 2**63 - 1),
    required=True,
    metavar="OFFSET",
    help="The first offset that stays; at most the END that `topic describe` shows.",
)
@client_options
@pass_context
def trim(context: CliContext, name: str, partition: int, before: int) -> None:
    """Delete the records of a partition before an offset, for good."""
    start = with_client(context, lambda client: client.delete_before(name, partition, before))
    if context.json:
        print_json({"topic": name, "partition": partition, "log_start_offset": start})
    else:
        print(f"topic {name}, partition {partition} begins at offset {start}")


def _print_topic(context: CliContext, item: "TopicInfo") -> None:
    if context.json:
        print_json(dataclasses.asdict(item))
        return
    print(_headline(item))


def _headline(item: "TopicInfo") -> str:
    partitions = plural(len(item.partitions), "partition")
    replicas = plural(item.replicas, "replica")
    headline = f"topic {item.name}: {partitions}, {replicas}, fsync {item.fsync}"
    if item.segment_bytes != -1:
        headline += f", segments of {item.segment_bytes} bytes"
    retention = _retention(item)
    return headline if retention is None else f"{headline}, keeps {retention}"


def _retention(item: "TopicInfo") -> str | None:
    """The limits of ``item``; None where there are none."""
    limits = (
        (item.retention_ms, "ms"),
        (item.retention_bytes, "bytes"),
        (item.retention_records, "records"),
    )
    return " / ".join(f"{limit} {unit}" for limit, unit in limits if limit != -1) or None
