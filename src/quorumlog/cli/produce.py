"""``quorumlog produce``: a record a line."""

import asyncio
from typing import TYPE_CHECKING, BinaryIO

import click

from quorumlog.cli.connect import (
    CliContext,
    Interrupted,
    client_options,
    pass_context,
    with_client,
)
from quorumlog.cli.lines import LineReader
from quorumlog.cli.output import print_error, print_json
from quorumlog.cli.progress import Progress, Tally
from quorumlog.errors import InvalidArgument, QuorumlogError
from quorumlog.types import RecordData

if TYPE_CHECKING:
    from quorumlog.client.client import AsyncClient
    from quorumlog.client.producer import Producer

LAST_ANSWERS_S = 2.0
"""After Ctrl-C acknowledgements that are under way are waited for so long: then what is said of
them is exact."""


@click.command()
@click.argument("topic")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--key-sep", metavar="S", help="A line is KEY S VALUE, cut at the first S.")
@click.option("--partition", type=click.IntRange(0), help="All records go there.")
@click.option(
    "--compression", type=click.Choice(["zstd"]), help="Compress every batch, where that helps."
)
@client_options
@pass_context
def produce(
    context: CliContext,
    topic: str,
    file: BinaryIO,
    key_sep: str | None,
    partition: int | None,
    compression: str | None,
) -> int:
    """Append every line of FILE (or stdin) to TOPIC as a record, without its newline.

    Each line is stored exactly once, whatever happens to a node meanwhile. When it fails or is
    interrupted, it says how many lines are acknowledged.
    """
    if key_sep == "":
        raise click.BadParameter("it is empty", param_hint="--key-sep")
    tally = Tally()

    async def work(client: "AsyncClient") -> None:
        producer = client.producer(topic, compression=compression)
        await _produce(producer, LineReader(file), key_sep, partition, tally)

    try:
        with_client(context, work)
    except Interrupted:
        _report_failure(context, tally, "interrupted", "INTERRUPTED")
        return 130
    except (QuorumlogError, OSError) as error:
        reason = error.reason if isinstance(error, QuorumlogError) else "OS_ERROR"
        _report_failure(context, tally, str(error), reason)
        return 1
    if context.json:
        print_json({"topic": topic, **tally.summary()})
        return 0
    print(f"{tally.acknowledged:,} records acknowledged in topic {topic}")
    for number, offset in sorted(tally.last_offsets.items()):
        print(f"partition {number}: last offset {'unknown' if offset is None else offset}")
    return 0


async def _produce(
    producer: "Producer",
    reader: LineReader,
    key_sep: str | None,
    partition: int | None,
    tally: Tally,
) -> None:
    """Send all lines; ``tally`` knows at any time what is acknowledged. Ends the producer."""
    separator = key_sep.encode() if key_sep is not None else None
    try:
        with Progress(tally):
            while tally.error is None and (lines := await reader.next_lines()) is not None:
                records = _records(lines, separator, tally.lines_read)
                tally.begin(len(lines))
                async for run in producer.submit_runs(records, partition=partition):
                    tally.queued(run.positions, run.acknowledged)
                # Queueing need not wait for anything; the network has to have its turn all the
                # same.
                await asyncio.sleep(0)
            await tally.settle()
    except asyncio.CancelledError:
        try:
            async with asyncio.timeout(LAST_ANSWERS_S):
                await tally.settle()
        except TimeoutError:
            pass
        raise
    finally:
        reader.stop()
        producer.abort()
    if tally.error is not None:
        raise tally.error


def _records(
    lines: list[bytes], separator: bytes | None, lines_before: int
) -> list[bytes | RecordData]:
    """What to send for ``lines``.

    Raises:
        InvalidArgument: a line without separator; it is named, counted from 1.
    """
    if separator is None:
        return list(lines)
    records: list[bytes | RecordData] = []
    for number, line in enumerate(lines, lines_before + 1):
        key, found, value = line.partition(separator)
        if not found:
            raise InvalidArgument(f"line {number} has no key separator {separator.decode()!r}")
        records.append(RecordData(value, key))
    return records


def _report_failure(context: CliContext, tally: Tally, why: str, reason: str) -> None:
    print_error(f"{why}; {tally.sentence()}", reason, tally.summary(), context.json)
