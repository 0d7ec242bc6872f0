"""Whatever goes wrong: one line, the way out, the right exit code, no traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.runner import invoke
from client.fake_cluster import FakeCluster
from quorumlog.cli import topic as topic_module


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["frobnicate"], "No such command 'frobnicate': see `quorumlog --help`"),
        (["topic", "create"], "Missing argument 'NAME'"),
        (["topic", "create", "t", "--partitions", "0"], "--partitions"),
        (["topic", "create", "t", "--fsync", "never"], "--fsync"),
        (["topic", "list", "--server", "nohost"], "'nohost' is not HOST:PORT"),
        (["topic", "list", "--timeout", "0"], "--timeout"),
        (["consume", "t", "--from", "yesterday"], "'yesterday' is not earliest, latest"),
        (["consume", "t", "--count", "0"], "--count"),
        (["consume", "t", "--output", "xml"], "--output"),
        (["produce", "t", "/no/such/file"], "No such file"),
        (["produce", "t", "--key-sep", ""], "--key-sep: it is empty"),
        (["serve", "--listen", "nonsense"], "listen is 'nonsense': write HOST:PORT"),
        (["serve", "--config", "/no/such.toml"], "/no/such.toml cannot be read"),
        (["serve", "--bootstrap-expect", "x"], "--bootstrap-expect"),
        (["serve", "--bootstrap-expect", "-1"], "bootstrap_expect is -1: it goes from 0 to 9"),
        (["serve", "--join", "a:1,b:2"], "--join A:7946 --join B:7946"),
        (["dev", "--nodes", "0"], "--nodes"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    cluster: FakeCluster, arguments: list[str], text: str
) -> None:
    outcome = invoke(cluster, *arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert len(outcome.error_lines) == 1
    assert text in outcome.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["topic", "describe", "nosuch"], "create it with `quorumlog topic create nosuch`"),
        (["topic", "create", "a/b"], "is no name for a topic"),
        (["produce", "nosuch"], "there is no topic 'nosuch'"),
        (["produce", "t", "--partition", "9"], "partitions 0 to 0, there is no 9"),
        (["consume", "nosuch"], "there is no topic 'nosuch'"),
        (["consume", "t", "--partition", "9"], "there is no 9"),
        (["consume", "t", "--from", "7"], "offset 7 is out of range: this log has the offsets"),
    ],
)
def test_failures_are_one_line_and_exit_code_1(
    cluster: FakeCluster, arguments: list[str], text: str
) -> None:
    cluster.add_topic("t")
    outcome = invoke(cluster, *arguments, stdin=b"line\n")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert outcome.err.startswith("quorumlog: ")
    assert text in outcome.err


def test_no_server_is_said_with_the_way_out() -> None:
    outcome = invoke(None, "topic", "list", "--timeout", "0.1")
    assert outcome.code == 1
    assert "no quorumlog node answers at n1:7400" in outcome.err
    assert "quorumlog serve" in outcome.err
    assert len(outcome.error_lines) == 1


def test_errors_for_programs_are_json_with_the_reason(cluster: FakeCluster) -> None:
    outcome = invoke(cluster, "topic", "describe", "nosuch", "--json")
    error = json.loads(outcome.err)
    assert (error["error"], error["details"]) == ("UNKNOWN_TOPIC", {"topic": "nosuch"})
    usage = json.loads(invoke(cluster, "topic", "list", "--json", "--server", "x").err)
    assert usage["error"] == "USAGE"


def test_a_bug_is_one_line_too(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(topic_module, "print_table", fail)
    outcome = invoke(cluster, "topic", "list")
    assert outcome.code == 1
    assert outcome.error_lines == [
        "quorumlog: this is a bug in quorumlog: ZeroDivisionError: oops "
        "(`python -X dev -m quorumlog …` shows where)"
    ]


def test_servers_come_from_flags_before_the_environment(cluster: FakeCluster) -> None:
    cluster.kill("n1:7400")
    outcome = invoke(cluster, "topic", "list", "--server", "n2:7400", "--server", "n3:7400")
    assert outcome.code == 0
    assert {address for address, _ in cluster.calls} <= {"n2:7400", "n3:7400"}


def run_python(*arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    source = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{source / 'src'}:{source / 'tests'}"}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )


def test_the_process_has_the_exit_codes() -> None:
    helped = run_python("-m", "quorumlog", "--help")
    assert helped.returncode == 0
    assert "consume" in helped.stdout
    assert run_python("-m", "quorumlog", "--version").stdout.startswith("quorumlog 0.")
    assert run_python("-m", "quorumlog", "topic", "nosuch").returncode == 2
    failed = run_python(
        *("-m", "quorumlog", "topic", "list", "--server", "127.0.0.1:1", "--timeout", "0.1")
    )
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from quorumlog.cli.main import run; code = run(['topic', '--help']); "
        "heavy = {'grpc', 'rich', 'structlog', 'google.protobuf'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    outcome = run_python("-c", script)
    assert outcome.returncode == 0
    assert outcome.stderr == "[]\n"


def test_a_closed_pipe_is_a_clean_end() -> None:
    script = (
        "import os, sys; from client.fake_cluster import FakeCluster; "
        "from quorumlog.cli.connect import CliContext; from quorumlog.cli.main import run; "
        "from client.test_consumer import filled; cluster = FakeCluster(); cluster.delay_s = 0; "
        "filled(cluster.add_topic('t')[0], 100, 100); "
        "reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1); "
        "sys.exit(run(['consume', 't', '--server', 'n1:7400'], CliContext(connector=cluster)))"
    )
    outcome = run_python("-c", script)
    assert (outcome.returncode, outcome.stderr) == (0, "")
