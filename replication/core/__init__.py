"""The Raft state machine: values in, values out; no clock, chance, input or output of its own."""
