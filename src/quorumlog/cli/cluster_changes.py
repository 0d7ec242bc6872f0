"""``quorumlog cluster add|remove|drain|move``: who belongs to the cluster, and what lies where."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import click

from quorumlog.cli.connect import CliContext, client_options, pass_context, with_client
from quorumlog.cli.output import plural, print_json

if TYPE_CHECKING:
    from quorumlog.client.client import AsyncClient
    from quorumlog.client.models import ClusterInfo

_LOOK_S: Final = 0.5
_MAX_NAMED: Final = 5
_FOLLOW: Final = "`quorumlog cluster status` shows how far it is"

wait_option = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Return when it is done, at most so long. [default: when it is decided]",
)


@click.command()
@click.argument("node")
@wait_option
@client_options
@pass_context
def add(context: CliContext, node: str, wait_s: float) -> None:
    """Let NODE (name or id) vote on the cluster's metadata.

    Nodes that join hold partitions, and follow the metadata; the first ones vote on them. An odd
    number of voters is best: of 3 one may fail, of 4 one as well, of 5 two.
    """

    async def work(client: "AsyncClient") -> tuple[str, ...]:
        voters = await client.add_voter(node)
        await _wait(client, wait_s, lambda info: voters_of(info) == set(voters))
        return voters

    voters = with_client(context, work)
    if context.json:
        print_json({"node": node, "voters": voters})
        return
    print(f"{node} votes on the cluster's metadata, with {plural(len(voters), 'voter')} in all")
    if len(voters) % 2 == 0:
        print("an even number of voters survives no more failures than one less: add another one")


@click.command()
@click.argument("node")
@click.option(
    "--replace",
    "replacement",
    metavar="NODE",
    help="The node that takes its places. [default: those that hold least]",
)
@wait_option
@client_options
@pass_context
def remove(context: CliContext, node: str, replacement: str | None, wait_s: float) -> None:
    """Take NODE (name or id) out of the cluster for good, dead or alive.

    What it holds moves to others first, so nothing has fewer replicas meanwhile than now. Its data
    directory belongs to nobody then: to come back, it starts with an empty one, as a new node.
    `cluster drain --undo` takes it back while the node is still listed.
    """

    async def work(client: "AsyncClient") -> int:
        before = await client.cluster_status()
        found = {each.id for each in before.nodes if node in (each.id, each.name)}
        moving = await client.remove_node(node, replacement)
        await _wait(
            client,
            wait_s,
            lambda info: not found & {n.id for n in info.nodes if n.standing != "removed"},
        )
        return moving

    moving = with_client(context, work)
    if context.json:
        print_json({"node": node, "replacement": replacement, "moving": moving})
    elif wait_s:
        print(f"{node} is removed, {plural(moving, 'partition')} moved")
    else:
        print(f"{node} is being removed, {plural(moving, 'partition')} to move; {_FOLLOW}")


@click.command()
@click.argument("node")
@click.option("--replicas", is_flag=True, help="Move its replicas to other nodes, too.")
@click.option("--undo", is_flag=True, help="Let it lead and take replicas again.")
@wait_option
@client_options
@pass_context
def drain(context: CliContext, node: str, replicas: bool, undo: bool, wait_s: float) -> None:
    """Keep leaderships, and new replicas, off NODE (name or id), before work on its machine."""
    if undo and replicas:
        raise click.UsageError("--undo moves no replicas back: leave --replicas out")

    async def work(client: "AsyncClient") -> tuple[int, list[str]]:
        moving = await client.drain_node(node, undo=undo, replicas=replicas)
        alone = [] if undo or replicas else await _only_on(client, node)

        def is_done(info: "ClusterInfo") -> bool:
            drained = [each for each in info.nodes if node in (each.id, each.name)]
            return undo or all(
                each.leads <= len(alone) and not (replicas and each.replicas) for each in drained
            )

        await _wait(client, wait_s, is_done)
        return moving, alone

    moving, alone = with_client(context, work)
    if context.json:
        print_json({"node": node, "undo": undo, "moving": moving, "only_there": alone})
    elif undo:
        print(f"{node} may lead and take replicas again")
    else:
        what = f"; {plural(moving, 'partition')} to move" if replicas else ""
        print(f"{node} gives its leaderships away{what}; `cluster drain {node} --undo` ends that")
        if alone:
            print(
                f"{plural(len(alone), 'partition')} cannot be served without it, having no other "
                f"replica: {', '.join(alone[:_MAX_NAMED])}{', …' * (len(alone) > _MAX_NAMED)}"
            )


@click.command()
@click.argument("topic")
@click.argument("partition", type=click.IntRange(0))
@click.option(
    "--to",
    "targets",
    required=True,
    metavar="NODE,NODE…",
    help="Names or ids; the first one leads, when it can.",
)
@wait_option
@client_options
@pass_context
def move(context: CliContext, topic: str, partition: int, targets: str, wait_s: float) -> None:
    """Have the replicas of a partition on other nodes.

    New ones catch up first; then the partition changes over in one step, without a pause.
    """
    nodes = [name for name in map(str.strip, targets.split(",")) if name]

    async def work(client: "AsyncClient") -> None:
        await client.assign_replicas(topic, partition, nodes)

        async def is_moved() -> bool:
            return not (await client.describe_topic(topic)).partitions[partition].wanted

        await _wait_for(wait_s, is_moved)

    with_client(context, work)
    if context.json:
        print_json({"topic": topic, "partition": partition, "replicas": nodes})
    else:
        verb = "is on" if wait_s else "moves to"
        print(f"partition {partition} of {topic} {verb} {', '.join(nodes)}")


async def _only_on(client: "AsyncClient", node: str) -> list[str]:
    """The partitions whose only replica is on ``node``: nobody else can lead them."""
    nodes = (await client.cluster_status()).nodes
    drained = {each.id for each in nodes if node in (each.id, each.name)}
    return [
        f"{topic.name}/{each.partition}"
        for topic in await client.list_topics()
        for each in topic.partitions
        if set(each.replicas) <= drained
    ]


def voters_of(info: "ClusterInfo") -> set[str]:
    return {node.id for node in info.nodes if node.role == "voter"}


async def _wait(
    client: "AsyncClient", wait_s: float, is_done: "Callable[[ClusterInfo], bool]"
) -> None:
    async def look() -> bool:
        return is_done(await client.cluster_status())

    await _wait_for(wait_s, look)


async def _wait_for(wait_s: float, is_done: Callable[[], Awaitable[Any]]) -> None:
    """Look now and then. Raises Unavailable when the time is over: it goes on all the same."""
    from quorumlog.errors import Unavailable

    if not wait_s:
        return
    try:
        async with asyncio.timeout(wait_s):
            while True:
                if await is_done():
                    return
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise Unavailable(f"not done within {wait_s:g} s; it goes on: {_FOLLOW}") from None
