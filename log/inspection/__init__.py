"""Looking at what is on disk: verify, dump, repair, scrub. Needs no log to be open, or whole."""
