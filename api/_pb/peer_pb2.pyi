from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BootstrapState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BOOTSTRAP_STATE_UNSPECIFIED: _ClassVar[BootstrapState]
    BOOTSTRAP_STATE_ACCEPTED: _ClassVar[BootstrapState]
    BOOTSTRAP_STATE_DECIDED: _ClassVar[BootstrapState]
    BOOTSTRAP_STATE_ABORTED: _ClassVar[BootstrapState]
    BOOTSTRAP_STATE_REFUSED: _ClassVar[BootstrapState]
BOOTSTRAP_STATE_UNSPECIFIED: BootstrapState
BOOTSTRAP_STATE_ACCEPTED: BootstrapState
BOOTSTRAP_STATE_DECIDED: BootstrapState
BOOTSTRAP_STATE_ABORTED: BootstrapState
BOOTSTRAP_STATE_REFUSED: BootstrapState

class Hello(_message.Message):
    __slots__ = ("format", "cluster_id", "node_id", "process_id", "address")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    format: int
    cluster_id: str
    node_id: str
    process_id: str
    address: str
    def __init__(self, format: _Optional[int] = ..., cluster_id: _Optional[str] = ..., node_id: _Optional[str] = ..., process_id: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("hello", "error", "message")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    error: str
    message: str
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., error: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class BootstrapMember(_message.Message):
    __slots__ = ("node_id", "name", "address")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    name: str
    address: str
    def __init__(self, node_id: _Optional[str] = ..., name: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class BootstrapProposal(_message.Message):
    __slots__ = ("cluster_id", "coordinator", "members")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    coordinator: str
    members: _containers.RepeatedCompositeFieldContainer[BootstrapMember]
    def __init__(self, cluster_id: _Optional[str] = ..., coordinator: _Optional[str] = ..., members: _Optional[_Iterable[_Union[BootstrapMember, _Mapping]]] = ...) -> None: ...

class BootstrapReply(_message.Message):
    __slots__ = ("state", "cluster_id", "node_id")
    STATE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    state: BootstrapState
    cluster_id: str
    node_id: str
    def __init__(self, state: _Optional[_Union[BootstrapState, str]] = ..., cluster_id: _Optional[str] = ..., node_id: _Optional[str] = ...) -> None: ...

class BootstrapQuery(_message.Message):
    __slots__ = ("cluster_id",)
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    def __init__(self, cluster_id: _Optional[str] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("cluster_id", "node")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    node: BootstrapMember
    def __init__(self, cluster_id: _Optional[str] = ..., node: _Optional[_Union[BootstrapMember, _Mapping]] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("cluster_id", "members")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    members: _containers.RepeatedCompositeFieldContainer[BootstrapMember]
    def __init__(self, cluster_id: _Optional[str] = ..., members: _Optional[_Iterable[_Union[BootstrapMember, _Mapping]]] = ...) -> None: ...

class ProposeRequest(_message.Message):
    __slots__ = ("command",)
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    command: bytes
    def __init__(self, command: _Optional[bytes] = ...) -> None: ...

class ProposeReply(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: bytes
    def __init__(self, result: _Optional[bytes] = ...) -> None: ...

class IdentifyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Introduction(_message.Message):
    __slots__ = ("node_id", "cluster_id", "address")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    cluster_id: str
    address: str
    def __init__(self, node_id: _Optional[str] = ..., cluster_id: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class ReplacementsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReplacementsReply(_message.Message):
    __slots__ = ("replacements",)
    class Replacement(_message.Message):
        __slots__ = ("node", "stage", "silent_s", "remaining_s", "partitions", "reason")
        NODE_FIELD_NUMBER: _ClassVar[int]
        STAGE_FIELD_NUMBER: _ClassVar[int]
        SILENT_S_FIELD_NUMBER: _ClassVar[int]
        REMAINING_S_FIELD_NUMBER: _ClassVar[int]
        PARTITIONS_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        node: str
        stage: str
        silent_s: float
        remaining_s: float
        partitions: int
        reason: str
        def __init__(self, node: _Optional[str] = ..., stage: _Optional[str] = ..., silent_s: _Optional[float] = ..., remaining_s: _Optional[float] = ..., partitions: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...
    REPLACEMENTS_FIELD_NUMBER: _ClassVar[int]
    replacements: _containers.RepeatedCompositeFieldContainer[ReplacementsReply.Replacement]
    def __init__(self, replacements: _Optional[_Iterable[_Union[ReplacementsReply.Replacement, _Mapping]]] = ...) -> None: ...

class LedGroupsRequest(_message.Message):
    __slots__ = ("groups",)
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, groups: _Optional[_Iterable[int]] = ...) -> None: ...

class LedGroupsReply(_message.Message):
    __slots__ = ("groups",)
    class Group(_message.Message):
        __slots__ = ("group", "term", "voters", "outgoing", "silent")
        GROUP_FIELD_NUMBER: _ClassVar[int]
        TERM_FIELD_NUMBER: _ClassVar[int]
        VOTERS_FIELD_NUMBER: _ClassVar[int]
        OUTGOING_FIELD_NUMBER: _ClassVar[int]
        SILENT_FIELD_NUMBER: _ClassVar[int]
        group: int
        term: int
        voters: _containers.RepeatedScalarFieldContainer[str]
        outgoing: _containers.RepeatedScalarFieldContainer[str]
        silent: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, group: _Optional[int] = ..., term: _Optional[int] = ..., voters: _Optional[_Iterable[str]] = ..., outgoing: _Optional[_Iterable[str]] = ..., silent: _Optional[_Iterable[str]] = ...) -> None: ...
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[LedGroupsReply.Group]
    def __init__(self, groups: _Optional[_Iterable[_Union[LedGroupsReply.Group, _Mapping]]] = ...) -> None: ...
