"""Addresses of nodes: ``host:port``, ``[v6::address]:port``."""

from quorumlog.errors import InvalidArgument


def parse_address(text: str) -> str:
    """``text`` as it is when it is a ``host:port``.

    Raises:
        InvalidArgument: no host, no port, or a port outside 1 to 65535.
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon or not host or (":" in host and not host.startswith("[")):
        raise InvalidArgument(f"{text!r} is not HOST:PORT, as in 127.0.0.1:7400")
    # Python refuses to read numbers of thousands of digits.
    is_number = port.isascii() and port.isdigit() and len(port) <= 5
    if not (is_number and 1 <= int(port) <= 65535):
        raise InvalidArgument(f"the port in {text!r} is not a number from 1 to 65535")
    return text.strip()
