"""The hotplug operations of a trace: the rows, their table, the command."""
