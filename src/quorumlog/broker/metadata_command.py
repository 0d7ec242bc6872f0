"""The metadata group's commands: what can be checked of them without the state; their results."""

from google.protobuf.message import DecodeError

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.cluster_settings import check_cluster_settings
from quorumlog.broker.topic_config import check_topic_config
from quorumlog.broker.topics import (
    MAX_REPLICAS,
    Presence,
    check_partition_count,
    check_replica_count,
    check_topic_name,
)
from quorumlog.errors import InvalidArgument
from quorumlog.rpc_status import error_from


def parse_command(encoded: bytes) -> metadata_pb2.Command:
    """The command, when this release knows all of it.

    Raises:
        InvalidArgument: not a command, one of another release, or one with fields of another
            release: what is not known cannot be obeyed, and must not be skipped.
    """
    try:
        command = metadata_pb2.Command.FromString(encoded)
    except DecodeError as error:
        raise InvalidArgument(f"not a metadata command: {error}") from error
    size_bytes = command.ByteSize()
    command.DiscardUnknownFields()
    if command.WhichOneof("command") is None or command.ByteSize() != size_bytes:
        raise InvalidArgument("a metadata command that this release does not know")
    return command


def check_command(command: metadata_pb2.Command) -> None:
    """Raise InvalidArgument for what no state could accept; to be asked before proposing."""
    match command.WhichOneof("command"):
        case "register_node":
            node = command.register_node.node
            if not node.id or not node.address:
                raise InvalidArgument("a node registers with its id and its address")
        case "note_presence":
            if command.note_presence.presence not in set(Presence):
                raise InvalidArgument("a node is present, left or failed, and nothing else")
        case "create_topic":
            check_topic_name(command.create_topic.name)
            check_partition_count(command.create_topic.partitions)
            check_topic_config(command.create_topic.config)
        case "alter_topic":
            check_topic_name(command.alter_topic.name)
            if command.alter_topic.partitions:
                check_partition_count(command.alter_topic.partitions)
            if command.alter_topic.replicas:
                check_replica_count(command.alter_topic.replicas, MAX_REPLICAS)
            check_topic_config(command.alter_topic.config)
        case "delete_topic":
            check_topic_name(command.delete_topic.name)
        case "assign_replicas":
            check_replica_count(len(command.assign_replicas.wanted), MAX_REPLICAS)
        case "set_cluster":
            check_cluster_settings(command.set_cluster)


def raise_for(result: metadata_pb2.Result) -> metadata_pb2.Result:
    """``result`` when the command was done; otherwise raise the error it tells, of its own type."""
    if result.error:
        raise error_from(result.error, result.message, result.details)
    return result
