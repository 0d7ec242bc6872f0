"""``quorumlog log``: look at logs on disk, repair them, make keys. No server is asked."""

import sys
import time
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, Final

import click

from quorumlog.cli.connect import CliContext, pass_context
from quorumlog.cli.output import plural, print_json, print_table

if TYPE_CHECKING:
    from quorumlog.log.inspection.damage import Finding, Span
    from quorumlog.log.inspection.log_report import LogReport
    from quorumlog.log.inspection.repair import RepairReport
    from quorumlog.log.key_ring import KeyRing

PROGRESS_INTERVAL_S: Final = 0.2
DAMAGED: Final = 1

_MIB: Final = 1024 * 1024


def _as_json(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    context.ensure_object(CliContext).json = value


json_option = click.option(
    "--json", is_flag=True, expose_value=False, callback=_as_json, help="Print JSON, for programs."
)
keys_option = click.option(
    "--keys", metavar="FILE", help="The key file, to look into encrypted segments too."
)
directory_argument = click.argument("directory", metavar="DIR")


@click.group()
def log() -> None:
    """Look at logs on disk, and repair them. Works on the files, without a server."""
    if isinstance(sys.stdout, TextIOWrapper):
        # File names may hold bytes that are no text.
        sys.stdout.reconfigure(errors="backslashreplace")


@log.command()
@directory_argument
@keys_option
@click.option("--fast", is_flag=True, help="Check checksums and order only, not the records.")
@json_option
@pass_context
def verify(context: CliContext, directory: str, keys: str | None, fast: bool) -> int:
    """Read everything in DIR and say what is wrong; changes nothing.

    DIR is a log, or a directory with logs below it: of a node, of `quorumlog dev`. A log that is in
    use is read as far as it is synced. The exit code is 0 when all is well and 1 when not.
    """
    from quorumlog.log.inspection.verify import verify as verify_logs
    from quorumlog.system import SystemDisk

    with Meter() as meter:
        reports = verify_logs(
            SystemDisk(), directory, ring=ring_of(keys), with_records=not fast, progress=meter.add
        )
    if context.json:
        print_json({"clean": all(each.is_clean for each in reports), "logs": _documents(reports)})
    else:
        _print_reports(reports)
    return 0 if all(each.is_clean for each in reports) else DAMAGED


@log.command()
@directory_argument
@click.option("--from", "start_offset", type=click.IntRange(0), default=0, metavar="OFFSET")
@click.option("--count", type=click.IntRange(1), metavar="N", help="How many, at most.")
@click.option("--batches/--records", default=True, help="What to print.  [default: batches]")
@keys_option
@json_option
@pass_context
def dump(
    context: CliContext,
    directory: str,
    start_offset: int,
    count: int | None,
    batches: bool,
    keys: str | None,
) -> int:
    """Print the batches, or the records, of the log in DIR; goes on behind damage."""
    from quorumlog.cli.dump_lines import print_dump
    from quorumlog.log.inspection.dump import dump as dump_log
    from quorumlog.system import SystemDisk

    items = dump_log(SystemDisk(), directory, start_offset, ring_of(keys))
    is_whole = print_dump(
        items, start_offset, count, with_records=not batches, as_json=context.json
    )
    return 0 if is_whole else DAMAGED


@log.command()
@directory_argument
@click.option("--yes", is_flag=True, help="Do it. Without, only say what would be done.")
@keys_option
@json_option
@pass_context
def repair(context: CliContext, directory: str, yes: bool, keys: str | None) -> int:
    """Say what can be done about damage in DIR; with --yes, do it.

    DIR as for verify; no process may have it open. Offsets never change: what cannot be read any
    more becomes a gap. What is removed or written over is kept in DIR/removed-TIME. The exit
    code is 0 when all is well, or is afterwards.
    """
    from quorumlog.cli.repair_lines import document_of, print_repair
    from quorumlog.errors import StorageError
    from quorumlog.log.inspection.find_logs import find_logs
    from quorumlog.log.inspection.repair import RepairReport, plan
    from quorumlog.log.inspection.repair import repair as repair_log
    from quorumlog.system import SystemClock, SystemDisk

    disk, clock, ring = SystemDisk(), SystemClock(), ring_of(keys)
    reports = []
    paths = find_logs(disk, directory)
    for path in paths:
        try:
            if yes:
                report = repair_log(disk, path, clock, ring)
            else:
                made = plan(disk, path, clock, ring)
                report = RepairReport(path, made.actions, made.refusals, made.is_partial)
        except StorageError as error:
            if len(paths) == 1:
                raise
            # What was done to the others is to be said, and what can be has to be done.
            report = RepairReport(path, error=str(error))
        reports.append(report)
        if not context.json:
            print_repair(report, is_done=yes)
    if context.json:
        print_json({"done": yes, "logs": [document_of(each) for each in reports]})
    elif not yes and any(each.actions for each in reports):
        print("nothing was changed: run it again with --yes to do this")
    return 0 if all(is_well(each) for each in reports) else DAMAGED


def is_well(report: "RepairReport") -> bool:
    """Whether there was nothing to do, or all was done."""
    if report.error:
        return False
    if report.after is not None:
        return report.after.is_clean
    return not report.actions and not report.refusals


@log.command("new-key")
@click.argument("file")
@click.argument("name", required=False)
def new_key(file: str, name: str | None) -> None:
    """Make a key in FILE, a new one or one with keys, and let it be the active one.

    Its NAME is the day unless it is given. Segments that are begun from now on take the new key;
    the old ones are read with the keys they were written with, so never take one out of FILE.
    """
    from datetime import UTC, datetime

    from quorumlog.log.key_ring import write_new_key

    made = write_new_key(file, name, datetime.now(UTC).date())
    print(f"{file}: new key {made}, active now; keep a copy of the file in another place")


class Meter:
    """Says on a terminal how much was read, a few times a second."""

    def __init__(self) -> None:
        self._size_bytes = 0
        self._is_shown = sys.stderr.isatty()
        self._started_s = self._due_s = time.monotonic()

    def add(self, size_bytes: int) -> None:
        self._size_bytes += size_bytes
        now_s = time.monotonic()
        if self._is_shown and now_s >= self._due_s:
            rate = self._size_bytes / _MIB / max(now_s - self._started_s, 0.001)
            line = f"\r{self._size_bytes / _MIB:,.0f} MiB read, {rate:,.0f} MiB/s "
            print(line, end="", file=sys.stderr, flush=True)
            self._due_s = now_s + PROGRESS_INTERVAL_S

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def ring_of(keys: str | None) -> "KeyRing | None":
    from quorumlog.log.key_ring import KeyRing

    return None if keys is None else KeyRing.load(keys)


def finding_document(finding: "Finding") -> dict[str, Any]:
    return {
        "severity": finding.severity,
        "flaw": finding.flaw,
        "file": finding.file,
        "position": finding.position,
        "expected": finding.expected,
        "found": finding.found,
        "indexes": _span(finding.indexes),
        "offsets": _span(finding.offsets),
    }


def _span(span: "Span | None") -> list[int | None] | None:
    return None if span is None else [span.start, span.end]


def _documents(reports: "list[LogReport]") -> list[dict[str, Any]]:
    return [
        {
            "directory": each.directory,
            "clean": each.is_clean,
            "open": each.is_open,
            "replica": each.is_replica,
            "closed_cleanly": each.was_closed,
            "segments": each.segments,
            "size_bytes": each.size_bytes,
            "batches": each.counts.batches,
            "batches_not_decoded": each.counts.unchecked,
            "start_offset": each.start_offset,
            "end_offset": each.end_offset,
            "start_index": each.start_index,
            "next_index": each.next_index,
            "findings": [finding_document(finding) for finding in each.findings],
            "findings_dropped": each.dropped,
        }
        for each in reports
    ]


def _print_reports(reports: "list[LogReport]") -> None:
    print_table(
        ["LOG", "STATE", "SEGMENTS", "BATCHES", "OFFSETS", "MIB", ""],
        [
            [
                each.directory,
                "clean" if each.is_clean else _worst(each),
                each.segments,
                each.counts.batches,
                f"[{each.start_offset}, {each.end_offset})",
                f"{each.size_bytes / _MIB:,.1f}",
                "in use: read as far as it is synced" if each.is_open else "",
            ]
            for each in reports
        ],
    )
    for report in reports:
        for finding in report.findings:
            print(f"{finding.severity}: {finding.flaw}: {finding}")
        if report.dropped:
            print(f"{report.directory}: and {plural(report.dropped, 'finding')} more")
    for report in reports:
        if not report.is_clean:
            print(f"`quorumlog log repair {report.directory}` says what can be done")


def _worst(report: "LogReport") -> str:
    severities = {each.severity for each in report.findings}
    return "damaged" if "damage" in severities else "repairable"
