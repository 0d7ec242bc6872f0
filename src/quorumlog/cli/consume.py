"""``quorumlog consume``: records to stdout."""

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from quorumlog.cli.connect import CliContext, client_options, pass_context, with_client
from quorumlog.cli.output import text_or_base64

if TYPE_CHECKING:
    from quorumlog.client.client import AsyncClient
    from quorumlog.client.consumed import ConsumedBatch
    from quorumlog.client.models import ConsumedRecord
    from quorumlog.client.starts import Start


_MAX_OFFSET_DIGITS: Final = 19


def parse_start(context: click.Context, parameter: click.Parameter, value: str) -> "Start":
    """``earliest``, ``latest``, an offset, or a time in ISO 8601 (local where it has no zone)."""
    if value == "earliest":
        return "earliest"
    if value == "latest":
        return "latest"
    # No offset is longer, and Python refuses to read numbers of thousands of digits.
    if value.isascii() and value.isdigit() and len(value) <= _MAX_OFFSET_DIGITS:
        return int(value)
    try:
        return datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError):  # the last day of all, west of where it began
        raise click.BadParameter(
            f"{value!r} is not earliest, latest, an offset, or a time like 2026-01-31T12:00Z"
        ) from None


@click.command()
@click.argument("topic")
@click.option(
    "--from",
    "start",
    callback=parse_start,
    default="earliest",
    show_default=True,
    metavar="earliest|latest|OFFSET|TIME",
    help="Where to begin, in every partition.",
)
@click.option("--partition", type=click.IntRange(0), multiple=True, help="Only this; repeatable.")
@click.option("--count", type=click.IntRange(1), help="End after so many, wait until they came.")
@click.option("--follow", is_flag=True, help="Wait for new records instead of ending.")
@click.option(
    "--output",
    type=click.Choice(["value", "json", "raw"]),
    default="value",
    show_default=True,
    help="value: a line each; json: an object a line; raw: the values' bytes and nothing else.",
)
@client_options
@pass_context
def consume(
    context: CliContext,
    topic: str,
    start: "Start",
    partition: tuple[int, ...],
    count: int | None,
    follow: bool,
    output: str,
) -> None:
    """Print the records of TOPIC.

    Records of one partition come in order. Without --follow and --count it ends at the end of the
    log.
    """

    async def work(client: "AsyncClient") -> None:
        consumer = client.consumer(
            topic,
            partitions=partition or None,
            start=start,
            follow=follow or count is not None,
        )
        out = sys.stdout.buffer
        left = count
        async with consumer:
            async for batch in consumer.batches():
                written = _write(out, batch, "json" if context.json else output, left)
                out.flush()
                if left is not None:
                    left -= written
                    if left == 0:
                        return

    with_client(context, work)


def _write(out: BinaryIO, batch: "ConsumedBatch", output: str, limit: int | None) -> int:
    """Write at most ``limit`` records of ``batch`` and return how many that were."""
    if output == "json":
        records = batch.records()[:limit]
        out.writelines(_json_line(record) for record in records)
        return len(records)
    values = [value or b"" for value in batch.values()[:limit]]
    if output == "value":
        values.append(b"")
        out.write(b"\n".join(values))
        return len(values) - 1
    out.write(b"".join(values))
    return len(values)


def _json_line(record: "ConsumedRecord") -> bytes:
    headers: dict[str, str | None] = {}
    for name, content in record.headers.items():
        headers.update(text_or_base64(name, content))
    line = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        **text_or_base64("key", record.key),
        **text_or_base64("value", record.value),
        "headers": headers,
    }
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"
