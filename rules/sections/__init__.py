"""Sections, memory blocks, zones and /proc/iomem against each other."""
