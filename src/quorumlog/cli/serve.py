"""``quorumlog serve``: one node."""

import os

import click


@click.command()
@click.option("--config", metavar="FILE", help="Settings in TOML. [env: QUORUMLOG_CONFIG]")
@click.option("--data-dir", metavar="DIR", help="[default: ./quorumlog-data]")
@click.option("--listen", metavar="HOST:PORT", help="gRPC. [default: 127.0.0.1:7400]")
@click.option("--gossip", metavar="HOST:PORT", help="[default: the host of --listen, port 7946]")
@click.option(
    "--join",
    metavar="SEED",
    multiple=True,
    help="Gossip address of any node of the cluster: HOST:PORT, dns+a://HOST:PORT or "
    "dns+srv://_SERVICE._PROTOCOL.NAME; repeatable.",
)
@click.option(
    "--gossip-keys",
    metavar="FILE",
    help='Encrypt gossip with the keys in FILE, a list like ["BASE64"]; the same on every node.',
)
@click.option("--name", help="What to call this node. [default: made of its id]")
@click.option("--rack", help="The rack or zone this node is in, shown by `cluster status`.")
@click.option(
    "--bootstrap-expect",
    metavar="N",
    type=int,
    help="Form a cluster when N nodes see each other; 0 only joins one, as does 1 with --join of "
    "others. [default: 1, or 0 with --join]",
)
@click.option(
    "--keys",
    metavar="FILE",
    help="Encrypt the logs with the keys in FILE; `quorumlog log new-key FILE` makes one.",
)
@click.option(
    "--scrub-bytes-s",
    metavar="BYTES",
    type=int,
    help="Read so many bytes a second in search of rot; 0: none. [default: 4 MiB]",
)
def serve(config: str | None, **flags: object) -> int:
    """Run one node until SIGTERM or Ctrl-C.

    With no option at all: a durable log of a single node in ./quorumlog-data. Flags go before the
    environment (QUORUMLOG_DATA_DIR, …), that before the configuration file.
    """
    from quorumlog.node.config import load_config
    from quorumlog.node.main import run

    return run(load_config(flags, os.environ, config))
