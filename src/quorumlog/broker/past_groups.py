"""Which groups a node may have had before it started: by its own copy of the metadata's log.

A node opens no group before the batch that gave it out is durable in its own log of group 0
(:mod:`quorumlog.broker.keeper`). What it applied is never cut off, and what is durable survives the
process. So the log, as the next process finds it, has given out every group that the node ever
opened, and perhaps others: a number that it does not reach was not here.

The end of the log may hold batches that were never committed. They count, for more is then taken
for old than was; and where others come in their place, these give out numbers of their own.
"""

from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.metadata_command import parse_command
from quorumlog.errors import InvalidArgument, StorageError
from quorumlog.log.batch import Kind
from quorumlog.replication.host import GroupHost
from quorumlog.replication.replica import Replica
from quorumlog.types import METADATA_GROUP, GroupId


def first_new_group(metadata: MetadataState, replica: Replica) -> GroupId | None:
    """The first number that no group has which this node may have opened; ``metadata`` stays.

    To be asked in the turn of the event loop in which group 0 was opened. Reads what is not applied
    yet of its log, from the disk.

    Returns:
        None: the log does not tell. It lost something, or takes the place of one that did.
    """
    log = replica.log
    if replica.core.recovering or replica.awaited is not None or log.recovery.reason:
        return None
    state = MetadataState()
    state.restore(metadata.snapshot())
    try:
        for batch in log.batches(replica.applied_index + 1):
            if batch.header.kind is Kind.COMMAND:
                parse_command(bytes(batch.body))
                state.apply(bytes(batch.body), batch.header.index)
    except (InvalidArgument, StorageError):
        # A command of another release, or rot: whoever applies it says so.
        return None
    return GroupId(state.next_group)


def is_durable_here(host: GroupHost, metadata: MetadataState) -> bool:
    """Whether this node's own log of group 0 has on disk all that ``metadata`` have applied.

    What a majority has is committed, and applied, perhaps before."""
    replica = host.replicas.get(METADATA_GROUP)
    return replica is not None and replica.log.durable_index >= metadata.applied_index
