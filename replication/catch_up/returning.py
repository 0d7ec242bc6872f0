"""How a replica that left its group, and was asked back, comes to vote again.

The replica R deleted its log when the group was settled without it through index S: every batch
committed until then is durable at a majority of the members that do not include R. It kept its term
and vote, so it does not vote twice. But a member of before that knows nothing of the change may
still ask for its vote, and R could not tell by its own log that this one lacks committed batches.

So R grants no vote and stands for nothing until its log durably has a configuration behind S that
names it. Then:

- *It has what was committed up to S.* R follows only leaders of terms up from its own. If R was in
  the majority that let it go, such a leader is not older than that, and has all of it (Leader
  Completeness, Raft §5.4.3). If R was not, everybody else was, and nobody is left who lacks it.
- *Nobody waits for R in vain.* It becomes a voter only after it acknowledged the configuration that
  made it a learner (the leader sees to that), which is behind S and durable then.
"""

from collections.abc import Callable
from typing import Protocol

import structlog

from quorumlog.log.state_snapshot import StateSnapshot
from quorumlog.replication.catch_up.messages import EndAnswer
from quorumlog.replication.core.core import RaftCore
from quorumlog.types import GroupId, Index, NodeId

_log = structlog.get_logger()


class ComingBack(Protocol):
    """The replica, as this needs it."""

    group: GroupId
    core: RaftCore

    @property
    def awaited(self) -> StateSnapshot | None: ...

    @property
    def restored_index(self) -> Index: ...


class Returning:
    """In the place of :class:`~quorumlog.replication.catch_up.recovery.Recovery`; asks nobody."""

    def __init__(
        self, node_id: NodeId, replica: ComingBack, settled_index: Index, whole: Callable[[], None]
    ) -> None:
        """``whole`` is called once, when it may vote."""
        self._node_id = node_id
        self._replica = replica
        self._settled_index = settled_index
        self._whole = whole
        self._is_whole = False

    def look(self, now_s: float) -> None:
        replica = self._replica
        core = replica.core
        if not core.recovering or self._is_whole or self._node_id not in core.members.everybody:
            return
        index = core.members_index
        if index == 0 and replica.awaited is None:
            # The configuration came with a state, behind which the log goes on.
            index = replica.restored_index
        if self._settled_index < index <= core.durable_index:
            self._is_whole = True
            _log.info("replica_came_back", group=replica.group, index=index)
            self._whole()

    def answered(self, answer: EndAnswer) -> None:
        """Nothing was asked."""
