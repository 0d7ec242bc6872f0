"""Metadata commands of a service: proposed, and known here when the caller hears of it."""

from typing import Final

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.metadata_command import check_command, raise_for
from quorumlog.broker.metadata_wait import wait_for_metadata
from quorumlog.broker.port import BrokerPort
from quorumlog.errors import OutcomeUnknown

CATCH_UP_TIMEOUT_S: Final = 5.0
"""How long a change waits for the answering node to know of it."""


async def propose(broker: BrokerPort, command: metadata_pb2.Command) -> None:
    """Have ``command`` applied, and return when this node has applied it as well.

    Raises:
        OutcomeUnknown: it is done, and this node did not hear of it within 5 s.
        Whatever the metadata says against it, or proposing raises.
    """
    check_command(command)
    result = raise_for(await broker.propose_metadata(command))
    metadata = broker.metadata
    if not await wait_for_metadata(
        metadata, lambda: metadata.applied_index >= result.index, CATCH_UP_TIMEOUT_S
    ):
        raise OutcomeUnknown(
            "the change was made, but this node did not hear of it in time: look again with "
            "`quorumlog topic list` or `quorumlog cluster status`"
        )
