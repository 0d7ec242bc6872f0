"""Several fake nodes behind the client's transport port, with the faults a client must survive.

Nodes share their partitions (what is acknowledged is never lost here); what is faulty is who leads,
who can be reached, and whether requests and replies arrive.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

from google.protobuf.message import Message

from client.fake_log import FakePartition
from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.broker.note_command import SetCheckpoint
from quorumlog.client.transport import Connection, MessageT, Stream
from quorumlog.errors import (
    InvalidArgument,
    NotLeader,
    OffsetOutOfRange,
    OutcomeUnknown,
    PartitionOutOfRange,
    QuorumlogError,
    TopicExists,
    Unavailable,
    UnknownTopic,
)
from quorumlog.types import Offset

HEARTBEAT_S = 5.0


@dataclass
class FakeNode:
    node_id: str
    address: str
    up: bool = True
    hung: bool = False
    behind: bool = False
    """Answers metadata questions as if it had heard of nothing yet."""


class FakeCluster:
    """``lose_reply`` and ``lose_request`` are probabilities per request of a produce stream."""

    def __init__(self, nodes: int = 3, seed: int = 0) -> None:
        self.changes: list[Message] = []
        """What was asked about nodes and places, in order."""
        self.settings = pb.ClusterSettings()
        self.replacements: dict[str, pb.Replacement] = {}
        """By node id."""
        self.racks: dict[str, str] = {}
        self.known: dict[str, dict[str, Any]] = {}
        """Fields of a node's message that are not the usual ones."""
        """By node id, of those that say one."""
        self.rng = random.Random(seed)
        self.nodes = {
            f"n{number}:7400": FakeNode(f"node{number}", f"n{number}:7400")
            for number in range(1, nodes + 1)
        }
        self.others: list[pb.GossipMember] = []
        """Who else is in the same gossip."""
        self.topics: dict[str, list[FakePartition]] = {}
        self.configs: dict[str, pb.TopicConfig] = {}
        self.delay_s = 0.001
        self.held_s = 0.0
        """How long nodes keep a unary request that they answer."""
        self.lose_reply = 0.0
        self.lose_request = 0.0
        self.takes_packed = True
        """False: as nodes of releases that knew one request a message."""
        self.produce_script: deque[QuorumlogError] = deque()
        self.unary_script: deque[tuple[str, QuorumlogError, bool]] = deque()
        self.calls: list[tuple[str, str]] = []
        self.produced: list[tuple[str, pb.ProduceRequest]] = []
        self.garble_next_fetch = 0
        self.most_unanswered = 0
        self.packed: list[int] = []
        """Requests in each message of all produce streams."""
        self.next_producer_id = 1
        self._streams: dict[FakeStream[Any], None] = {}

    # ---------------------------------------------------------------------------- the tests'
    # handles

    @property
    def addresses(self) -> list[str]:
        return list(self.nodes)

    def connect(self, address: str) -> Connection:
        return FakeConnection(self, address)

    def add_topic(self, name: str, partitions: int = 1) -> list[FakePartition]:
        addresses = self.addresses
        self.topics[name] = [
            FakePartition(name, number, list(addresses), addresses[number % len(addresses)])
            for number in range(partitions)
        ]
        self.configs[name] = pb.TopicConfig(fsync="always")
        return self.topics[name]

    def elect(self, partition: FakePartition, leader: str | None) -> None:
        partition.leader = leader
        partition.term += 1
        partition.changed.set()
        partition.changed = asyncio.Event()

    def kill(self, address: str) -> None:
        """The node is gone: its streams break, nobody listens; it leads nothing any more."""
        self.nodes[address].up = False
        for partition in self.partitions():
            if partition.leader == address:
                self.elect(partition, None)
        self.break_streams(address)

    def start(self, address: str) -> None:
        self.nodes[address].up = True

    def break_streams(self, address: str | None = None) -> None:
        for stream in list(self._streams):
            if address in (None, stream.address):
                stream.break_off(Unavailable("the connection broke"))

    def partitions(self) -> list[FakePartition]:
        return [partition for topic in self.topics.values() for partition in topic]

    def open_streams(self) -> int:
        return len(self._streams)

    # ---------------------------------------------------------------------------- what nodes answer

    def now_ms(self) -> int:
        return round(asyncio.get_running_loop().time() * 1000) + 1_000_000

    def leading(self, address: str, topic: str, number: int) -> FakePartition:
        """The partition, at its leader; raises what another node answers."""
        if topic not in self.topics or self.nodes[address].behind:
            raise UnknownTopic(topic)
        partitions = self.topics[topic]
        if number >= len(partitions):
            raise PartitionOutOfRange(topic, number, len(partitions))
        partition = partitions[number]
        if partition.leader != address:
            leader = partition.leader
            hint = leader if leader is not None and self.nodes[leader].up else None
            raise NotLeader(leader=hint)
        return partition

    def topic_message(self, name: str) -> pb.Topic:
        topic = pb.Topic(name=name, replicas=len(self.nodes), config=self.configs[name])
        for partition in self.topics[name]:
            leader = self.nodes[partition.leader].node_id if partition.leader else ""
            topic.partitions.add(
                partition=partition.number,
                replicas=[self.nodes[replica].node_id for replica in partition.replicas],
                leader=leader,
                term=partition.term,
                log_start_offset=partition.start_offset,
                high_watermark=partition.end_offset,
                exact=True,
            )
        return topic

    def node_messages(self) -> list[pb.Node]:
        return [self._node_message(node) for node in self.nodes.values()]

    def _node_message(self, node: FakeNode) -> pb.Node:
        fields = {
            "id": node.node_id,
            "name": node.node_id,
            "address": node.address,
            "role": "voter",
            "state": "alive" if node.up else "failed",
            "version": "0.1.0",
            "standing": "active",
            "rack": self.racks.get(node.node_id, ""),
        }
        return pb.Node(**{**fields, **self.known.get(node.node_id, {})})

    def answer(self, address: str, method: str, request: Any) -> Message:
        name = method.rpartition("/")[2]
        handler: Callable[[str, Any], Message] = getattr(self, f"_{name}")
        return handler(address, request)

    def _GetMetadata(self, address: str, request: pb.MetadataRequest) -> pb.Metadata:
        metadata = pb.Metadata(cluster_id="fake", nodes=self.node_messages())
        for name in request.topics:
            if name in self.topics and not self.nodes[address].behind:
                metadata.topics.append(self.topic_message(name))
            else:
                metadata.unknown_topics.append(name)
        return metadata

    def _CreateTopic(self, address: str, request: pb.CreateTopicRequest) -> pb.Topic:
        if request.name in self.topics:
            raise TopicExists(request.name)
        if "/" in request.name:
            raise InvalidArgument(f"{request.name!r} is no name for a topic")
        self.add_topic(request.name, request.partitions or 1)
        self.configs[request.name].MergeFrom(request.config)
        return self.topic_message(request.name)

    def _AlterTopic(self, address: str, request: pb.AlterTopicRequest) -> pb.Topic:
        self._known(request.name)
        partitions = self.topics[request.name]
        for number in range(len(partitions), request.partitions):
            partitions.append(
                FakePartition(request.name, number, self.addresses, self.addresses[0])
            )
        self.configs[request.name].MergeFrom(request.config)
        return self.topic_message(request.name)

    def _DeleteTopic(self, address: str, request: pb.DeleteTopicRequest) -> pb.DeleteTopicResponse:
        self._known(request.name)
        del self.topics[request.name]
        return pb.DeleteTopicResponse()

    def _DeleteBefore(
        self, address: str, request: pb.DeleteBeforeRequest
    ) -> pb.DeleteBeforeResponse:
        partition = self.leading(address, request.topic, request.partition)
        if request.offset > partition.end_offset:
            raise OffsetOutOfRange(request.offset, partition.start_offset, partition.end_offset)
        partition.start_offset = max(partition.start_offset, request.offset)
        return pb.DeleteBeforeResponse(log_start_offset=partition.start_offset)

    def _DescribeTopic(self, address: str, request: pb.DescribeTopicRequest) -> pb.Topic:
        self._known(request.name)
        return self.topic_message(request.name)

    def _ListTopics(self, address: str, request: pb.ListTopicsRequest) -> pb.ListTopicsResponse:
        return pb.ListTopicsResponse(topics=[self.topic_message(name) for name in self.topics])

    def _Status(self, address: str, request: pb.ClusterStatusRequest) -> pb.ClusterStatus:
        nodes = self.node_messages()
        for node in nodes:
            if node.id in self.replacements:
                node.replacement.CopyFrom(self.replacements[node.id])
        return pb.ClusterStatus(
            settings=self.settings,
            cluster_id="fake",
            node_id=self.nodes[address].node_id,
            version="0.1.0",
            nodes=nodes,
            leader="node1",
            term=1,
            commit_index=7,
            topics=len(self.topics),
            partitions=len(self.partitions()),
            others=self.others,
        )

    def _AssignReplicas(self, address: str, request: pb.AssignReplicasRequest) -> pb.Topic:
        self._known(request.topic)
        self.changes.append(request)
        return self.topic_message(request.topic)

    def _AddVoter(self, address: str, request: pb.AddVoterRequest) -> pb.AddVoterResponse:
        self.changes.append(request)
        return pb.AddVoterResponse(voters=[node.node_id for node in self.nodes.values()])

    def _RemoveNode(self, address: str, request: pb.RemoveNodeRequest) -> pb.RemoveNodeResponse:
        self.changes.append(request)
        return pb.RemoveNodeResponse(moving=2)

    def _DrainNode(self, address: str, request: pb.DrainNodeRequest) -> pb.DrainNodeResponse:
        self.changes.append(request)
        return pb.DrainNodeResponse(moving=2 if request.replicas else 0)

    def _AlterCluster(self, address: str, request: pb.AlterClusterRequest) -> pb.ClusterSettings:
        self.changes.append(request)
        self.settings.replace_failed_after_s = request.replace_failed_after_s
        return self.settings

    def _TransferLeadership(
        self, address: str, request: pb.TransferLeadershipRequest
    ) -> pb.TransferLeadershipResponse:
        partition = self.leading(address, request.topic, request.partition)
        others = [item for item in self.nodes.values() if item.address != address]
        target = next((item for item in others if item.node_id == request.target), others[0])
        self.elect(partition, target.address)
        return pb.TransferLeadershipResponse(leader=target.node_id)

    def _InitProducer(
        self, address: str, request: pb.InitProducerRequest
    ) -> pb.InitProducerResponse:
        self.next_producer_id += 1
        return pb.InitProducerResponse(producer_id=self.next_producer_id - 1, producer_epoch=0)

    def _ProduceAt(self, address: str, request: pb.ProduceAtRequest) -> pb.ProduceResponse:
        partition = self.leading(address, request.topic, request.partition)
        base_offset, timestamp_ms = partition.append_at(request.batch, request.expected_end, 1_000)
        return pb.ProduceResponse(base_offset=base_offset, timestamp_ms=timestamp_ms)

    def _ListOffsets(self, address: str, request: pb.ListOffsetsRequest) -> pb.ListOffsetsResponse:
        partition = self.leading(address, request.topic, request.partition)
        return pb.ListOffsetsResponse(
            offset=partition.find(request.start),
            log_start_offset=partition.start_offset,
            high_watermark=partition.end_offset,
        )

    def _Fence(self, address: str, request: pb.FenceRequest) -> pb.FenceResponse:
        partition = self.leading(address, request.topic, request.partition)
        partition.fence(request.token)
        return pb.FenceResponse(token=partition.notes.fencing_token)

    def _SetCheckpoint(
        self, address: str, request: pb.SetCheckpointRequest
    ) -> pb.SetCheckpointResponse:
        partition = self.leading(address, request.topic, request.partition)
        command = SetCheckpoint(request.name, Offset(request.offset), request.rewind)
        partition.notes = command.applied_to(partition.notes)
        return pb.SetCheckpointResponse(offset=partition.notes.checkpoints[request.name])

    def _ForgetCheckpoint(
        self, address: str, request: pb.ForgetCheckpointRequest
    ) -> pb.ForgetCheckpointResponse:
        partition = self.leading(address, request.topic, request.partition)
        partition.notes = partition.notes.without_checkpoint(request.name)
        return pb.ForgetCheckpointResponse()

    def _GetNotes(self, address: str, request: pb.NotesRequest) -> pb.Notes:
        notes = self.leading(address, request.topic, request.partition).notes
        return pb.Notes(fencing_token=notes.fencing_token, checkpoints=dict(notes.checkpoints))

    def _Fetch(self, address: str, request: pb.FetchRequest) -> pb.FetchResponse:
        partition = self.leading(address, request.topic, request.partition)
        return self.fetched(partition, request.start.offset, request.max_bytes)

    def fetched(self, partition: FakePartition, offset: int, max_bytes: int) -> pb.FetchResponse:
        data, next_offset = partition.read(offset, max_bytes or 1 << 20)
        if data and self.garble_next_fetch:
            self.garble_next_fetch -= 1
            data = data[:-1] + bytes([data[-1] ^ 0xFF])
        return pb.FetchResponse(
            batches=data,
            next_offset=next_offset,
            log_start_offset=partition.start_offset,
            high_watermark=partition.end_offset,
        )

    def _known(self, name: str) -> None:
        if name not in self.topics:
            raise UnknownTopic(name)

    # ---------------------------------------------------------------------------- streams

    def opened(self, stream: "FakeStream[Any]") -> None:
        self._streams[stream] = None

    def closed(self, stream: "FakeStream[Any]") -> None:
        self._streams.pop(stream, None)

    async def serve_produce(self, stream: "FakeStream[Any]") -> None:
        takes_packed = False
        while True:
            message: pb.ProduceRequest = await stream.requests.get()
            takes_packed = takes_packed or (message.takes_packed and self.takes_packed)
            if message.more and not takes_packed:
                raise AssertionError("this node never said that it takes packed requests")
            requests = [message, *message.more]
            self.packed.append(len(requests))
            self.most_unanswered = max(self.most_unanswered, stream.unanswered)
            await asyncio.sleep(self.delay_s * self.rng.uniform(0.5, 1.5))
            if self.nodes[stream.address].hung:
                continue
            answers = []
            for request in requests:
                if self.rng.random() < self.lose_request:
                    stream.break_off(Unavailable("the connection broke before the request"))
                    return
                answers.append(self._produce(stream.address, request))
                if self.rng.random() < self.lose_reply:
                    stream.break_off(Unavailable("the connection broke before the reply"))
                    return
            stream.unanswered -= len(answers)
            if takes_packed:
                first, *more = answers
                first.more.extend(more)
                first.takes_packed = True
                answers = [first]
            for answer in answers:
                stream.responses.put_nowait(answer)

    def _produce(self, address: str, request: pb.ProduceRequest) -> pb.ProduceResponse:
        self.produced.append((address, request))
        response = pb.ProduceResponse(request_id=request.request_id)
        try:
            partition = self.leading(address, request.topic, request.partition)
            scripted = self.produce_script.popleft() if self.produce_script else None
            if scripted is not None and not isinstance(scripted, OutcomeUnknown):
                raise scripted
            base_offset, timestamp_ms = partition.append(request.batch, self.now_ms())
            if scripted is not None:
                raise scripted
            response.base_offset = base_offset
            response.timestamp_ms = timestamp_ms
        except QuorumlogError as error:
            response.error.reason = error.reason
            response.error.message = str(error)
            response.error.retryable = error.retryable
            response.error.metadata.update(error.details())
        return response

    async def serve_consume(self, stream: "FakeStream[Any]", request: pb.ConsumeRequest) -> None:
        try:
            offset = request.start.offset
            while True:
                await asyncio.sleep(self.delay_s)
                if self.nodes[stream.address].hung:
                    await asyncio.sleep(HEARTBEAT_S)
                    continue
                partition = self.leading(stream.address, request.topic, request.partition)
                changed = partition.changed
                response = self.fetched(partition, offset, request.max_bytes)
                offset = response.next_offset
                await stream.responses.put(response)
                if offset < partition.end_offset:
                    continue
                if not request.follow:
                    stream.responses.put_nowait(None)
                    return
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        await changed.wait()
                except TimeoutError:
                    continue
        except QuorumlogError as error:
            stream.break_off(error)


