"""The gossip protocol without input or output: packets, time and randomness come in as values."""
