"""The gRPC server of a node: one port for everything."""

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from quorumlog.api._pb import (
    peer_pb2,
    peer_pb2_grpc,
    proglog_pb2,
    proglog_pb2_grpc,
    quorumlog_pb2,
    quorumlog_pb2_grpc,
)
from quorumlog.api.admin_service import AdminService
from quorumlog.api.channels import SERVER_OPTIONS
from quorumlog.api.handler_registry import HandlerRegistry
from quorumlog.api.limits import Limits
from quorumlog.api.log_service import LogService
from quorumlog.api.peer_service import PeerPort, PeerService
from quorumlog.api.proglog_service import ProglogService
from quorumlog.api.registration import add_log_service
from quorumlog.broker.port import BrokerPort
from quorumlog.errors import AddressInUse
from quorumlog.node.config import NodeConfig, parse_address

_PUBLIC_SERVICES = ("quorumlog.v1.Log", "quorumlog.v1.Admin", "log.v1.Log")


class NodeServer:
    """Bound at once, serving after :meth:`start`."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self._health = health.aio.HealthServicer()

    async def start(
        self,
        broker: BrokerPort,
        peer_port: PeerPort,
        replication: grpc.GenericRpcHandler,
        config: NodeConfig,
    ) -> None:
        server = self._server
        limits = Limits(max_record_bytes=config.max_record_bytes)
        registry = HandlerRegistry(server)
        add_log_service(LogService(broker, limits), registry)
        quorumlog_pb2_grpc.add_AdminServicer_to_server(AdminService(broker), registry)
        proglog_pb2_grpc.add_LogServicer_to_server(ProglogService(broker, limits), registry)
        peer_pb2_grpc.add_PeerServicer_to_server(PeerService(peer_port), registry)
        registry.add_generic_rpc_handlers((replication,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, registry)
        reflection.enable_server_reflection([*_service_names(), health.SERVICE_NAME], server)
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        await server.start()

    async def set_serving(self) -> None:
        """The node knows its cluster: health says SERVING."""
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def _set_health(self, state: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in ("", *_PUBLIC_SERVICES):
            await self._health.set(service, state)

    async def stop(self, grace_s: float) -> None:
        """Health first, so that balancers look elsewhere; running calls get ``grace_s`` to end."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


def _service_names() -> list[str]:
    services = (
        *quorumlog_pb2.DESCRIPTOR.services_by_name.values(),
        *proglog_pb2.DESCRIPTOR.services_by_name.values(),
        *peer_pb2.DESCRIPTOR.services_by_name.values(),
    )
    return [service.full_name for service in services]


def bind_server(config: NodeConfig) -> tuple[NodeServer, str]:
    """Bind the gRPC port; the server and the address by which others reach it.

    Raises:
        AddressInUse: somebody else listens there.
    """
    server = grpc.aio.server(options=SERVER_OPTIONS)
    host, _ = parse_address("listen", config.listen)
    try:
        port = server.add_insecure_port(config.listen)
    except RuntimeError as error:
        raise AddressInUse(
            f"{config.listen} cannot be listened on: is another node running there? "
            "Choose another address with --listen"
        ) from error
    shown_host = f"[{host}]" if ":" in host else host
    return NodeServer(server), config.advertise or f"{shown_host}:{port}"
