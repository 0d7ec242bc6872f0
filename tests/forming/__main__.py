"""``python -m forming --seeds N --start S``: let clusters form; in short ``make bootstrap``."""

import sys

from forming.simulation import run
from sim.command import main

if __name__ == "__main__":
    sys.exit(main(run, "bootstrap", "Let nodes form clusters while everything breaks, from seeds."))