class FakeConnection:
    def __init__(self, cluster: FakeCluster, address: str) -> None:
        self._cluster = cluster
        self._address = address
        self._streams: list[FakeStream[Any]] = []

    async def unary(
        self, method: str, request: Message, response_type: type[MessageT], timeout_s: float
    ) -> MessageT:
        cluster = self._cluster
        cluster.calls.append((self._address, method.rpartition("/")[2]))
        await asyncio.sleep(cluster.delay_s)
        node = cluster.nodes.get(self._address)
        if node is None or not node.up:
            raise Unavailable(f"connection refused by {self._address}")
        await asyncio.sleep(min(cluster.held_s, timeout_s))
        if node.hung or cluster.held_s > timeout_s:
            await asyncio.sleep(timeout_s - cluster.held_s)
            raise OutcomeUnknown(f"{self._address} did not answer in time")
        name = method.rpartition("/")[2]
        scripted = cluster.unary_script[0] if cluster.unary_script else None
        if scripted is not None and scripted[0] == name:
            cluster.unary_script.popleft()
            if scripted[2]:
                cluster.answer(self._address, method, request)
            raise scripted[1]
        response = cluster.answer(self._address, method, request)
        return response_type.FromString(response.SerializeToString())

    def stream(
        self, method: str, response_type: type[MessageT], request: Message | None = None
    ) -> Stream[MessageT]:
        stream: FakeStream[MessageT] = FakeStream(self._cluster, self._address)
        node = self._cluster.nodes.get(self._address)
        if node is None or not node.up:
            stream.break_off(Unavailable(f"connection refused by {self._address}"))
            return stream
        self._cluster.opened(stream)
        self._streams.append(stream)
        if isinstance(request, pb.ConsumeRequest):
            stream.serve(self._cluster.serve_consume(stream, request))
        else:
            stream.serve(self._cluster.serve_produce(stream))
        return stream

    async def close(self) -> None:
        for stream in self._streams:
            stream.break_off(Unavailable("the connection is closed"))


