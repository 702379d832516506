"""The catalogue of rules: a rule's page, and the commands that print it."""
