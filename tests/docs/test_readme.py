"""What the README says is run as it stands there, against a node of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.report import BEGIN, END, RESULTS
from docs.readme import README, ROOT, blocks, steps
from examples.local_cluster import NodeProcess, clean_environment, free_address

_DEFAULT_SERVER = "127.0.0.1:7400"

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    directory = tmp_path_factory.mktemp("readme")
    node = NodeProcess("readme", directory, listen=free_address(), gossip=free_address())
    try:
        node.start()
        node.wait_serving()
        yield node
    finally:
        if node.running:
            node.terminate()


def run(
    command: list[str], node: NodeProcess, directory: Path
) -> "subprocess.CompletedProcess[str]":
    """``command`` with the tools of this environment, for which ``node`` is the default server."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = clean_environment() | {"PATH": path, "QUORUMLOG_SERVER": node.listen}
    return subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("block", blocks("console"))
def test_console_blocks_print_what_they_show(block: str, node: NodeProcess, tmp_path: Path) -> None:
    for step in steps(block):
        result = run(["bash", "-o", "pipefail", "-c", step.command], node, tmp_path)
        assert result.returncode == 0, f"{step.command}: {result.stderr}"
        if step.output:
            assert result.stdout == step.output, step.command


@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks_run(block: str, node: NodeProcess, tmp_path: Path) -> None:
    program = block.replace(_DEFAULT_SERVER, node.listen)
    result = run([sys.executable, "-W", "error", "-c", program], node, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout
    assert result.stderr == ""


def test_there_are_examples_for_every_way_of_use() -> None:
    assert len(blocks("console")) >= 1
    assert len(blocks("python")) >= 3


def test_the_table_of_figures_is_the_one_that_the_benchmarks_wrote() -> None:
    _, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    table, end, _ = rest.partition(END)
    assert end
    assert table == (ROOT / RESULTS).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "docs/index.md"])
def test_files_that_documents_link_to_exist(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    assert links
    missing = [link for link in links if not (path.parent / link).exists()]
    assert missing == []
