"""Whether a node serves, as its standard gRPC health service says."""

from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TIMEOUT_S: Final = 1.0
_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1),)


def serves(address: str) -> bool:
    """Whether the node at ``HOST:PORT`` answers SERVING: it knows its cluster and takes calls."""
    # A channel that failed once waits before it dials again: a new one each time does not.
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S
            )
        except grpc.RpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
