"""Runs a command line in this process against a fake cluster."""

import sys
from dataclasses import dataclass

from click.testing import CliRunner

from client.fake_cluster import FakeCluster
from quorumlog.cli.connect import CliContext
from quorumlog.cli.main import run


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        return self.err.splitlines()


def invoke(cluster: FakeCluster | None, *arguments: str, stdin: bytes = b"") -> Outcome:
    """``cluster`` None: no node answers anywhere."""
    if cluster is None:
        cluster = FakeCluster()
        for address in cluster.addresses:
            cluster.kill(address)
    servers = {"QUORUMLOG_SERVER": ",".join(cluster.addresses)}
    with CliRunner(env=servers).isolation(input=stdin, env=servers) as (out, err, _):
        code = run(arguments, CliContext(connector=cluster))
        sys.stderr.flush()
        return Outcome(code, out.getvalue().decode(), err.getvalue().decode())
