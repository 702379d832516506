"""Finding, recognising and reading what was captured."""
