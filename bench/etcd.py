"""Three etcd members as a peer: as many fsyncs and round trips a put as a record takes here.

The client is a bare gRPC call with a message packed by hand, so that etcd is not charged for a
client library. Puts go to the leader: etcd's followers would forward them.
"""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from examples.local_cluster import free_address

_MEMBERS: Final = 3
_START_TIMEOUT_S: Final = 20.0
_PUT: Final = "/etcdserverpb.KV/Put"
_STATUS: Final = "/etcdserverpb.Maintenance/Status"
_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1),)


@contextlib.contextmanager
def etcd_cluster(directory: Path) -> Iterator[str | None]:
    """The address of the leader of three members with their data in ``directory``.

    None where no etcd is installed. They listen on loopback alone.

    Raises:
        TimeoutError: they do not elect a leader.
    """
    program = shutil.which("etcd")
    if program is None:
        yield None
        return
    directory.mkdir(parents=True, exist_ok=True)
    clients = [free_address() for _ in range(_MEMBERS)]
    peers = [free_address() for _ in range(_MEMBERS)]
    everybody = ",".join(f"m{number}=http://{peer}" for number, peer in enumerate(peers))
    members: list[subprocess.Popen[bytes]] = []
    try:
        with (directory / "output.log").open("wb") as output:
            for number, (client, peer) in enumerate(zip(clients, peers, strict=True)):
                arguments = {
                    "name": f"m{number}",
                    "data-dir": str(directory / f"m{number}"),
                    "listen-client-urls": f"http://{client}",
                    "advertise-client-urls": f"http://{client}",
                    "listen-peer-urls": f"http://{peer}",
                    "initial-advertise-peer-urls": f"http://{peer}",
                    "initial-cluster": everybody,
                }
                flags = [f"--{name}={value}" for name, value in arguments.items()]
                members.append(
                    subprocess.Popen([program, *flags], stdout=output, stderr=subprocess.STDOUT)
                )
        yield _leader(clients)
    finally:
        for member in members:
            member.kill()
        for member in members:
            member.wait()


def etcd_version() -> str:
    """As ``etcd --version`` says it."""
    done = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0].removeprefix("etcd Version: ")


class EtcdClient:
    """Puts under one key; one connection, any number of calls at a time."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._put = self._channel.unary_unary(_PUT)

    async def put(self, value: bytes) -> None:
        """Returns when a majority has it on disk."""
        await self._put(_put_request(b"bench", value))

    async def close(self) -> None:
        await self._channel.close()


def _put_request(key: bytes, value: bytes) -> bytes:
    """``PutRequest{bytes key = 1; bytes value = 2}``."""
    return b"\x0a" + _varint(len(key)) + key + b"\x12" + _varint(len(value)) + value


def _leader(addresses: list[str]) -> str:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        for address in addresses:
            with contextlib.suppress(grpc.RpcError), grpc.insecure_channel(address) as channel:
                answer = channel.unary_unary(_STATUS)(b"", timeout=1.0)
                if _leads(answer):
                    return address
        time.sleep(0.1)
    raise TimeoutError(f"etcd has no leader after {_START_TIMEOUT_S:.0f} s")


def _leads(status: bytes) -> bool:
    """Whether ``StatusResponse{ResponseHeader header = 1; uint64 leader = 4}`` is its leader's;
    ``ResponseHeader{uint64 member_id = 2}``."""
    fields = _fields(status)
    return bool(fields.get(4)) and _fields(fields[1]).get(2) == fields[4]


def _fields(message: bytes) -> dict[int, Any]:
    """The varint (int) and length-delimited (bytes) fields of a protobuf message, by number."""
    found: dict[int, Any] = {}
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        value, at = _read_varint(message, at)
        if tag & 7 == 0:
            found[tag >> 3] = value
        elif tag & 7 == 2:
            found[tag >> 3] = message[at : at + value]
            at += value
        else:
            raise ValueError(f"field {tag >> 3} is of wire type {tag & 7}")
    return found


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """The number at ``at`` and where it ends."""
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            return number, at
