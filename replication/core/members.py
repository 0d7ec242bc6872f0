"""Who belongs to a group, as the log says (Raft §6).

A CONFIG batch carries one :class:`Members`, which holds from the moment the batch is in the log,
committed or not; when the batch is cut off again, the one before it holds again.

Body of a CONFIG batch, little-endian:

======  ====  =============  ===================================================================
offset  size  field          meaning
======  ====  =============  ===================================================================
0       1     version        1
1       2     voter_count
3       2     learner_count
5             ids            voters, then learners: one byte for the length, then the id, UTF-8
======  ====  =============  ===================================================================
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from quorumlog.errors import InvalidArgument, InvariantViolation, ProtocolError
from quorumlog.types import Buffer, Index, NodeId

_VERSION: Final = 1
_COUNTS = struct.Struct("<BHH")
_MAX_ID_BYTES: Final = 255
_MAX_COUNT: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class Members:
    """Both tuples are sorted; no node is in both or twice.

    Without voters the configuration is not known yet: such a node only listens.
    """

    voters: tuple[NodeId, ...]
    learners: tuple[NodeId, ...] = ()
    """Receive the log and count for nothing."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "voters", tuple(sorted(self.voters)))
        object.__setattr__(self, "learners", tuple(sorted(self.learners)))
        everybody = self.voters + self.learners
        if len(set(everybody)) != len(everybody):
            raise InvalidArgument(f"a node stands twice in the configuration {everybody}")
        if max(len(self.voters), len(self.learners)) > _MAX_COUNT:
            raise InvalidArgument(f"a group has at most {_MAX_COUNT} voters and learners each")
        for node_id in everybody:
            if not 0 < len(node_id.encode()) <= _MAX_ID_BYTES:
                raise InvalidArgument(f"a node id has 1 to {_MAX_ID_BYTES} bytes, not {node_id!r}")

    def encode(self) -> bytes:
        parts = [_COUNTS.pack(_VERSION, len(self.voters), len(self.learners))]
        for node_id in self.voters + self.learners:
            raw = node_id.encode()
            parts += (bytes((len(raw),)), raw)
        return b"".join(parts)

    @staticmethod
    def decode(body: Buffer) -> "Members":
        """The inverse of :meth:`encode`. Raises ProtocolError for anything else."""
        raw = bytes(body)
        try:
            version, voter_count, learner_count = _COUNTS.unpack_from(raw)
            if version != _VERSION:
                raise ProtocolError(f"unknown version {version} of a configuration")
            ids: list[NodeId] = []
            at = _COUNTS.size
            for _ in range(voter_count + learner_count):
                end = at + 1 + raw[at]
                if end > len(raw):
                    raise ProtocolError("the configuration ends within a node id")
                ids.append(NodeId(raw[at + 1 : end].decode()))
                at = end
            members = Members(tuple(ids[:voter_count]), tuple(ids[voter_count:]))
        except (struct.error, IndexError, UnicodeDecodeError, InvalidArgument) as error:
            raise ProtocolError(f"not an encoded configuration: {error}") from error
        if members.encode() != raw:
            raise ProtocolError("the configuration is not in its canonical form")
        return members


class Configurations:
    """The configurations that hold or may hold again: one that is final, and those after it."""

    def __init__(self, initial: Members, entries: Sequence[tuple[Index, Members]]) -> None:
        self._entries: list[tuple[Index, Members]] = [(Index(0), initial)]
        for index, members in entries:
            self.append(index, members)

    @property
    def current(self) -> Members:
        return self._entries[-1][1]

    @property
    def current_index(self) -> Index:
        """Where the current one stands in the log; 0 when it came from elsewhere."""
        return self._entries[-1][0]

    def append(self, index: Index, members: Members) -> None:
        if index <= self.current_index:
            raise InvariantViolation(f"configuration {index} follows that of {self.current_index}")
        self._entries.append((index, members))

    def truncate(self, from_index: int) -> None:
        """Forget those at ``from_index`` and above."""
        while self._entries[-1][0] >= from_index:
            if len(self._entries) == 1:
                raise InvariantViolation(f"no configuration is left below index {from_index}")
            self._entries.pop()

    def committed(self, commit_index: int) -> None:
        """Forget what can never hold again, now that ``commit_index`` is committed."""
        while len(self._entries) > 1 and self._entries[1][0] <= commit_index:
            del self._entries[0]
