"""``quorumlog.open``: an embedded log on the disk of this machine."""

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, TypedDict

from quorumlog.embedded.arguments import Path, directory_of, key_ring
from quorumlog.embedded.options import Options
from quorumlog.errors import DiskFull, LogLocked, QuorumlogError, StorageError, UnusableDirectory
from quorumlog.log.cleaning.compaction_plan import Compaction
from quorumlog.log.cleaning.retention import Retention
from quorumlog.log.compression import DEFAULT_LEVEL
from quorumlog.log.config import DEFAULT_SEGMENT_BYTES, FSYNC_ALWAYS, LogConfig
from quorumlog.log.disk_errors import is_full
from quorumlog.ports import Disk, Lock
from quorumlog.system import SystemClock, SystemDisk

if TYPE_CHECKING:
    from quorumlog.embedded.log import EmbeddedLog
    from quorumlog.log.key_ring import KeyRing

_LOCK_NAME = "lock"
_MAX_LOCK_BYTES = 20
_UNUSABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)


class Settings(TypedDict, total=False):
    """The settings of :func:`open`, for others that take the same ones."""

    fsync: str
    segment_bytes: int
    compression: str | None
    compression_level: int
    retention: Retention | None
    compaction: Compaction | None
    housekeeping_interval_s: float
    scrub_bytes_s: int | None
    keys: "KeyRing | Path | None"


def open(
    path: Path,
    *,
    fsync: str = FSYNC_ALWAYS,
    segment_bytes: int = DEFAULT_SEGMENT_BYTES,
    compression: str | None = None,
    compression_level: int = DEFAULT_LEVEL,
    retention: Retention | None = None,
    compaction: Compaction | None = None,
    housekeeping_interval_s: float = 30.0,
    scrub_bytes_s: int | None = None,
    keys: "KeyRing | Path | None" = None,
) -> "EmbeddedLog":
    """Open the log in directory ``path``, made when missing, for reading and writing.

    Args:
        path: a directory of its own for this log.
        fsync: ``always``: ``append`` returns after fdatasync. ``interval``: after the write, with
            an fdatasync every 0.1 s; a power cut loses at most what came since, a crash of the
            process nothing. ``never``: left to the system until ``flush`` or ``close``.
        segment_bytes: size of one segment file (1 KiB to 1 TiB).
        compression: ``zstd``, or None; needs the extra ``quorumlog[zstd]`` below Python 3.14.
        compression_level: 1 (fastest) to 22 (smallest).
        retention: what has to stay, whole segments of what is older are deleted; None: all stays.
        compaction: whether and how superseded records of a key are removed; None: not at all.
        housekeeping_interval_s: how often a thread looks whether something is to be deleted or
            compacted (0.01 to 86,400 seconds); ``housekeep`` does it at once.
        scrub_bytes_s: a thread reads what is on disk for rot, at most so many bytes a second (4096
            or more), see ``scrub_findings``; None: rot is found when the place is read.
        keys: encrypt with these, or with those in this file; needs ``quorumlog[encryption]``.

    Raises:
        LogLocked: it is open already, in this process or another.
        UnusableDirectory: it cannot be made, read or written.
        Corrupt: records that may have been acknowledged are damaged; nothing was changed.
        KeyMissing, WrongKey: ``keys`` does not fit what is stored.
        DiskFull: there is no space to make the log, or to tidy up what a crash left.
        StorageError: another error of the disk.
        ConfigError: a setting out of its bounds, or a library that is not installed.
    """
    from quorumlog.embedded.log import EmbeddedLog

    options = Options(
        compression,
        compression_level,
        retention,
        compaction,
        housekeeping_interval_s,
        scrub_bytes_s,
    )
    config = LogConfig(fsync=fsync, segment_bytes=segment_bytes, keys=key_ring(keys))
    directory = directory_of(path)
    return EmbeddedLog(SystemDisk(), directory, config, SystemClock(), options, os.getpid)


def lock_directory(disk: Disk, directory: str, process_id: int) -> Lock:
    """Make ``directory`` this process's own; the lock file names it to those who come later.

    Raises:
        LogLocked, UnusableDirectory, DiskFull, StorageError
    """
    path = f"{directory}/{_LOCK_NAME}"
    try:
        disk.make_directory(directory)
        lock = disk.lock(path)
    except BlockingIOError as error:
        raise LogLocked(
            f"{directory} is open already, in {_holder(disk, path, process_id)}: "
            "close it there, or use another directory"
        ) from error
    except OSError as error:
        raise unusable(directory, error) from error
    with suppress(OSError):
        _sign(disk, path, process_id)
    return lock


def unusable(directory: str, error: OSError) -> QuorumlogError:
    """The error to raise for ``error``, which came while the log was opened."""
    if is_full(error):
        return DiskFull(f"{directory} cannot be opened: no space left on the disk")
    if error.errno not in _UNUSABLE:
        return StorageError(f"{directory} cannot be opened ({error.strerror or error})")
    return UnusableDirectory(
        f"{directory} cannot be used: {error.strerror}; "
        "it has to be a directory that this user can write to"
    )


def _sign(disk: Disk, path: str, process_id: int) -> None:
    """Write who holds the lock into its file; only for people, so it need not be durable."""
    file = disk.open(path)
    try:
        signature = b"%d\n" % process_id
        if file.read_at(0, _MAX_LOCK_BYTES) != signature:
            file.truncate(0)
            file.write_at(0, [signature])
    finally:
        file.close()


def _holder(disk: Disk, path: str, process_id: int) -> str:
    with suppress(OSError):
        file = disk.open_readonly(path)
        try:
            signature = file.read_at(0, _MAX_LOCK_BYTES).strip()
        finally:
            file.close()
        if signature == b"%d" % process_id:
            return "this process"
        if signature.isdigit():
            return f"process {signature.decode()}"
    return "this process or another"
