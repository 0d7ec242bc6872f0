"""What a node's copy of the metadata's log says of the groups that it may have had."""

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.past_groups import first_new_group, is_durable_here
from quorumlog.log.batch import Draft, Kind
from quorumlog.log.config import LogConfig
from quorumlog.log.log import Log
from quorumlog.log.recovery import RecoveryReport
from quorumlog.replication.host import GroupHost
from quorumlog.replication.replica import Replica
from quorumlog.types import METADATA_GROUP
from sim.disk import SimDisk
from stored.batches import FixedClock

NODE = "a"


def commands(*partitions: int) -> list[bytes]:
    """A node registers, and then a topic is made with each of these numbers of partitions."""
    node = pb.Node(id=NODE, name=NODE, address="a:7400", version="1")
    found = [pb.Command(register_node=pb.RegisterNode(node=node))]
    for number, count in enumerate(partitions):
        topic = pb.CreateTopic(name=f"t{number}", partitions=count, replicas=1, candidates=[NODE])
        found.append(pb.Command(create_topic=topic))
    return [each.SerializeToString() for each in found]


def log_of(bodies: list[bytes]) -> Log:
    """With a batch that is no command before each one."""
    log = Log.open(SimDisk(random.Random(1)), "log", LogConfig(), FixedClock())
    for body in bodies:
        for draft in (Draft.of(b"", kind=Kind.NOOP), Draft.of(body, kind=Kind.COMMAND)):
            log.append([draft.stamp(log.next_index, 1, 0, log.last_timestamp_ms)])
    log.flush()
    return log


def replica_with(log: Log, applied_index: int, **changes: Any) -> Replica:
    core = SimpleNamespace(recovering=changes.get("recovering", False))
    awaited, cut = changes.get("awaited"), changes.get("cut", "")
    stub_log = cast(Any, log)
    stub_log.recovery = replace(RecoveryReport(), reason=cut)
    return cast(
        Replica,
        SimpleNamespace(core=core, log=log, applied_index=applied_index, awaited=awaited),
    )


def applied(bodies: list[bytes]) -> MetadataState:
    metadata = MetadataState()
    for number, body in enumerate(bodies):
        metadata.apply(body, 2 * number + 2)
    return metadata


@pytest.mark.parametrize("known", range(4))
def test_all_that_the_log_gives_out_counts_whatever_is_applied_of_it(known: int) -> None:
    bodies = commands(3, 4)
    metadata = applied(bodies[:known])
    before = metadata.snapshot()
    assert first_new_group(metadata, replica_with(log_of(bodies), 2 * known)) == 8
    assert metadata.snapshot() == before


@pytest.mark.parametrize("lost", [{"recovering": True}, {"awaited": object()}, {"cut": "torn"}])
def test_a_log_that_may_have_lost_something_says_nothing(lost: dict[str, Any]) -> None:
    bodies = commands(3)
    assert first_new_group(MetadataState(), replica_with(log_of(bodies), 0)) == 4
    assert first_new_group(MetadataState(), replica_with(log_of(bodies), 0, **lost)) is None


def test_a_log_with_a_command_of_another_release_says_nothing() -> None:
    assert first_new_group(MetadataState(), replica_with(log_of([b"\xff"]), 0)) is None


def test_what_is_applied_is_durable_only_once_it_is_on_the_disk_here() -> None:
    log, metadata = log_of(commands(1)[:1]), applied(commands(1))
    host = cast(GroupHost, SimpleNamespace(replicas={}))
    assert not is_durable_here(host, metadata)
    host.replicas[METADATA_GROUP] = replica_with(log, 4)
    assert not is_durable_here(host, metadata)
    last = Draft.of(commands(1)[1], kind=Kind.COMMAND)
    for draft in (Draft.of(b"", kind=Kind.NOOP), last):
        log.append([draft.stamp(log.next_index, 1, 0, log.last_timestamp_ms)])
    assert not is_durable_here(host, metadata)
    log.flush()
    assert is_durable_here(host, metadata)
