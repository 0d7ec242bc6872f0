"""A call without gRPC: what a handler does to its context, as its caller would see it."""

from typing import NoReturn

import grpc

from quorumlog.rpc_status import TrailingMetadata


class Aborted(grpc.RpcError):  # type: ignore[misc]
    """The status a handler ended its call with; reads like the error of a real call."""

    def __init__(self, code: grpc.StatusCode, details: str, metadata: TrailingMetadata) -> None:
        super().__init__(f"{code.name}: {details}")
        self._status = (code, details, metadata)

    def code(self) -> grpc.StatusCode:
        return self._status[0]

    def details(self) -> str:
        return self._status[1]

    def trailing_metadata(self) -> TrailingMetadata:
        return self._status[2]


class FakeContext:
    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: TrailingMetadata = ()
    ) -> NoReturn:
        raise Aborted(code, details, trailing_metadata)
