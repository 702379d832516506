"""Bytes and text in, typed tables out.  Knows formats, not hotplug; imports nothing of ptaudit but itself."""
