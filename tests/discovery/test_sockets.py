"""What event loops make of sockets that are closed, full or gone: one kind of error, or none."""

import asyncio
import errno
import socket
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from quorumlog.discovery.listener import Listener
from quorumlog.discovery.sockets import Reach, plain_host
from quorumlog.discovery.streams import close_writer, open_stream, write_message

pytestmark = pytest.mark.both_loops


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not done():
            await asyncio.sleep(0.005)


class Failing(socket.socket):
    """Accepts only after it has raised ``errors``."""

    errors: list[int]

    def accept(self) -> tuple[socket.socket, object]:
        if self.errors:
            raise OSError(self.errors.pop(0), "accept failed")
        return super().accept()


def listening(*errors: int) -> Failing:
    found = Failing(socket.AF_INET, socket.SOCK_STREAM)
    found.errors = list(errors)
    found.bind(("127.0.0.1", 0))
    found.listen()
    found.setblocking(False)
    return found


async def test_a_stream_that_is_closed_raises_an_error_of_the_system() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with theirs:
        ours.setblocking(False)
        _, writer = await open_stream(ours)
        writer.transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(OSError, match=r"closed|lost|reset"):
            await write_message(writer, b"x")
        await close_writer(writer)
        ours.close()


async def test_no_descriptor_for_a_connection_is_waited_out() -> None:
    taken: list[socket.socket] = []
    lost: list[Exception] = []
    bound = listening(errno.EMFILE, errno.ECONNABORTED, errno.EMFILE)
    listener = Listener(bound, take=lambda found, peer: taken.append(found), lost=lost.append)
    with socket.create_connection(bound.getsockname()), capture_logs() as logs:
        await until(lambda: bool(taken))
    taken[0].close()
    listener.close()
    listener.close()
    assert lost == []
    assert [line["event"] for line in logs] == ["gossip_accept_failed"]


async def test_a_listening_socket_that_is_gone_is_told_once() -> None:
    lost: list[Exception] = []
    bound = listening(errno.EINVAL, errno.EINVAL)
    listener = Listener(bound, take=lambda found, peer: found.close(), lost=lost.append)
    with socket.create_connection(bound.getsockname()):
        await until(lambda: bool(lost))
        for _ in range(5):
            await asyncio.sleep(0)
    listener.close()
    assert len(lost) == 1


@pytest.mark.parametrize(
    ("family", "bind", "hosts"),
    [
        (socket.AF_INET, "127.0.0.1", {"10.0.0.1": "10.0.0.1", "fd00::1": None}),
        (socket.AF_INET, "0.0.0.0", {"10.0.0.1": "10.0.0.1", "fd00::1": None}),
        (socket.AF_INET6, "::1", {"10.0.0.1": None, "fd00::1": "fd00::1"}),
        (socket.AF_INET6, "::", {"10.0.0.1": "::ffff:10.0.0.1", "fd00::1": "fd00::1"}),
    ],
)
async def test_a_socket_reaches_the_addresses_of_what_it_is_bound_to(
    family: socket.AddressFamily, bind: str, hosts: dict[str, str | None]
) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as bound:
        try:
            bound.bind((bind, 0))
        except OSError:
            pytest.skip("no IPv6 on this machine")
        reach = Reach(bound)
        for host, found in hosts.items():
            assert reach.of(host) == found
            assert found is None or plain_host(found) == host
