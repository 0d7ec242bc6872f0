"""Reading everything that is on disk of a log, or of all logs of a node, and saying what is wrong.

Changes nothing, and is safe on any damage. Memory is bounded: a MiB of a segment at a time, its
sparse index, and at most ``MAX_FINDINGS`` findings of a log.
"""

from contextlib import suppress

from quorumlog.errors import UnusableDirectory
from quorumlog.log.inspection.damage import Finding, Flaw, Severity
from quorumlog.log.inspection.examined import Progress
from quorumlog.log.inspection.find_logs import find_logs, is_locked
from quorumlog.log.inspection.log_report import LogReport, Verified
from quorumlog.log.inspection.log_walk import OPEN_ATTEMPTS, LogWalk
from quorumlog.log.key_ring import KeyRing
from quorumlog.log.mark import MARKS_END
from quorumlog.log.paths import first_index_of
from quorumlog.ports import Disk


def verify(
    disk: Disk,
    directory: str,
    *,
    ring: KeyRing | None = None,
    with_records: bool = True,
    progress: Progress = lambda size_bytes: None,
) -> list[LogReport]:
    """Verify the log in ``directory``, or every log below it.

    Args:
        ring: for encrypted segments; without it their bodies are checked as they are stored.
        with_records: decode what is in the batches, too; False: checksums and order only.
        progress: called with the bytes read since the call before.

    A log below it that is deleted meanwhile is left out; one that cannot be read is a finding.

    Raises:
        UnusableDirectory: it cannot be read, or there is no log in it.
    """
    reports = []
    for path in find_logs(disk, directory):
        try:
            verified = verify_log(
                disk, path, ring=ring, with_records=with_records, progress=progress
            )
        except UnusableDirectory as error:
            if not disk.exists(path):
                continue
            report = LogReport(path)
            expected = "a directory that can be read"
            report.add([Finding(Severity.DAMAGE, Flaw.UNREADABLE, path, 0, expected, str(error))])
            reports.append(report)
        else:
            reports.append(verified.report)
    return reports


def verify_log(
    disk: Disk,
    directory: str,
    *,
    ring: KeyRing | None = None,
    with_records: bool = True,
    progress: Progress = lambda size_bytes: None,
    is_mine: bool = False,
) -> Verified:
    """Verify the one log in ``directory``; arguments and errors as :func:`verify`.

    Args:
        is_mine: the caller has locked the log, and does not write it now.
    """
    attempts = 0
    while True:
        is_open = not is_mine and is_locked(disk, directory)
        state = _state_of(disk, directory)
        walk = LogWalk(disk, directory, is_open, ring, with_records, progress)
        verified = walk.run()
        if is_open or is_mine or verified.report.is_clean:
            return verified
        attempts += 1
        is_open_now = is_locked(disk, directory)
        if not is_open_now and (attempts == OPEN_ATTEMPTS or state == _state_of(disk, directory)):
            return verified
        # Somebody opened it meanwhile, so what looks wrong may be what that one has written.


def _state_of(disk: Disk, directory: str) -> object:
    """What is another after a process had the log open: the names, and the mark of the last."""
    with suppress(OSError):
        names = disk.list_directory(directory)
        last = next((name for name in reversed(names) if first_index_of(name) is not None), None)
        if last is None:
            return names
        file = disk.open_readonly(f"{directory}/{last}")
        try:
            return names, file.size_bytes(), file.read_at(0, MARKS_END)
        finally:
            file.close()
    return None
