"""``python -m examples.orders``: the demo. ``python -m examples.orders serve``: three nodes on the
ports that the README names, until Ctrl-C."""

import shutil
import signal
import sys
from pathlib import Path
from typing import Final

from examples.orders.demo import run_demo
from examples.orders.node import Addresses, Plan
from examples.orders.processes import DemoFailed, running

DIRECTORY: Final = Path(".run/orders")

SERVED: Final[Plan] = {
    name: Addresses(f"127.0.0.1:750{number}", f"127.0.0.1:808{number}")
    for number, name in enumerate("abc", start=1)
}


def main() -> int:
    # A plain `kill` ends it like Ctrl-C does: with its nodes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if sys.argv[1:] == ["serve"]:
            with running(DIRECTORY / "served", SERVED):
                print(f"ready: {', '.join(each.http for each in SERVED.values())}", flush=True)
                signal.pause()
        elif not sys.argv[1:]:
            shutil.rmtree(DIRECTORY / "demo", ignore_errors=True)
            run_demo(DIRECTORY / "demo", lambda line: print(line, flush=True))
        else:
            print("usage: python -m examples.orders [serve]", file=sys.stderr)
            return 2
    except (DemoFailed, OSError) as failure:
        print(f"orders: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
