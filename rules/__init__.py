"""Model, engine and rules: what a section should look like, and what is wrong.  Never opens a file, never prints."""
