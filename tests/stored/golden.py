"""Files with every structure of format v1: ``python -m stored.golden`` makes them again.

They are written once for a version of the format. When a test says that other bytes come out now,
the format has changed, and needs a new version beside this one.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final

from quorumlog.log.batch import CODEC_ZSTD, Draft, Kind
from quorumlog.log.compression import compress
from quorumlog.log.config import LogConfig
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.log.install import DRAFT_NAME, decide_install
from quorumlog.log.key_ring import KeyRing
from quorumlog.log.log import Log
from quorumlog.log.records import decode_records, encode_body
from quorumlog.log.state_snapshot import (
    LogOrigin,
    StateSnapshot,
    encode_snapshot,
    save_snapshot,
)
from quorumlog.types import Index, NodeId, Offset, RecordData, Term
from sim.disk import SimDisk, SimulatedCrash
from stored.batches import DIRECTORY, FixedClock, open_log
from stored.keyed import KeyedLog

GOLDEN: Final = Path(__file__).parents[1] / "log" / "golden" / "v1"
EXPECTED: Final = "expected.json"

CONFIG: Final = LogConfig(segment_bytes=1024, index_interval_bytes=256, tail_cache_bytes=0)
KEYS: Final = {"2026-05": b"5" * 32, "2026-11": b"N" * 32}

Files = dict[str, bytes]


def keys(active: str = "2026-11") -> KeyRing:
    return KeyRing(active, KEYS, Random(11).randbytes)


def config_of(name: str) -> LogConfig:
    """The settings that the log ``name`` is opened with."""
    return replace(CONFIG, keys=keys()) if name == "encrypted" else CONFIG


def _fill(log: Log) -> None:
    """Batches of every kind, records of every shape, two terms, a producer."""
    bodies: list[tuple[Draft, int]] = [
        (Draft.of(b"", 0, Kind.NOOP), 1),
        (Draft.of(b"configuration", 0, Kind.CONFIG), 1),
        (_records(RecordData(b"first"), RecordData(b"second", b"key")), 1),
        (_records(RecordData(b"", b"", {"trace": b"1", "": b""})), 1),
        (_records(RecordData(None, b"key")), 1),
        (Draft.of(b"", 0, Kind.NOOP), 2),
        (
            replace(_records(RecordData(b"x" * 700)), producer_id=7, producer_epoch=2, sequence=40),
            2,
        ),
        (_records(*[RecordData(b"%d" % number) for number in range(60)]), 2),
        (Draft.of(b"command", 0, Kind.COMMAND), 2),
        (_records(RecordData(b"y" * 300)), 3),
    ]
    for number, (draft, term) in enumerate(bodies):
        log.append([draft.stamp(log.next_index, term, log.end_offset, 1_000 + 10 * number)])


def _records(*records: RecordData) -> Draft:
    return Draft.of(encode_body(records), len(records))


def _files(disk: SimDisk) -> Files:
    return {name: disk.content(f"{DIRECTORY}/{name}") for name in disk.list_directory(DIRECTORY)}


def _plain() -> Files:
    disk = SimDisk(Random(1))
    log = open_log(disk, CONFIG)
    _fill(log)
    log.advance_commit_floor(6)
    log.advance_start(1)
    log.close()
    return _files(disk)


def _killed() -> Files:
    """Not closed: of what was reserved, a part is kept."""
    disk = SimDisk(Random(1))
    log = open_log(disk, replace(CONFIG, segment_bytes=8192))
    _fill(log)
    log.flush()
    end = log.segments()[-1].size_bytes
    return {name: data[: end + 100] for name, data in _files(disk).items()}


def _encrypted() -> Files:
    disk = SimDisk(Random(1))
    log = open_log(disk, replace(CONFIG, keys=keys("2026-05")))
    _fill(log)
    log.close()
    log = open_log(disk, config_of("encrypted"))
    log.append([Draft.of(b"", 0, Kind.NOOP).stamp(log.next_index, 4, log.end_offset, 2_000)])
    log.close()
    return _files(disk)


def _compressed() -> Files:
    """To be read only: what zstd makes of a body is another release's business."""
    disk = SimDisk(Random(1))
    log = open_log(disk, CONFIG)
    body = encode_body([RecordData(b"again and again " * 10, b"%d" % each) for each in range(9)])
    draft = replace(Draft.of(compress(body), 9), codec=CODEC_ZSTD)
    log.append([draft.stamp(1, 1, 0, 1_000)])
    log.close()
    return _files(disk)


def _keyed(disk: SimDisk) -> KeyedLog:
    keyed = KeyedLog(disk, config=CONFIG)
    for number in range(10):
        keyed.append((b"k%d" % (number % 3), b"%d" % number * 40), (None, b"keyless"))
        keyed.append((b"k%d" % (number % 3), b"%d" % number * 20), producer_id=5)
    keyed.seal()
    return keyed


