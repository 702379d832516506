"""What an operation of memory hotplug would do to a host: the question, the answer, and its text."""
