"""What memory exists and what maps it: regions, coverage, sections, resources, walks."""
