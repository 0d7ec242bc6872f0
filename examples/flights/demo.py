"""The story: start three nodes, load a year of flights, kill a leader, replay, check."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console

from examples.flights.check import ReplayCheck, Verdict
from examples.flights.dataset import Flight
from examples.flights.display import progress, say, summary
from examples.flights.load import Acknowledgements, load
from examples.flights.outage import Outage, kill_leader
from examples.local_cluster import LocalCluster
from quorumlog import AsyncClient

TOPIC: Final = "flights"
PARTITIONS: Final = 3
REPLICAS: Final = 3

_REFRESH_S: Final = 0.1


@dataclass(frozen=True)
class Outcome:
    load_s: float
    replay_s: float
    outage: Outage
    verdict: Verdict


async def run_demo(cluster: LocalCluster, flights: Sequence[Flight], console: Console) -> bool:
    """The whole demo on a cluster that serves; whether every record came back as it was sent."""
    async with AsyncClient(*cluster.servers) as client:
        await client.create_topic(TOPIC, partitions=PARTITIONS, replicas=REPLICAS)
        say(
            console, "topic", f"{TOPIC}: {PARTITIONS} partitions, {REPLICAS} replicas, fsync always"
        )
        load_s, outage = await _load_through_outage(client, cluster, flights, console)
        started = time.monotonic()
        verdict = await _replay(client, flights, console)
        outcome = Outcome(load_s, time.monotonic() - started, outage, verdict)
    for finding in verdict.examples:
        say(console, "check", finding)
    summary(console, _figures(outcome), verdict.passed)
    return verdict.passed


async def _load_through_outage(
    client: AsyncClient, cluster: LocalCluster, flights: Sequence[Flight], console: Console
) -> tuple[float, Outage]:
    """Produce all flights while a leader dies half way; seconds of the load, and the outage."""
    acknowledgements = Acknowledgements()
    with progress(console, "produce", len(flights)) as show:
        async with asyncio.TaskGroup() as tasks:
            bar = tasks.create_task(_keep_showing(show, acknowledgements))
            loading = tasks.create_task(load(client, TOPIC, flights, acknowledgements))
            await acknowledgements.reached(len(flights) // 2)
            outage = await kill_leader(client, TOPIC, cluster, acknowledgements)
            partitions = ", ".join(map(str, sorted(outage.partitions)))
            say(
                console,
                "outage",
                f"killed {outage.node.name}, leader of partition {partitions}; "
                f"a new leader acknowledged after {outage.without_leader_s:.2f} s",
            )
            outage.node.start()
            await loading
            bar.cancel()
        show(acknowledgements.count)
    await asyncio.to_thread(outage.node.wait_serving)
    say(console, "outage", f"{outage.node.name} is back")
    return loading.result(), outage


async def _replay(client: AsyncClient, flights: Sequence[Flight], console: Console) -> Verdict:
    """Read every partition from offset 0 to its end."""
    check = ReplayCheck(flights)
    done = 0
    with progress(console, "replay", len(flights)) as show:
        async with client.consumer(TOPIC, start="earliest", follow=False) as consumer:
            async for batch in consumer.batches():
                check.add(batch.partition, batch.records())
                done += batch.record_count
                show(done)
    return check.finish()


async def _keep_showing(show: Callable[[int], None], acknowledgements: Acknowledgements) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            show(acknowledgements.count)
            await asyncio.sleep(_REFRESH_S)


def _figures(outcome: Outcome) -> dict[str, str]:
    verdict = outcome.verdict
    megabytes = verdict.size_bytes / 1e6

    def speed(seconds: float) -> str:
        return f"{verdict.records / seconds:,.0f} records/s, {megabytes / seconds:,.1f} MB/s"

    return {
        "records": f"{verdict.records:,}",
        "keys and values": f"{megabytes:,.1f} MB",
        "produce, the outage included": speed(outcome.load_s),
        "replay and check": speed(outcome.replay_s),
        "time without a leader": f"{outcome.outage.without_leader_s:.2f} s",
        "lost": f"{verdict.lost:,}",
        "doubled": f"{verdict.doubled:,}",
        "damaged": f"{verdict.damaged:,}",
        "out of order": f"{verdict.misplaced:,}",
    }
