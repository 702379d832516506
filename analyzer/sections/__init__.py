"""Memory sections: the rows, their table, the command."""
