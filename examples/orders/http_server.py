"""As much HTTP/1.1 as the example needs: one request per connection, small bodies, deadlines."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

MAX_HEAD_BYTES: Final = 16 * 1024
TIMEOUT_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Request:
    """``headers`` have lower-case names; a body is neither wanted nor read."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Response:
    status: HTTPStatus
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        body = json.dumps(self.body).encode() + b"\n"
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


Handler = Callable[[Request], Awaitable[Response]]


async def serve_http(address: str, handler: Handler) -> asyncio.Server:
    """Listen on HOST:PORT; ``handler`` answers every request, its own failures too."""
    host, _, port = address.rpartition(":")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                writer.write((await _respond(reader, handler)).encode())
                await writer.drain()
        except (TimeoutError, OSError):
            pass  # the client is gone, or too slow to wait for
        finally:
            writer.close()

    return await asyncio.start_server(answer, host, int(port), limit=MAX_HEAD_BYTES)


async def _respond(reader: asyncio.StreamReader, handler: Handler) -> Response:
    try:
        request = _parse(await reader.readuntil(b"\r\n\r\n"))
    except (ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return Response(HTTPStatus.BAD_REQUEST, {"error": "not an HTTP request"})
    return await handler(request)


def _parse(head: bytes) -> Request:
    """Raises ValueError."""
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    url = urlsplit(target)
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Request(method, url.path, dict(parse_qsl(url.query)), headers)
