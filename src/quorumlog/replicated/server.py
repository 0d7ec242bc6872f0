"""The gRPC server of one node of a group: for the other nodes alone."""

import grpc

from quorumlog.api._pb import peer_pb2_grpc
from quorumlog.api.channels import SERVER_OPTIONS
from quorumlog.api.handler_registry import HandlerRegistry
from quorumlog.api.peer_service import PeerPort, PeerService
from quorumlog.errors import AddressInUse


def bind_server(listen: str) -> grpc.aio.Server:
    """Bound to HOST:PORT, not started.

    Raises:
        AddressInUse: somebody else listens there.
    """
    server = grpc.aio.server(options=SERVER_OPTIONS)
    try:
        server.add_insecure_port(listen)
    except RuntimeError as error:
        raise AddressInUse(
            f"{listen} cannot be listened on: is another process there? Give `listen` or the "
            "address in `peers` another port"
        ) from error
    return server


async def start_server(
    server: grpc.aio.Server, peer_port: PeerPort, replication: grpc.GenericRpcHandler
) -> None:
    registry = HandlerRegistry(server)
    peer_pb2_grpc.add_PeerServicer_to_server(PeerService(peer_port), registry)
    registry.add_generic_rpc_handlers((replication,))
    await server.start()
