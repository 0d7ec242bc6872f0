"""What docs/cluster.md shows is run as it stands there, on four nodes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.readme import ROOT, steps
from examples.local_cluster import LocalCluster, NodeProcess, clean_environment, free_address

PAGE = ROOT / "docs" / "cluster.md"
BLOCKS = re.findall(r"^```console\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.cluster


def run(command: str, servers: list[str]) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = clean_environment() | {"PATH": path, "QUORUMLOG_SERVER": ",".join(servers)}
    result = subprocess.run(
        ["bash", "-c", command],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, f"{command}: {result.stderr}"
    return result.stdout


def test_the_page_is_what_happens(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        joins = [argument for node in cluster.nodes for argument in ("--join", node.gossip)]
        fourth = NodeProcess(
            "node-4",
            tmp_path / "node-4",
            listen=free_address(),
            gossip=free_address(),
            arguments=joins,
        )
        servers = [*cluster.servers[:2], fourth.listen]
        run("quorumlog topic create t --partitions 3 --replicas 3", cluster.servers)
        try:
            fourth.start()
            fourth.wait_serving()
            for block in BLOCKS:
                if "remove node-3" in block:
                    cluster.nodes[2].kill()
                for step in steps(block):
                    printed = run(step.command, servers)
                    assert not step.output or printed == step.output, step.command
        finally:
            if fourth.running:
                fourth.kill()
    assert len(BLOCKS) == 4
