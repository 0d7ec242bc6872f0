"""One node as a process: what survives its death, and what it refuses to start with."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from examples.local_cluster import NodeProcess, free_address, serves
from support.command_line import COMMAND, environment_for, serve, succeed
from support.waiting import wait_for


def assert_refused(
    result: "subprocess.CompletedProcess[str]", *words: str, returncode: int = 1
) -> None:
    """``returncode``, no traceback, and the last line on stderr holds ``words``."""
    assert result.returncode == returncode, result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in last


def own_ports() -> dict[str, str]:
    """Settings, not flags; the default ports may be in use on this machine."""
    return {"QUORUMLOG_LISTEN": free_address(), "QUORUMLOG_GOSSIP": free_address()}


def test_serve_without_a_flag_keeps_every_record_through_kill_minus_nine(tmp_path: Path) -> None:
    settings = own_ports()
    server = settings["QUORUMLOG_LISTEN"]
    lines = [f"line {number}" for number in range(1000)]

    def live_and_die(*command: str, stdin: str = "") -> str:
        with (tmp_path / "output").open("ab") as output:
            node = subprocess.Popen(
                [*COMMAND, "serve"],
                cwd=tmp_path,
                env=environment_for([]) | settings,
                stdout=output,
                stderr=output,
            )
        try:
            wait_for("the node", lambda: serves(server))
            return succeed([server], *command, stdin=stdin)
        finally:
            node.kill()
            node.wait()

    live_and_die("topic", "create", "kept")
    live_and_die("produce", "kept", stdin="\n".join(lines) + "\n")
    consumed = live_and_die("consume", "kept", "--from", "earliest")
    assert consumed.splitlines() == lines
    assert (tmp_path / "quorumlog-data").is_dir()


def test_a_second_node_on_the_same_directory_is_refused(node: NodeProcess, tmp_path: Path) -> None:
    result = serve(tmp_path, "--data-dir", str(node.data), settings=own_ports())
    assert_refused(result, str(node.data), "--data-dir")
    assert serves(node.listen)


@pytest.mark.parametrize("port", ["listen", "gossip"])
def test_a_port_in_use_is_named(node: NodeProcess, tmp_path: Path, port: str) -> None:
    taken = getattr(node, port)
    result = serve(tmp_path, f"--{port}", taken, settings=own_ports())
    assert_refused(result, taken)


def test_a_port_that_another_program_listens_on_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        result = serve(tmp_path, "--listen", taken, settings=own_ports())
    assert_refused(result, taken, "--listen")


def test_a_file_in_place_of_the_data_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    result = serve(tmp_path, "--data-dir", "file", settings=own_ports())
    assert_refused(result, "file", "--data-dir")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    # Not a directory without write permission: it would not stop a test that runs as root.
    result = serve(tmp_path, "--data-dir", "/proc/quorumlog", settings=own_ports())
    assert_refused(result, "/proc/quorumlog", "--data-dir")


def test_an_unknown_setting_in_the_file_is_named_with_the_nearest_known_one(
    tmp_path: Path,
) -> None:
    (tmp_path / "node.toml").write_text('data_dri = "data"\n')
    result = serve(tmp_path, "--config", "node.toml", settings=own_ports())
    assert_refused(result, "data_dri", "data_dir", returncode=2)
    assert not (tmp_path / "quorumlog-data").exists()


def test_an_impossible_value_in_the_environment_is_named(tmp_path: Path) -> None:
    settings = own_ports() | {"QUORUMLOG_SEGMENT_BYTES": "12"}
    assert_refused(serve(tmp_path, settings=settings), "segment_bytes", "12", returncode=2)
    assert not (tmp_path / "quorumlog-data").exists()


def test_a_second_node_with_the_same_identity_is_refused(node: NodeProcess, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(node.data / "node.json", copy)
    (copy / "groups").mkdir()
    result = serve(tmp_path, "--data-dir", str(copy), "--join", node.gossip, settings=own_ports())
    assert_refused(result, "another process runs with the node id")
    assert serves(node.listen)


def test_a_data_directory_of_another_cluster_is_refused(node: NodeProcess, tmp_path: Path) -> None:
    other = NodeProcess("other", tmp_path / "other", listen=free_address(), gossip=free_address())
    other.start()
    try:
        other.wait_serving()
        succeed([other.listen], "topic", "create", "theirs")
    finally:
        other.terminate()
    result = serve(
        tmp_path, "--data-dir", str(other.data), "--join", node.gossip, settings=own_ports()
    )
    assert_refused(result, "cluster")
    assert "theirs" not in succeed([node.listen], "topic", "list")


def test_sigterm_ends_a_single_node_within_seconds(node: NodeProcess) -> None:
    assert node.terminate(timeout_s=5) == 0, node.last_output()
