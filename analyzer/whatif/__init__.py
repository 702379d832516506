"""What an operation of memory hotplug would do to a host: the question, the answer, and how it is told."""
