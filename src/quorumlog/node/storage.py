"""A node's data directory: one process at a time, one identity for life.

``node.lock`` the lock, ``node.json`` the identity, ``groups/<group>/`` the logs, ``groups.list``
which of them there have been.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Self

import structlog

from quorumlog.errors import DiskFull, LogLocked, UnusableDirectory
from quorumlog.node.identity import Identity, IdentityFile, random_id
from quorumlog.ports import Disk, Lock
from quorumlog.replication.group_list import GroupList, list_path_of

_log = structlog.get_logger()

_ENOSPC = 28
_NO_DIRECTORY = (FileExistsError, NotADirectoryError)


class DataDirectory:
    def __init__(
        self, disk: Disk, path: str, lock: Lock, prefix: str, new_id: Callable[[], str]
    ) -> None:
        self.groups = f"{path}/groups"
        self._lock = lock
        self._file = IdentityFile(disk, path, prefix, new_id)
        self.identity: Identity = self._file.load_or_create()
        if self.identity.cluster_id and not disk.exists(self.groups):
            # It has voted, and would do so again as if it never had.
            raise UnusableDirectory(
                f"{path} holds the identity of node {self.identity.node_id} and no logs: a node "
                "that lost its data must not come back under its old id. Start it with an empty "
                "directory; it becomes a new node, and the old one can be removed"
            )
        disk.make_directory(self.groups)
        self._keep_list(disk)

    @classmethod
    def open(
        cls, disk: Disk, path: str, prefix: str = "", new_id: Callable[[], str] = random_id
    ) -> Self:
        """Lock the directory, creating it when it is missing. Blocking.

        Args:
            prefix: what the id of a new node begins with; ``new_id`` makes the rest.

        Raises:
            LogLocked: another process runs on it. UnusableDirectory, DiskFull, Corrupt.
        """
        try:
            disk.make_directory(path)
            lock = disk.lock(f"{path}/node.lock")
        except BlockingIOError as error:
            raise LogLocked(
                f"{path} is in use by another quorumlog process: stop that one, "
                "or give this node a directory of its own with --data-dir"
            ) from error
        except OSError as error:
            raise unusable(path, error) from error
        try:
            return cls(disk, path, lock, prefix, new_id)
        except OSError as error:
            lock.release()
            raise unusable(path, error) from error
        except BaseException:
            lock.release()
            raise

    def save(self, identity: Identity) -> None:
        """Durable when it returns. Blocking."""
        self._file.save(identity)
        self.identity = identity

    def _keep_list(self, disk: Disk) -> None:
        """See that there is a list of groups.

        A node of before there were lists begins one with the groups that it has now: what it lost
        until then is not known. On one that had a list it was lost: the new one says so.
        """
        if not self.identity.lists_groups:
            GroupList(disk, self.groups).begin(is_whole=True)
            self.identity = replace(self.identity, lists_groups=True)
            self._file.save(self.identity)
        elif not disk.exists(list_path_of(self.groups)):
            _log.error("group_list_lost", path=list_path_of(self.groups), error="no file")
            GroupList(disk, self.groups).begin(is_whole=False)

    def release(self) -> None:
        self._lock.release()


def unusable(path: str, error: OSError) -> UnusableDirectory | DiskFull:
    """What the disk said of the data directory, as a typed error."""
    if error.errno == _ENOSPC:
        return DiskFull(f"the disk of {path} is full: make space, then start the node again")
    reason = "it is not a directory" if isinstance(error, _NO_DIRECTORY) else error.strerror
    return UnusableDirectory(
        f"{path} cannot be used ({reason}): choose another one with --data-dir, "
        "or give this user the right to write there"
    )
