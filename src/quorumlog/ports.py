"""What the layers above ask of the machine: clock, disk, blocking work, peers, membership.

Each port has a real implementation and a simulated one (``tests/sim``); both pass the same
contract tests. Nothing outside the real implementations touches the operating system.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeVar

from quorumlog.types import Buffer, GroupId, NodeId

T = TypeVar("T")


class Clock(Protocol):
    """``monotonic_s`` never goes back and drives every timer; ``wall_ms`` only stamps records.

    ``monotonic_s`` does not stand still, in a suspended machine either: leases rest on it.
    """

    def monotonic_s(self) -> float: ...

    def wall_ms(self) -> int: ...


class Readable(Protocol):
    """What reading a file takes; see :class:`File`."""

    def read_at(self, position: int, size_bytes: int) -> bytes: ...


class File(Protocol):
    """An open file. Every call blocks; errors are ``OSError`` as the kernel gave them."""

    def read_at(self, position: int, size_bytes: int) -> bytes:
        """Up to ``size_bytes`` from ``position``; fewer only at the end of the file."""
        ...

    def write_at(self, position: int, buffers: Sequence[Buffer]) -> None:
        """Write all of ``buffers`` one after the other at ``position``.

        A short write is continued. On an error any prefix may have been written.
        """
        ...

    def allocate(self, size_bytes: int) -> None:
        """Make the file at least ``size_bytes`` long, the new part zeros, space reserved."""
        ...

    def truncate(self, size_bytes: int) -> None: ...

    def size_bytes(self) -> int: ...

    def sync(self) -> None:
        """Return when what was written before is on stable storage (fdatasync).

        After an error nothing may be retried: the kernel may have dropped the pages.
        """
        ...

    def close(self) -> None: ...


class Lock(Protocol):
    def release(self) -> None: ...


class Disk(Protocol):
    """A file system. Paths are absolute or relative strings with ``/``. Every call blocks.

    Names are durable only after ``sync_directory`` of their directory.
    """

    def open(self, path: str, *, create: bool = False) -> File:
        """Open for reading and writing; ``FileNotFoundError`` unless it exists or ``create``."""
        ...

    def open_readonly(self, path: str) -> File: ...

    def has_spare_handles(self) -> bool:
        """Whether files may stay open only because they may be read again."""
        ...

    def exists(self, path: str) -> bool: ...

    def list_directory(self, path: str) -> list[str]:
        """The names in ``path``, sorted."""
        ...

    def directory_stamp(self, path: str) -> int | None:
        """A number that is another one when a name in ``path`` was made, replaced or removed since.

        None: that was so lately that a change which comes now might not show.
        """
        ...

    def make_directory(self, path: str) -> None:
        """Create ``path`` and its parents, durably; nothing happens where it exists."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Replace ``target`` atomically. A directory replaces nothing but an empty one."""
        ...

    def remove(self, path: str) -> None: ...

    def remove_directory(self, path: str) -> None:
        """Remove ``path`` and all in it."""
        ...

    def sync_directory(self, path: str) -> None: ...

    def lock(self, path: str) -> Lock:
        """Take the exclusive lock of ``path`` (created when missing) for this process.

        Raises ``BlockingIOError`` when somebody else holds it.
        """
        ...

    def is_locked(self, path: str) -> bool:
        """Whether somebody, this process too, holds the lock of ``path``.

        Makes no file, needs no right to write, and keeps nobody from taking the lock.
        """
        ...


class Worker(Protocol):
    """Where blocking work runs, so that it does not hold up the event loop."""

    def run(self, function: Callable[[], T]) -> Awaitable[T]:
        """Start ``function`` elsewhere at once; await for its result or its exception."""
        ...


class PeerTransport(Protocol):
    """Carries messages between the nodes of one cluster: ordered per peer while a connection
    lives, lost when it breaks, never corrupted, never from another cluster."""

    def send(self, peer: NodeId, group: GroupId, payload: Buffer) -> None:
        """Queue one message; dropped when the peer's queue is full or it is not connected."""
        ...

    def on_message(self, handler: Callable[[NodeId, GroupId, memoryview], None]) -> None:
        """Call ``handler(sender, group, payload)`` for each message, in the event loop."""
        ...


class MemberState(Enum):
    ALIVE = "alive"
    SUSPECT = "suspect"
    FAILED = "failed"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Member:
    """A node as gossip sees it. ``tags`` holds what it says of itself.

    quorumlog's tags: ``id`` (node id), ``cluster`` (cluster id, empty before it has one), ``rpc``
    (``host:port`` of its gRPC endpoint), ``expect`` (bootstrap-expect), ``ver`` (release),
    ``rack`` (what its failures are shared with; may be missing), ``lacks`` (it lost the list of the
    groups that it had; mostly missing).
    """

    name: str
    address: str
    port: int
    state: MemberState
    tags: dict[str, str] = field(default_factory=dict)


class Membership(Protocol):
    """Who is out there. Gossip proposes, Raft decides: nothing here changes a configuration."""

    def members(self) -> list[Member]:
        """All known members, this node included, sorted by name."""
        ...

    def set_tags(self, tags: dict[str, str]) -> None: ...

    def on_change(self, handler: Callable[[Member], None]) -> None:
        """Call ``handler`` in the event loop whenever a member's state, address or tags change."""
        ...
