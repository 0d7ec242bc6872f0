"""Which directories hold logs, and whether a process has one open. Changes nothing."""

from typing import Final

from quorumlog.errors import UnusableDirectory
from quorumlog.log.inspection.inventory import KEPT_PREFIX, is_log
from quorumlog.log.paths import SET_ASIDE_INFIX, parent_of
from quorumlog.ports import Disk

MAX_DEPTH: Final = 4
"""How deep below the directory given logs are looked for: a cluster, a node, groups, a group."""

_LOCKS: Final = ("lock", "node.lock")
_GROUPS: Final = "groups"


def find_logs(disk: Disk, directory: str) -> list[str]:
    """The directories of logs: ``directory`` itself, or those below it, in order.

    Also what cannot be read and stands where a log may be: to open it says so.

    Raises:
        UnusableDirectory: it cannot be read, or there is none.
    """
    directory = directory.rstrip("/") or "/"
    try:
        disk.list_directory(directory)
    except OSError as error:
        raise UnusableDirectory(
            f"{directory} cannot be read ({error.strerror}): give the directory of a log, of a "
            "node or of `quorumlog dev`"
        ) from error
    found = _logs_below(disk, directory, MAX_DEPTH)
    if not found:
        raise UnusableDirectory(
            f"there is no log in {directory}: give the directory of a log, of a node or of "
            "`quorumlog dev`"
        )
    return found


def _logs_below(disk: Disk, directory: str, depth: int) -> list[str]:
    try:
        names = disk.list_directory(directory)
    except (NotADirectoryError, FileNotFoundError):
        return []
    except OSError as error:
        # Of somebody else, unless it stands where the logs of a node do; a failing disk is no
        # reason to pass over what may be a log either.
        is_of_others = isinstance(error, PermissionError)
        is_group = parent_of(directory).rpartition("/")[2] == _GROUPS
        return [] if is_of_others and not is_group else [directory]
    if is_log(names):
        return [directory]
    if not depth:
        return []
    kept = [name for name in names if name.startswith(KEPT_PREFIX) or SET_ASIDE_INFIX in name]
    below = [f"{directory}/{name}" for name in names if name not in kept]
    return [log for path in below for log in _logs_below(disk, path, depth - 1)]


def locks_of(directory: str) -> list[str]:
    """The files that lock a log: its own, or that of the node whose group it is of."""
    node = parent_of(parent_of(directory))
    if node == ".":
        # A relative path of one or two names, which may be links or dots themselves.
        node = f"{directory}/../.."
    return [f"{directory}/{_LOCKS[0]}", f"{node}/{_LOCKS[1]}"]


def is_locked(disk: Disk, directory: str) -> bool:
    """Whether a process has the log in ``directory`` open. Makes no file."""
    for path in locks_of(directory):
        try:
            if disk.is_locked(path):
                return True
        except OSError:
            # Not to be read, as much of what somebody else owns: that it is open is the safe guess.
            return True
    return False
