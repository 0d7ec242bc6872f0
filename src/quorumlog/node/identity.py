"""Who this node is, kept in its data directory: a wiped directory is a new node.

``node.json`` is replaced atomically and durably; it is written when the node is born, when it
accepts a bootstrap proposal and when it enters a cluster: never while it works.
"""

import json
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from quorumlog.errors import Corrupt, UnusableDirectory
from quorumlog.ports import Disk
from quorumlog.types import NodeId

_FILE = "node.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Seat:
    """A member of a cluster's first configuration."""

    node_id: NodeId
    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """A cluster about to be; ``aborted`` proposals are forgotten, so they are not kept."""

    cluster_id: str
    coordinator: NodeId
    seats: tuple[Seat, ...]


@dataclass(frozen=True, slots=True)
class Identity:
    node_id: NodeId
    cluster_id: str = ""
    """Empty before the node is in a cluster; never changes afterwards."""
    voters: tuple[Seat, ...] = ()
    """Of the metadata group when this node entered: the configuration before its log."""
    accepted: Proposal | None = None
    """The bootstrap proposal this node has promised itself to."""
    lists_groups: bool = False
    """It keeps a list of its groups; one of a release before there was such a list does not."""


def random_id() -> str:
    """An id that nobody else has: 32 hexadecimal digits."""
    return uuid.uuid4().hex


class IdentityFile:
    def __init__(
        self, disk: Disk, directory: str, prefix: str = "", new_id: Callable[[], str] = random_id
    ) -> None:
        """``prefix``: what the id of a new node begins with; ``new_id`` makes the rest."""
        self._disk = disk
        self._directory = directory
        self._prefix = prefix
        self._new_id = new_id
        self._path = f"{directory}/{_FILE}"

    def load_or_create(self) -> Identity:
        """The identity in the directory, a new one in a new directory; durable when it returns.

        Raises:
            Corrupt: there is one and it cannot be read: a new one would be another node.
            UnusableDirectory: there is none, and yet there is data.
        """
        if not self._disk.exists(self._path):
            if self._disk.exists(f"{self._directory}/groups"):
                raise UnusableDirectory(
                    f"{self._directory} has data and no {_FILE}: whose data it is is not known; "
                    "restore the file, or start with an empty directory as a new node"
                )
            identity = Identity(NodeId(f"{self._prefix}{self._new_id()}"))
            self.save(identity)
            return identity
        file = self._disk.open_readonly(self._path)
        try:
            raw = file.read_at(0, file.size_bytes())
        finally:
            file.close()
        try:
            identity = _decode(json.loads(raw))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Corrupt(
                self._path, 0, f"a node identity of format {_FORMAT}", repr(error)
            ) from error
        # Its process may have died just before: what this one tells others must not be undone.
        self._disk.sync_directory(self._directory)
        return identity

    def save(self, identity: Identity) -> None:
        """Durable when it returns."""
        raw = json.dumps({"format": _FORMAT, **asdict(identity)}, indent=2).encode()
        temporary = f"{self._path}.new"
        file = self._disk.open(temporary, create=True)
        try:
            file.truncate(0)
            file.write_at(0, [raw])
            file.sync()
        finally:
            file.close()
        self._disk.rename(temporary, self._path)
        self._disk.sync_directory(self._directory)


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise TypeError(f"{raw!r} is no text")
    return raw


def _seats(raw: Any) -> tuple[Seat, ...]:
    return tuple(
        Seat(NodeId(_text(seat["node_id"])), _text(seat["name"]), _text(seat["address"]))
        for seat in raw
    )


def _decode(raw: Any) -> Identity:
    if raw["format"] != _FORMAT:
        raise ValueError(f"format {raw['format']}")
    identity = Identity(
        NodeId(_text(raw["node_id"])),
        _text(raw["cluster_id"]),
        _seats(raw["voters"]),
        lists_groups=raw.get("lists_groups", False) is True,
    )
    accepted = raw["accepted"]
    if accepted is None:
        return identity
    proposal = Proposal(
        _text(accepted["cluster_id"]),
        NodeId(_text(accepted["coordinator"])),
        _seats(accepted["seats"]),
    )
    return replace(identity, accepted=proposal)
