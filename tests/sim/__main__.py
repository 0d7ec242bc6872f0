"""``python -m sim --seeds N --start S``: run the simulator. ``make sim`` is the short way."""

import sys

from sim.command import main
from sim.simulation import run

if __name__ == "__main__":
    sys.exit(main(run, "sim", "Simulate whole clusters from seeds."))
