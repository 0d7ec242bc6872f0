"""How many files a log keeps open for its readers, and of how many it has more in memory."""

import os
import resource
from dataclasses import replace
from pathlib import Path
from random import Random

from quorumlog.log.config import LogConfig
from quorumlog.log.log import Log
from quorumlog.log.segment_files import OpenSegment
from quorumlog.system import SystemDisk
from sim.disk import SimDisk
from stored.batches import append, open_log

SEGMENTS = 60
FEW_HANDLES = 16
MAX_WARM = 32
CONFIG = LogConfig(segment_bytes=1024, tail_cache_bytes=0, max_open_segments=SEGMENTS + 1)


def filled(config: LogConfig = CONFIG) -> tuple[SimDisk, Log]:
    """A log of ``SEGMENTS`` sealed segments and one more, opened anew: nothing is in memory."""
    disk = SimDisk(Random(1))
    log = open_log(disk, config)
    while len(log.segments()) <= SEGMENTS:
        append(log, 1)
    log.flush()
    log.close()
    return disk, open_log(disk, config)


def read_everywhere(log: Log) -> None:
    for segment in log.segments():
        assert log.fetch(segment.base_offset, 1, log.end_offset).data


def opened_in(log: Log) -> list[OpenSegment]:
    return list(log._view._files._opened.values())


def test_a_read_anywhere_in_a_large_log_opens_no_segment_a_second_time() -> None:
    disk, log = filled()
    read_everywhere(log)
    before = disk.calls["open"]
    for segment in log.segments()[:MAX_WARM]:
        log.fetch(segment.base_offset, 1, log.end_offset)
    assert disk.calls["open"] - before <= MAX_WARM, "its index, nothing else"
    assert len(opened_in(log)) == SEGMENTS + 1


def test_of_few_segments_the_index_and_the_places_of_readers_are_in_memory() -> None:
    _, log = filled()
    for _ in range(2):
        read_everywhere(log)
        warm = [each for each in opened_in(log) if each.index is not None or each.by_index]
        assert 1 < len(warm) <= MAX_WARM
    assert all(each.by_offset.keys() <= {0} or each in warm for each in opened_in(log))


def test_who_reads_on_keeps_the_index_of_a_segment_in_memory() -> None:
    disk, log = filled()
    first = log.segments()[0]
    for segment in log.segments()[:-1]:
        log.term_at(first.first_index)
        log.fetch(segment.base_offset, 1, log.end_offset)
    before = disk.calls["open"]
    log.term_at(first.first_index)
    assert disk.calls["open"] == before


def test_where_handles_are_scarce_few_files_stay_open() -> None:
    disk, log = filled()
    read_everywhere(log)
    disk.spare_handles = False
    read_everywhere(log)
    assert len(opened_in(log)) == SEGMENTS + 1, "nothing was opened, so nothing has to go"
    log.close()
    log = open_log(disk, CONFIG)
    read_everywhere(log)
    assert len(opened_in(log)) == FEW_HANDLES
    log.close()
    log = open_log(disk, replace(CONFIG, max_open_segments=3))
    read_everywhere(log)
    assert len(opened_in(log)) == 3


def test_the_disk_of_this_machine_has_handles_to_spare_up_to_half_of_its_limit(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    path.touch()
    disk = SystemDisk()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    newest = os.open(path, os.O_RDONLY)
    os.close(newest)
    try:
        for limit, has_spare in ((2 * newest + 2, True), (2 * newest, False)):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            disk.open_readonly(str(path)).close()
            assert disk.has_spare_handles() is has_spare
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
