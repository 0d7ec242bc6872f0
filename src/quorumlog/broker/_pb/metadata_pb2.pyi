from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Node(_message.Message):
    __slots__ = ("id", "name", "address", "version")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    address: str
    version: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., address: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class RegisterNode(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: Node
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...

class TopicConfig(_message.Message):
    __slots__ = ("fsync", "retention_ms", "retention_bytes", "retention_records", "segment_bytes")
    FSYNC_FIELD_NUMBER: _ClassVar[int]
    RETENTION_MS_FIELD_NUMBER: _ClassVar[int]
    RETENTION_BYTES_FIELD_NUMBER: _ClassVar[int]
    RETENTION_RECORDS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    fsync: str
    retention_ms: int
    retention_bytes: int
    retention_records: int
    segment_bytes: int
    def __init__(self, fsync: _Optional[str] = ..., retention_ms: _Optional[int] = ..., retention_bytes: _Optional[int] = ..., retention_records: _Optional[int] = ..., segment_bytes: _Optional[int] = ...) -> None: ...

class CreateTopic(_message.Message):
    __slots__ = ("name", "partitions", "replicas", "config", "candidates")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    name: str
    partitions: int
    replicas: int
    config: TopicConfig
    candidates: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., partitions: _Optional[int] = ..., replicas: _Optional[int] = ..., config: _Optional[_Union[TopicConfig, _Mapping]] = ..., candidates: _Optional[_Iterable[str]] = ...) -> None: ...

class AlterTopic(_message.Message):
    __slots__ = ("name", "partitions", "config", "candidates", "replicas")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    name: str
    partitions: int
    config: TopicConfig
    candidates: _containers.RepeatedScalarFieldContainer[str]
    replicas: int
    def __init__(self, name: _Optional[str] = ..., partitions: _Optional[int] = ..., config: _Optional[_Union[TopicConfig, _Mapping]] = ..., candidates: _Optional[_Iterable[str]] = ..., replicas: _Optional[int] = ...) -> None: ...

class DeleteTopic(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class AllocateProducer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AssignReplicas(_message.Message):
    __slots__ = ("group", "wanted")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    group: int
    wanted: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, group: _Optional[int] = ..., wanted: _Optional[_Iterable[str]] = ...) -> None: ...

class ReplicasMoved(_message.Message):
    __slots__ = ("moved",)
    class Moved(_message.Message):
        __slots__ = ("group", "move", "replicas", "settled_index")
        GROUP_FIELD_NUMBER: _ClassVar[int]
        MOVE_FIELD_NUMBER: _ClassVar[int]
        REPLICAS_FIELD_NUMBER: _ClassVar[int]
        SETTLED_INDEX_FIELD_NUMBER: _ClassVar[int]
        group: int
        move: int
        replicas: _containers.RepeatedScalarFieldContainer[str]
        settled_index: int
        def __init__(self, group: _Optional[int] = ..., move: _Optional[int] = ..., replicas: _Optional[_Iterable[str]] = ..., settled_index: _Optional[int] = ...) -> None: ...
    MOVED_FIELD_NUMBER: _ClassVar[int]
    moved: _containers.RepeatedCompositeFieldContainer[ReplicasMoved.Moved]
    def __init__(self, moved: _Optional[_Iterable[_Union[ReplicasMoved.Moved, _Mapping]]] = ...) -> None: ...

class DrainNode(_message.Message):
    __slots__ = ("node", "undo", "replicas", "candidates")
    NODE_FIELD_NUMBER: _ClassVar[int]
    UNDO_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    node: str
    undo: bool
    replicas: bool
    candidates: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node: _Optional[str] = ..., undo: bool = ..., replicas: bool = ..., candidates: _Optional[_Iterable[str]] = ...) -> None: ...

class RemoveNode(_message.Message):
    __slots__ = ("node", "replacement", "candidates", "voters", "voters_index")
    NODE_FIELD_NUMBER: _ClassVar[int]
    REPLACEMENT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    VOTERS_FIELD_NUMBER: _ClassVar[int]
    VOTERS_INDEX_FIELD_NUMBER: _ClassVar[int]
    node: str
    replacement: str
    candidates: _containers.RepeatedScalarFieldContainer[str]
    voters: _containers.RepeatedScalarFieldContainer[str]
    voters_index: int
    def __init__(self, node: _Optional[str] = ..., replacement: _Optional[str] = ..., candidates: _Optional[_Iterable[str]] = ..., voters: _Optional[_Iterable[str]] = ..., voters_index: _Optional[int] = ...) -> None: ...

