"""What was captured, brought together: sections, coverage, layout, versions."""
