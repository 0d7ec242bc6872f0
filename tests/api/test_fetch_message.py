from hypothesis import given
from hypothesis import strategies as st

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.api.fetch_message import FetchMessage
from quorumlog.api.log_service import LogService
from quorumlog.api.produce_request import parse_request
from quorumlog.api.registration import LOG_SERVICE, add_log_service
from quorumlog.broker.port import Fetch

offsets = st.one_of(st.integers(0, 300), st.integers(0, (1 << 64) - 1))


@given(st.binary(max_size=300), offsets, offsets, offsets)
def test_the_encoding_is_protobufs_to_the_byte(
    data: bytes, next_offset: int, start: int, high_watermark: int
) -> None:
    message = FetchMessage.of(Fetch(memoryview(data), next_offset, start, high_watermark))
    expected = pb.FetchResponse(
        batches=data,
        next_offset=next_offset,
        log_start_offset=start,
        high_watermark=high_watermark,
    )
    assert message.SerializeToString() == expected.SerializeToString(deterministic=True)


def test_every_method_of_the_service_is_registered() -> None:
    added: list[object] = []

    class Server:
        def add_generic_rpc_handlers(self, handlers: tuple[object, ...]) -> None:
            added.extend(handlers)

    class Details:
        invocation_metadata = ()

        def __init__(self, method: str) -> None:
            self.method = method

    add_log_service(LogService(None), Server())  # type: ignore[arg-type]
    for method in pb.DESCRIPTOR.services_by_name["Log"].methods:
        handler = added[0].service(Details(f"/{LOG_SERVICE}/{method.name}"))  # type: ignore[attr-defined]
        assert handler.request_streaming == method.client_streaming
        assert handler.response_streaming == method.server_streaming
        name = method.input_type.name
        deserializer = parse_request if name == "ProduceRequest" else getattr(pb, name).FromString
        assert handler.request_deserializer == deserializer
