"""Who belongs to a group, as the log says (Raft §6).

A CONFIG batch carries one :class:`Members`, which holds from the moment the batch is in the log,
committed or not; when the batch is cut off again, the one before it holds again.

Body of a CONFIG batch, little-endian; version 2 stands for a joint configuration, and for nothing
else:

=======  ====  ==============  =================================================================
offset   size  field           meaning
=======  ====  ==============  =================================================================
0        1     version         1, or 2 with ``outgoing_count``
1        2     voter_count
3        2     learner_count
5        2     outgoing_count  version 2 only, not 0
5 or 7         ids             voters, learners, outgoing: one byte for the length, then the id,
                               UTF-8
=======  ====  ==============  =================================================================
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from quorumlog.errors import InvalidArgument, InvariantViolation, ProtocolError
from quorumlog.types import Buffer, Index, NodeId

_FINAL: Final = 1
_JOINT: Final = 2
_COUNTS = struct.Struct("<BHH")
_JOINT_COUNTS = struct.Struct("<BHHH")
_MAX_ID_BYTES: Final = 255
_MAX_COUNT: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class Members:
    """All tuples are sorted and name nobody twice; no voter is a learner.

    With ``outgoing`` the configuration is *joint*: the group is on its way from those voters to
    ``voters``, and everything takes a majority of both (Raft §6). Without voters the configuration
    is not known yet: such a node only listens.
    """

    voters: tuple[NodeId, ...]
    learners: tuple[NodeId, ...] = ()
    """Receive the log and count for nothing; one that is in ``outgoing`` counts there."""
    outgoing: tuple[NodeId, ...] = ()
    """The voters before, while the change to ``voters`` is under way; empty when it is final."""

    def __post_init__(self) -> None:
        for name in ("voters", "learners", "outgoing"):
            object.__setattr__(self, name, tuple(sorted(getattr(self, name))))
        for group in (self.voters + self.learners, self.outgoing):
            if len(set(group)) != len(group):
                raise InvalidArgument(f"a node stands twice in the configuration {group}")
            for node_id in group:
                if not 0 < len(node_id.encode()) <= _MAX_ID_BYTES:
                    raise InvalidArgument(
                        f"a node id has 1 to {_MAX_ID_BYTES} bytes, not {node_id!r}"
                    )
        if self.outgoing and not self.voters:
            raise InvalidArgument("a joint configuration has voters to change to")
        if max(len(self.voters), len(self.learners), len(self.outgoing)) > _MAX_COUNT:
            raise InvalidArgument(f"a group has at most {_MAX_COUNT} voters and learners each")

    @property
    def voting(self) -> tuple[NodeId, ...]:
        """Everybody whose vote counts somewhere, sorted."""
        return tuple(sorted({*self.voters, *self.outgoing})) if self.outgoing else self.voters

    @property
    def everybody(self) -> tuple[NodeId, ...]:
        """All who receive the log, sorted."""
        return tuple(sorted({*self.voters, *self.learners, *self.outgoing}))

    @property
    def final(self) -> "Members":
        """What a joint configuration leads to."""
        return Members(self.voters, self.learners)

    def encode(self) -> bytes:
        counts = (len(self.voters), len(self.learners))
        if self.outgoing:
            parts = [_JOINT_COUNTS.pack(_JOINT, *counts, len(self.outgoing))]
        else:
            parts = [_COUNTS.pack(_FINAL, *counts)]
        for node_id in self.voters + self.learners + self.outgoing:
            raw = node_id.encode()
            parts += (bytes((len(raw),)), raw)
        return b"".join(parts)

    @staticmethod
    def decode(body: Buffer) -> "Members":
        """The inverse of :meth:`encode`. Raises ProtocolError for anything else."""
        raw = bytes(body)
        try:
            voter_count, learner_count, outgoing_count, at = _unpack_counts(raw)
            ids: list[NodeId] = []
            for _ in range(voter_count + learner_count + outgoing_count):
                end = at + 1 + raw[at]
                if end > len(raw):
                    raise ProtocolError("the configuration ends within a node id")
                ids.append(NodeId(raw[at + 1 : end].decode()))
                at = end
            known = voter_count + learner_count
            members = Members(
                tuple(ids[:voter_count]), tuple(ids[voter_count:known]), tuple(ids[known:])
            )
        except (struct.error, IndexError, UnicodeDecodeError, InvalidArgument) as error:
            raise ProtocolError(f"not an encoded configuration: {error}") from error
        if members.encode() != raw:
            raise ProtocolError("the configuration is not in its canonical form")
        return members


def _unpack_counts(raw: bytes) -> tuple[int, int, int, int]:
    """Voters, learners, outgoing, and the position of the ids."""
    version = raw[0]
    if version == _FINAL:
        _, voter_count, learner_count = _COUNTS.unpack_from(raw)
        return voter_count, learner_count, 0, _COUNTS.size
    if version == _JOINT:
        _, voter_count, learner_count, outgoing_count = _JOINT_COUNTS.unpack_from(raw)
        return voter_count, learner_count, outgoing_count, _JOINT_COUNTS.size
    raise ProtocolError(f"unknown version {version} of a configuration")


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

    def may_be_voter(self, node_id: NodeId) -> bool:
        """Whether ``node_id`` votes in one that holds, or may hold again."""
        return any(
            node_id in members.voters or node_id in members.outgoing for _, members in self._entries
        )

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
