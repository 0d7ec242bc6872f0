"""What quorumlog does on this machine, each figure beside what the bare machine does: ``make bench``."""