def _compacted() -> Files:
    disk = SimDisk(Random(1))
    keyed = _keyed(disk)
    keyed.compact()
    keyed.log.close()
    return _files(disk)


def _leftover() -> Files:
    """A compaction that was decided when the process died."""
    place = 0
    while True:
        place += 1
        disk = SimDisk(Random(1))
        keyed = _keyed(disk)
        keyed.log.close()
        keyed = KeyedLog(disk, config=CONFIG)
        keyed.log.advance_commit_floor(keyed.log.last_index)
        disk.crash_before(place)
        try:
            keyed.compactor.run()
        except SimulatedCrash:
            disk.kill()
        files = _files(disk)
        if open_log(disk, CONFIG).recovery.compactions_finished:
            return files


def _hard_state() -> Files:
    disk = SimDisk(Random(1))
    disk.make_directory(DIRECTORY)
    file = HardStateFile(disk, f"{DIRECTORY}/hard-state")
    file.save(HardState(Term(4)))
    file.save(HardState(Term(5), NodeId("0123456789abcdef" * 2)))
    file.close()
    return _files(disk)


def _state() -> Files:
    disk = SimDisk(Random(1))
    disk.make_directory(DIRECTORY)
    snapshot = StateSnapshot(Index(9), Term(2), Offset(64), 1_080, b"configuration", b"state" * 9)
    save_snapshot(disk, DIRECTORY, snapshot)
    return _files(disk)


def _installed() -> Files:
    """Decided, and not carried out."""
    disk = SimDisk(Random(1))
    disk.make_directory(DIRECTORY)
    start = LogOrigin(Index(7), Offset(50), Term(1), 1_050, Offset(53))
    snapshot = StateSnapshot(
        Index(9), Term(2), Offset(64), 1_080, b"configuration", b"state" * 9, start
    )
    file = disk.open(f"{DIRECTORY}/{DRAFT_NAME}", create=True)
    file.write_at(0, [encode_snapshot(snapshot, DIRECTORY)])
    file.close()
    decide_install(disk, DIRECTORY)
    return _files(disk)


LOGS: Final[dict[str, Callable[[], Files]]] = {
    "plain": _plain,
    "killed": _killed,
    "encrypted": _encrypted,
    "compressed": _compressed,
    "compacted": _compacted,
    "leftover": _leftover,
}
STRUCTURES: Final[dict[str, Callable[[], Files]]] = {
    **LOGS,
    "hard-state": _hard_state,
    "hard-state-twice": _hard_state,
    "state": _state,
    "installed": _installed,
}
READ_ONLY: Final = ("compressed", "hard-state")


def disk_with(files: Files) -> SimDisk:
    disk = SimDisk(Random(1))
    disk.make_directory(DIRECTORY)
    for name, data in files.items():
        file = disk.open(f"{DIRECTORY}/{name}", create=True)
        file.write_at(0, [data])
        file.sync()
        file.close()
    disk.sync_directory(DIRECTORY)
    return disk


def stored_files(name: str) -> Files:
    return {path.name: path.read_bytes() for path in sorted((GOLDEN / name).iterdir())}


def told(files: Files, config: LogConfig) -> dict[str, Any]:
    """All that a log says to who reads it, in a form for JSON."""
    log = Log.open(disk_with(files), DIRECTORY, config, FixedClock())
    batches = list(log.batches(log.start_index))
    headers = [each.header for each in batches]
    records = [
        [each.offset, _text(each.key), _text(each.value), _texts(each.headers), each.timestamp_ms]
        for batch in batches
        if batch.header.kind is Kind.RECORDS
        for each in decode_records(batch.header, batch.body)
    ]
    report = log.recovery
    found = {
        "range": [log.start_index, log.next_index, log.start_offset, log.end_offset],
        "commit_floor": log.commit_floor,
        "recovery": [report.was_closed, report.cut_bytes, report.compactions_finished],
        "segments": [
            [each.first_index, each.base_offset, each.generation, each.key_id, each.cleaned_to]
            for each in log.segments()
        ],
        "batches": [
            [
                each.index,
                each.index_count,
                each.term,
                each.kind.name,
                each.base_offset,
                each.record_count,
                each.timestamp_ms,
                each.producer_id,
                each.producer_epoch,
                each.sequence,
                each.codec,
                each.flags,
                each.body_crc,
            ]
            for each in headers
        ],
        "records": records,
    }
    log.close()
    return found


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode()


def _texts(headers: Any) -> dict[str, str]:
    return {name: content.decode() for name, content in headers.items()}


def main() -> None:
    expected = {}
    for name, make in STRUCTURES.items():
        directory = GOLDEN / name
        directory.mkdir(parents=True, exist_ok=True)
        files = make()
        for stale in directory.iterdir():
            stale.unlink()
        for file, data in files.items():
            (directory / file).write_bytes(data)
        if name in LOGS:
            expected[name] = told(files, config_of(name))
    (GOLDEN / EXPECTED).write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
