"""Traced hotplug operations, replayed: calls, the behaviour of each kernel version, state, timeline."""
