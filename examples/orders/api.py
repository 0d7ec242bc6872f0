"""Orders over HTTP: what each request does to the group, and what each error means to a client.

======================  ========================================================================
``POST /orders/7/pay``  have order 7 paid; ``Idempotency-Key`` names the request, so that it may be
                        sent again. ``?redirect=1``: not by way of another node, 307 to the leader
``GET /orders/7``       its state, current; ``?stale=1``: what this node knows, at once
``GET /status``         this node, the leader, and a checksum of the state
======================  ========================================================================
"""

import re
import zlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, Protocol

from examples.orders.http_server import Request, Response
from examples.orders.orders import EVENTS, Orders, encode_event
from quorumlog import Group, QuorumlogError, Refused
from quorumlog.errors import InvalidArgument, NotLeader, OutcomeUnknown, Unavailable

_PATH: Final = re.compile(r"/orders/([A-Za-z0-9-]{1,64})(?:/([a-z]+))?")
_TIMEOUT_S: Final = 5.0


class Place(Protocol):
    """What the status shows of a node."""

    node: str

    @property
    def leader(self) -> str | None: ...

    @property
    def applied_index(self) -> int: ...


class OrdersApi:
    """Answers as one node. It knows a :class:`quorumlog.Group`, so a test may give it one in
    memory."""

    def __init__(
        self, group: Group, orders: Orders, place: Place, http_addresses: Mapping[str, str]
    ) -> None:
        """``http_addresses``: of each node by name."""
        self._group = group
        self._orders = orders
        self._place = place
        self._http_addresses = http_addresses

    async def answer(self, request: Request) -> Response:
        try:
            return await self._route(request)
        except Refused as refusal:
            return _error(HTTPStatus.CONFLICT, refusal)
        except OutcomeUnknown as error:
            hint = {"hint": "it may have been done: send it again with the same Idempotency-Key"}
            return _error(HTTPStatus.GATEWAY_TIMEOUT, error, hint)
        except NotLeader as error:
            return self._redirect(request, error)
        except Unavailable as error:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, error, headers={"Retry-After": "1"})
        except InvalidArgument as error:
            return _error(HTTPStatus.BAD_REQUEST, error)
        except QuorumlogError as error:
            return _error(HTTPStatus.INTERNAL_SERVER_ERROR, error)

    async def _route(self, request: Request) -> Response:
        if (request.method, request.path) == ("GET", "/status"):
            return self._status()
        match = _PATH.fullmatch(request.path)
        if match is None:
            return Response(HTTPStatus.NOT_FOUND, {"error": "there is no such thing"})
        order, event = match.groups()
        if request.method == "GET" and event is None:
            return await self._show(order, is_stale=request.query.get("stale") == "1")
        if request.method == "POST" and event in EVENTS:
            return await self._change(order, event, request)
        return Response(HTTPStatus.METHOD_NOT_ALLOWED, {"error": f"POST one of {sorted(EVENTS)}"})

    async def _change(self, order: str, event: str, request: Request) -> Response:
        state = await self._group.propose(
            encode_event(order, event),
            request_id=request.headers.get("idempotency-key"),
            timeout_s=_TIMEOUT_S,
            forward=request.query.get("redirect") != "1",
        )
        return Response(HTTPStatus.OK, {"order": order, "state": state.decode()})

    async def _show(self, order: str, is_stale: bool) -> Response:
        if not is_stale:
            await self._group.read(timeout_s=_TIMEOUT_S)
        state = self._orders.states.get(order)
        if state is None:
            return Response(HTTPStatus.NOT_FOUND, {"error": f"there is no order {order}"})
        return Response(HTTPStatus.OK, {"order": order, "state": state})

    def _status(self) -> Response:
        snapshot = self._orders.snapshot()
        body = {
            "node": self._place.node,
            "leader": self._place.leader,
            "applied": self._place.applied_index,
            "orders": len(self._orders.states),
            "checksum": f"{zlib.crc32(snapshot):08x}",
        }
        return Response(HTTPStatus.OK, body)

    def _redirect(self, request: Request, error: NotLeader) -> Response:
        address = self._http_addresses.get(self._place.leader or "")
        if address is None:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, error, headers={"Retry-After": "1"})
        location = f"http://{address}{request.path}"
        return _error(HTTPStatus.TEMPORARY_REDIRECT, error, headers={"Location": location})


def _error(
    status: HTTPStatus,
    error: QuorumlogError,
    more: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    return Response(status, {"error": str(error), **(more or {})}, headers or {})
