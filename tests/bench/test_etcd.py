"""The peer of the benchmarks, where it is installed."""

import shutil
from pathlib import Path

import grpc
import pytest

from bench.etcd import EtcdClient, etcd_cluster

_RANGE = "/etcdserverpb.KV/Range"


async def test_a_put_is_in_etcd_when_it_returns(tmp_path: Path) -> None:
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed")
    with etcd_cluster(tmp_path) as address:
        assert address is not None
        client = EtcdClient(address)
        await client.put(b"x" * 300)
        await client.close()
        async with grpc.aio.insecure_channel(address) as channel:
            # RangeRequest{bytes key = 1}
            answer = await channel.unary_unary(_RANGE)(b"\x0a\x05bench")
        assert b"x" * 300 in answer


def test_without_etcd_there_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with etcd_cluster(tmp_path) as address:
        assert address is None
