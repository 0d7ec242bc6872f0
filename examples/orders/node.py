"""One node as a process: ``python -m examples.orders.node NAME PLAN DATA_DIR``, until SIGTERM.

``PLAN`` says where all nodes are: ``a=PEER_ADDRESS/HTTP_ADDRESS,b=…``.
"""

import asyncio
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from examples.orders.api import OrdersApi
from examples.orders.http_server import serve_http
from examples.orders.orders import Orders
from quorumlog import QuorumlogError, Replicated


@dataclass(frozen=True, slots=True)
class Addresses:
    """HOST:PORT for the other nodes, and for HTTP."""

    peer: str
    http: str


Plan = Mapping[str, Addresses]


def encode_plan(plan: Plan) -> str:
    return ",".join(f"{name}={each.peer}/{each.http}" for name, each in plan.items())


def decode_plan(text: str) -> Plan:
    plan = {}
    for part in text.split(","):
        name, _, addresses = part.partition("=")
        peer, _, http = addresses.partition("/")
        plan[name] = Addresses(peer, http)
    return plan


async def run_node(name: str, plan: Plan, data_dir: str) -> None:
    """Serve until SIGTERM or SIGINT. Raises QuorumlogError, OSError."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    orders = Orders()
    peers = {each: addresses.peer for each, addresses in plan.items()}
    async with Replicated(orders, node=name, peers=peers, data_dir=data_dir) as group:
        http_addresses = {each: addresses.http for each, addresses in plan.items()}
        api = OrdersApi(group, orders, group, http_addresses)
        server = await serve_http(plan[name].http, api.answer)
        async with server:
            await stopped.wait()


def main() -> int:
    name, plan, data_dir = sys.argv[1:]
    try:
        asyncio.run(run_node(name, decode_plan(plan), data_dir))
    except (QuorumlogError, OSError) as error:
        print(f"node {name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
