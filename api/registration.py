"""Adding ``quorumlog.v1.Log`` to a gRPC server."""

from collections.abc import Sequence
from typing import Final, Protocol

import grpc

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.api.fetch_message import FetchMessage
from quorumlog.api.log_service import LogService
from quorumlog.api.produce_request import parse_request

LOG_SERVICE: Final = pb.DESCRIPTOR.services_by_name["Log"].full_name


class Handlers(Protocol):
    """A server, or what stands before it."""

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler], /) -> None: ...


def add_log_service(service: LogService, server: Handlers) -> None:
    """As the generated ``add_LogServicer_to_server``, but for how fetched batches are encoded."""
    unary = grpc.unary_unary_rpc_method_handler
    handlers = {
        "Produce": unary(
            service.Produce,
            request_deserializer=parse_request,
            response_serializer=pb.ProduceResponse.SerializeToString,
        ),
        "ProduceAt": unary(
            service.ProduceAt,
            request_deserializer=pb.ProduceAtRequest.FromString,
            response_serializer=pb.ProduceResponse.SerializeToString,
        ),
        "ProduceStream": grpc.stream_stream_rpc_method_handler(
            service.ProduceStream,
            request_deserializer=parse_request,
            response_serializer=pb.ProduceResponse.SerializeToString,
        ),
        "Fetch": unary(
            service.Fetch,
            request_deserializer=pb.FetchRequest.FromString,
            response_serializer=FetchMessage.SerializeToString,
        ),
        "Consume": grpc.unary_stream_rpc_method_handler(
            service.Consume,
            request_deserializer=pb.ConsumeRequest.FromString,
            response_serializer=FetchMessage.SerializeToString,
        ),
        "ListOffsets": unary(
            service.ListOffsets,
            request_deserializer=pb.ListOffsetsRequest.FromString,
            response_serializer=pb.ListOffsetsResponse.SerializeToString,
        ),
        "InitProducer": unary(
            service.InitProducer,
            request_deserializer=pb.InitProducerRequest.FromString,
            response_serializer=pb.InitProducerResponse.SerializeToString,
        ),
        "Fence": unary(
            service.Fence,
            request_deserializer=pb.FenceRequest.FromString,
            response_serializer=pb.FenceResponse.SerializeToString,
        ),
        "SetCheckpoint": unary(
            service.SetCheckpoint,
            request_deserializer=pb.SetCheckpointRequest.FromString,
            response_serializer=pb.SetCheckpointResponse.SerializeToString,
        ),
        "ForgetCheckpoint": unary(
            service.ForgetCheckpoint,
            request_deserializer=pb.ForgetCheckpointRequest.FromString,
            response_serializer=pb.ForgetCheckpointResponse.SerializeToString,
        ),
        "GetNotes": unary(
            service.GetNotes,
            request_deserializer=pb.NotesRequest.FromString,
            response_serializer=pb.Notes.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(LOG_SERVICE, handlers),))
