"""The orders example: its HTTP on a group in memory, its story and its README with real nodes."""

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from docs.readme import ROOT, steps
from examples.local_cluster import free_address
from examples.orders.api import OrdersApi
from examples.orders.demo import run_demo
from examples.orders.http_server import Request, Response, serve_http
from examples.orders.node import Addresses, Plan, decode_plan, encode_plan
from examples.orders.orders import Orders
from examples.orders.processes import ask, local_plan, running
from quorumlog import InMemoryGroup
from quorumlog.errors import NotLeader

README = (ROOT / "examples/orders/README.md").read_text("utf-8")
CONSOLE = re.findall(r"^```console\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


class Place:
    node = "a"
    leader = "b"
    applied_index = 3


class Api:
    """The HTTP of a node whose group is in memory."""

    def __init__(self) -> None:
        self.orders = Orders()
        self.group = InMemoryGroup(self.orders)
        self._api = OrdersApi(self.group, self.orders, Place(), {"b": "h:2"})

    async def ask(self, method: str, target: str, key: str = "") -> Response:
        path, _, query = target.partition("?")
        headers = {"idempotency-key": key} if key else {}
        pairs = dict([query.split("=")]) if query else {}
        return await self._api.answer(Request(method, path, pairs, headers))


@pytest.fixture
def api() -> Api:
    return Api()


async def test_an_order_goes_only_where_it_may(api: Api) -> None:
    for event, state in (("create", "new"), ("pay", "paid"), ("pack", "packed")):
        done = await api.ask("POST", f"/orders/7/{event}")
        assert (done.status, done.body["state"]) == (HTTPStatus.OK, state)
    refused = await api.ask("POST", "/orders/7/cancel")
    assert refused.status == HTTPStatus.CONFLICT
    assert refused.body == {"error": "an order that is packed cannot cancel"}
    assert (await api.ask("GET", "/orders/7")).body["state"] == "packed"


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/orders/8", HTTPStatus.NOT_FOUND),
        ("GET", "/elsewhere", HTTPStatus.NOT_FOUND),
        ("POST", "/orders/7/fly", HTTPStatus.METHOD_NOT_ALLOWED),
        ("DELETE", "/orders/7", HTTPStatus.METHOD_NOT_ALLOWED),
        ("POST", f"/orders/{'7' * 65}/create", HTTPStatus.NOT_FOUND),
    ],
)
async def test_what_makes_no_sense_has_its_status(
    api: Api, method: str, target: str, status: HTTPStatus
) -> None:
    assert (await api.ask(method, target)).status == status


async def test_a_key_over_its_limit_is_a_bad_request(api: Api) -> None:
    assert (await api.ask("POST", "/orders/7/create", key="k" * 65)).status == 400


async def test_without_a_leader_only_stale_reads_are_answered(api: Api) -> None:
    await api.ask("POST", "/orders/7/create")
    api.group.set_available(False)
    for method, target in (("POST", "/orders/7/pay"), ("GET", "/orders/7")):
        answer = await api.ask(method, target)
        assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
        assert answer.headers["Retry-After"] == "1"
    assert (await api.ask("GET", "/orders/7?stale=1")).body["state"] == "new"


async def test_a_lost_answer_is_cleared_up_by_the_same_key(api: Api) -> None:
    api.group.lose_next_answer()
    lost = await api.ask("POST", "/orders/7/create", key="k")
    assert lost.status == HTTPStatus.GATEWAY_TIMEOUT
    assert "same Idempotency-Key" in lost.body["hint"]
    assert (await api.ask("POST", "/orders/7/create", key="k")).body["state"] == "new"
    assert (await api.ask("POST", "/orders/7/create")).status == HTTPStatus.CONFLICT


async def test_who_wants_to_be_redirected_is(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def propose(command: bytes, *, forward: bool, **options: object) -> bytes:
        assert not forward
        raise NotLeader()

    monkeypatch.setattr(api.group, "propose", propose)
    answer = await api.ask("POST", "/orders/7/create?redirect=1")
    assert answer.status == HTTPStatus.TEMPORARY_REDIRECT
    assert answer.headers["Location"] == "http://h:2/orders/7/create"


async def test_a_restored_machine_is_the_same(api: Api) -> None:
    await api.ask("POST", "/orders/7/create")
    after = Orders()
    api.group.restart(after)
    assert after.snapshot() == api.orders.snapshot()


@pytest.mark.parametrize("raw", [b"nonsense\r\n\r\n", b"GET /\r\n\r\n", b"x" * 40_000])
async def test_what_is_no_http_gets_a_400(raw: bytes) -> None:
    async def handler(request: Request) -> Response:
        raise AssertionError("nobody asked")

    address = free_address()
    async with await serve_http(address, handler):
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(raw)
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        writer.close()


def test_a_plan_is_read_as_it_was_written() -> None:
    plan: Plan = {"a": Addresses("h:1", "h:2"), "b": Addresses("[::1]:3", "h:4")}
    assert decode_plan(encode_plan(plan)) == plan


@pytest.mark.cluster
def test_the_story_comes_out_as_it_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    run_demo(tmp_path, told.append)
    assert any("409" in line for line in told)
    assert "all three have checksum" in told[-1]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plan]:
    plan = local_plan()
    with running(tmp_path_factory.mktemp("orders"), plan):
        yield plan


@pytest.mark.cluster
def test_the_readme_shows_what_happens(served: Plan) -> None:
    assert len(CONSOLE) == 3
    for step in (step for block in CONSOLE for step in steps(block)):
        command = step.command
        for number, each in enumerate(served.values(), start=1):
            command = command.replace(f"127.0.0.1:808{number}", each.http)
        result = subprocess.run(
            ["bash", "-c", command], env=os.environ, capture_output=True, text=True, timeout=60
        )
        assert result.returncode == 0, command
        if step.output:
            assert result.stdout == step.output, command


@pytest.mark.cluster
def test_a_follower_redirects_to_the_leader_on_request(served: Plan) -> None:
    leader = str(ask(served["a"].http, "GET", "/status").body["leader"])
    follower = next(name for name in served if name != leader)
    answer = ask(served[follower].http, "POST", "/orders/9/create?redirect=1")
    assert answer.status == HTTPStatus.TEMPORARY_REDIRECT
    assert answer.headers["Location"] == f"http://{served[leader].http}/orders/9/create"
    assert ask(served[leader].http, "POST", "/orders/9/create?redirect=1").status == 200
