"""What the state of a group has to be at every index: a machine of our own over the history."""

from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.metadata_machine import MetadataMachine
from quorumlog.broker.partition import PartitionMachine
from quorumlog.replication.state_machine import StateMachine
from quorumlog.types import METADATA_GROUP
from sim.history import GroupHistory


class States:
    """Snapshots by group and index, made from the committed batches alone as they are asked for."""

    def __init__(self) -> None:
        self._machines: dict[int, StateMachine] = {}
        self._snapshots: dict[int, list[bytes]] = {}

    def at(self, history: GroupHistory, index: int) -> bytes:
        """The state of the group of ``history`` after batch ``index``, which is committed."""
        group = history.group
        if group not in self._machines:
            self._machines[group] = _new_machine(group)
            self._snapshots[group] = [self._machines[group].snapshot()]
        snapshots = self._snapshots[group]
        for batch in history.committed[len(snapshots) - 1 : index]:
            self._machines[group].apply(batch)
            snapshots.append(self._machines[group].snapshot())
        return snapshots[index]


def _new_machine(group: int) -> StateMachine:
    if group == METADATA_GROUP:
        return MetadataMachine(MetadataState(), "", lambda: None)
    return PartitionMachine()
