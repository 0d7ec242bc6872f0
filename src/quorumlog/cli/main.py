"""``quorumlog``: the commands, and what becomes of errors.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. An error is one line on stderr with
the way out (a JSON object with ``--json``), never a traceback.
"""

import os
import sys
from collections.abc import Sequence

import click

from quorumlog.cli.cluster import cluster
from quorumlog.cli.connect import CliContext, Interrupted
from quorumlog.cli.consume import consume
from quorumlog.cli.dev import dev
from quorumlog.cli.log_commands import log
from quorumlog.cli.output import print_error
from quorumlog.cli.produce import produce
from quorumlog.cli.serve import serve
from quorumlog.cli.topic import topic
from quorumlog.errors import ConfigError, QuorumlogError

FAILED = 1
USAGE = 2
INTERRUPTED = 130


@click.group(
    name="quorumlog",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with `quorumlog dev` (a cluster in one terminal) or `quorumlog serve` (a node).",
)
@click.version_option(package_name="quorumlog", message="quorumlog %(version)s")
def cli() -> None:
    """A replicated, append-only commit log."""


for command in (serve, dev, topic, produce, consume, cluster, log):
    cli.add_command(command)


def main() -> None:
    """The entry point of the ``quorumlog`` script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str], context: CliContext | None = None) -> int:
    """Carry out one command line and return the exit code.

    Args:
        context: brings a transport of its own in tests.
    """
    # What gRPC's C core logs by itself would stand beside our one line, or, in `dev`, between the
    # nodes' lines each time one is started. Set before anything imports it.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    context = context or CliContext()
    try:
        outcome = cli.main(
            args=list(arguments), prog_name="quorumlog", standalone_mode=False, obj=context
        )
        sys.stdout.flush()
        return outcome if isinstance(outcome, int) else 0
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "quorumlog"
        message = error.format_message().rstrip(".")
        print_error(f"{message}: see `{where} --help`", "USAGE", {}, context.json)
        return USAGE
    except ConfigError as error:
        print_error(str(error), error.reason, error.details(), context.json)
        return USAGE
    except QuorumlogError as error:
        print_error(str(error), error.reason, error.details(), context.json)
        return FAILED
    except (Interrupted, KeyboardInterrupt, click.Abort):
        print_error("interrupted", "INTERRUPTED", {}, context.json)
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # Whoever read our output has seen enough (click makes a SystemExit of it). What is left in
        # the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except click.ClickException as error:
        print_error(error.format_message(), "FAILED", {}, context.json)
        return FAILED
    except OSError as error:
        print_error(str(error), "OS_ERROR", {}, context.json)
        return FAILED
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        print_error(
            f"this is a bug in quorumlog: {type(error).__name__}: {error} "
            "(`python -X dev -m quorumlog …` shows where)",
            "INTERNAL",
            {},
            context.json,
        )
        return FAILED