class ForgetNode(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class SetVoters(_message.Message):
    __slots__ = ("voters", "voters_index")
    VOTERS_FIELD_NUMBER: _ClassVar[int]
    VOTERS_INDEX_FIELD_NUMBER: _ClassVar[int]
    voters: _containers.RepeatedScalarFieldContainer[str]
    voters_index: int
    def __init__(self, voters: _Optional[_Iterable[str]] = ..., voters_index: _Optional[int] = ...) -> None: ...

class SetCluster(_message.Message):
    __slots__ = ("replace_failed_after_s",)
    REPLACE_FAILED_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    replace_failed_after_s: int
    def __init__(self, replace_failed_after_s: _Optional[int] = ...) -> None: ...

class NotePresence(_message.Message):
    __slots__ = ("node", "presence", "absent_since_ms")
    NODE_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_FIELD_NUMBER: _ClassVar[int]
    ABSENT_SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    node: str
    presence: str
    absent_since_ms: int
    def __init__(self, node: _Optional[str] = ..., presence: _Optional[str] = ..., absent_since_ms: _Optional[int] = ...) -> None: ...

class TrimLog(_message.Message):
    __slots__ = ("free_index",)
    FREE_INDEX_FIELD_NUMBER: _ClassVar[int]
    free_index: int
    def __init__(self, free_index: _Optional[int] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("register_node", "create_topic", "alter_topic", "delete_topic", "allocate_producer", "assign_replicas", "replicas_moved", "drain_node", "remove_node", "forget_node", "set_voters", "set_cluster", "trim_log", "note_presence")
    REGISTER_NODE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TOPIC_FIELD_NUMBER: _ClassVar[int]
    ALTER_TOPIC_FIELD_NUMBER: _ClassVar[int]
    DELETE_TOPIC_FIELD_NUMBER: _ClassVar[int]
    ALLOCATE_PRODUCER_FIELD_NUMBER: _ClassVar[int]
    ASSIGN_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_MOVED_FIELD_NUMBER: _ClassVar[int]
    DRAIN_NODE_FIELD_NUMBER: _ClassVar[int]
    REMOVE_NODE_FIELD_NUMBER: _ClassVar[int]
    FORGET_NODE_FIELD_NUMBER: _ClassVar[int]
    SET_VOTERS_FIELD_NUMBER: _ClassVar[int]
    SET_CLUSTER_FIELD_NUMBER: _ClassVar[int]
    TRIM_LOG_FIELD_NUMBER: _ClassVar[int]
    NOTE_PRESENCE_FIELD_NUMBER: _ClassVar[int]
    register_node: RegisterNode
    create_topic: CreateTopic
    alter_topic: AlterTopic
    delete_topic: DeleteTopic
    allocate_producer: AllocateProducer
    assign_replicas: AssignReplicas
    replicas_moved: ReplicasMoved
    drain_node: DrainNode
    remove_node: RemoveNode
    forget_node: ForgetNode
    set_voters: SetVoters
    set_cluster: SetCluster
    trim_log: TrimLog
    note_presence: NotePresence
    def __init__(self, register_node: _Optional[_Union[RegisterNode, _Mapping]] = ..., create_topic: _Optional[_Union[CreateTopic, _Mapping]] = ..., alter_topic: _Optional[_Union[AlterTopic, _Mapping]] = ..., delete_topic: _Optional[_Union[DeleteTopic, _Mapping]] = ..., allocate_producer: _Optional[_Union[AllocateProducer, _Mapping]] = ..., assign_replicas: _Optional[_Union[AssignReplicas, _Mapping]] = ..., replicas_moved: _Optional[_Union[ReplicasMoved, _Mapping]] = ..., drain_node: _Optional[_Union[DrainNode, _Mapping]] = ..., remove_node: _Optional[_Union[RemoveNode, _Mapping]] = ..., forget_node: _Optional[_Union[ForgetNode, _Mapping]] = ..., set_voters: _Optional[_Union[SetVoters, _Mapping]] = ..., set_cluster: _Optional[_Union[SetCluster, _Mapping]] = ..., trim_log: _Optional[_Union[TrimLog, _Mapping]] = ..., note_presence: _Optional[_Union[NotePresence, _Mapping]] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("error", "message", "details", "producer_id", "index")
    class DetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ERROR_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    error: str
    message: str
    details: _containers.ScalarMap[str, str]
    producer_id: int
    index: int
    def __init__(self, error: _Optional[str] = ..., message: _Optional[str] = ..., details: _Optional[_Mapping[str, str]] = ..., producer_id: _Optional[int] = ..., index: _Optional[int] = ...) -> None: ...