class FakeStream(Generic[MessageT]):
    """Requests of any number; at most four responses wait, then the server does."""

    def __init__(self, cluster: FakeCluster, address: str) -> None:
        self.address = address
        self.requests: asyncio.Queue[Any] = asyncio.Queue()
        self.responses: asyncio.Queue[Any] = asyncio.Queue()
        self.unanswered = 0
        self._cluster = cluster
        self._broken: asyncio.Future[QuorumlogError] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    def serve(self, work: Any) -> None:
        self._task = asyncio.get_running_loop().create_task(work)

    def break_off(self, error: QuorumlogError) -> None:
        self._cluster.closed(self)
        if not self._broken.done():
            self._broken.set_result(error)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def send(self, request: Message) -> None:
        if self._broken.done():
            raise self._broken.result()
        if isinstance(request, pb.ProduceRequest):
            self.unanswered += 1 + len(request.more)
        self.requests.put_nowait(request)

    async def receive(self) -> MessageT | None:
        """Responses that arrived before the break are still read."""
        if not self.responses.empty():
            response: MessageT | None = self.responses.get_nowait()
            return response
        getter = asyncio.ensure_future(self.responses.get())
        try:
            await asyncio.wait([getter, self._broken], return_when=asyncio.FIRST_COMPLETED)
            if getter.done():
                return getter.result()
            raise self._broken.result()
        finally:
            getter.cancel()

    def cancel(self) -> None:
        self.break_off(Unavailable("the stream is cancelled"))
