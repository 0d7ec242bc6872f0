"""How ``quorumlog log dump`` prints batches, records and damage: a line each."""

from collections.abc import Iterator
from typing import Any

from quorumlog.cli.output import print_json, text_or_base64
from quorumlog.errors import QuorumlogError
from quorumlog.log.batch import CODEC_NONE, CODEC_ZSTD, ENCRYPTED, SPARSE, Kind
from quorumlog.log.inspection.damage import Finding
from quorumlog.log.inspection.dump import DumpedBatch
from quorumlog.types import Record

_CODECS = {CODEC_NONE: "none", CODEC_ZSTD: "zstd"}
_COLUMNS = "{:>10}  {:>12}  {:>8}  {:>5}  {:<8} {:>13}  {:<14}  {:<5} {:>9}  {:<20} {}"


def print_dump(
    items: Iterator[DumpedBatch | Finding],
    start_offset: int,
    count: int | None,
    *,
    with_records: bool,
    as_json: bool,
) -> bool:
    """Print ``items`` until ``count`` batches, or records, were printed.

    Returns:
        Whether no damage was met, and nothing was that could not be shown.
    """
    is_whole = True
    left = -1 if count is None else count
    if not with_records and not as_json:
        header = ("INDEX", "OFFSET", "OFFSETS", "TERM", "KIND", "TIME", "PRODUCER", "CODEC")
        print(_COLUMNS.format(*header, "BYTES", "FLAGS", "PLACE"))
    for item in items:
        if isinstance(item, Finding):
            _print_finding(item, as_json)
            is_whole = False
        elif with_records:
            printed, is_shown = _print_records(item, start_offset, left, as_json)
            left -= printed
            is_whole &= is_shown
        else:
            _print_batch(item, as_json)
            left -= 1
        if left == 0:
            break
    return is_whole


def _print_finding(finding: Finding, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "damage": finding.flaw,
                "file": finding.file,
                "position": finding.position,
                "expected": finding.expected,
                "found": finding.found,
                "offsets": None if finding.offsets is None else list(finding.offsets),
            }
        )
    else:
        print(f"--- {finding.flaw}: {finding}")


def _print_batch(item: DumpedBatch, as_json: bool) -> None:
    header = item.stored.header
    kind = Kind(header.kind).name
    codec = _CODECS.get(header.codec, str(header.codec))
    names = ((SPARSE, "sparse"), (ENCRYPTED, "encrypted"))
    flags = [name for flag, name in names if header.flags & flag]
    if as_json:
        print_json(
            {
                "index": header.index,
                "index_count": header.index_count,
                "term": header.term,
                "base_offset": header.base_offset,
                "record_count": header.record_count,
                "timestamp_ms": header.timestamp_ms,
                "kind": kind,
                "codec": codec,
                "flags": flags,
                "producer_id": header.producer_id,
                "producer_epoch": header.producer_epoch,
                "sequence": header.sequence,
                "body_bytes": header.body_length,
                "file": item.file,
                "position": item.position,
            }
        )
        return
    producer = "-"
    if header.producer_id:
        producer = f"{header.producer_id}/{header.producer_epoch}/{header.sequence}"
    print(
        _COLUMNS.format(
            header.index,
            header.base_offset,
            header.record_count,
            header.term,
            kind,
            header.timestamp_ms,
            producer,
            codec,
            header.body_length,
            " ".join(flags) or "-",
            f"{item.file}:{item.position}",
        )
    )


def _print_records(
    item: DumpedBatch, start_offset: int, limit: int, as_json: bool
) -> tuple[int, bool]:
    """Print at most ``limit`` records; returns how many, and whether all could be shown."""
    printed = 0
    try:
        for record in item.records(start_offset):
            if printed == limit:
                break
            _print_record(record, as_json)
            printed += 1
    except QuorumlogError as error:
        header = item.stored.header
        problem = " ".join(str(error).split())
        if as_json:
            print_json({"damage": "records", "index": header.index, "found": problem})
        else:
            print(f"--- records of batch {header.index} at offset {header.base_offset}: {problem}")
        return printed, False
    return printed, True


def _print_record(record: Record, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = {"offset": record.offset, "timestamp_ms": record.timestamp_ms}
        document.update(text_or_base64("key", record.key))
        document.update(text_or_base64("value", record.value))
        headers = {}
        for name, content in record.headers.items():
            headers.update(text_or_base64(name, content))
        document["headers"] = headers
        print_json(document)
        return
    key = "-" if record.key is None else _shown(record.key)
    value = "-" if record.value is None else _shown(record.value)
    print(f"{record.offset:>12}  {record.timestamp_ms:>13}  {key}\t{value}")


def _shown(data: bytes) -> str:
    """In one line: text as it is, control characters and what is no text escaped."""
    text = data.decode(errors="backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode()
