"""Free ports on loopback."""

import random
import socket
from typing import Final

HOST: Final = "127.0.0.1"

_BELOW_EPHEMERAL: Final = range(15_000, 32_000)
"""The kernel gives outgoing connections ports from 32,768 up: down here a port that is free now
is not taken by chance before its node has bound it."""

_ATTEMPTS: Final = 100


def free_address() -> str:
    """A ``HOST:PORT`` that nobody listens on, neither with TCP nor with UDP.

    Raises:
        OSError: a hundred random ports were all taken.
    """
    for _ in range(_ATTEMPTS):
        port = random.SystemRandom().choice(_BELOW_EPHEMERAL)
        if _is_free(port, socket.SOCK_STREAM) and _is_free(port, socket.SOCK_DGRAM):
            return f"{HOST}:{port}"
    raise OSError(f"no free port found on {HOST} in {_ATTEMPTS} attempts")


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
