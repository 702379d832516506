"""The order of hotplug operations in a trace."""
