"""What quorumlog does here, each figure beside what the bare machine does: ``make bench``."""
