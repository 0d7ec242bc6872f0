"""Orders that go only where they may, replicated by three nodes, over HTTP: see README.md here."""
