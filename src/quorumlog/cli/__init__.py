"""The command line. Modules import what is heavy (gRPC, rich, the node) only when they use it."""
