"""The kernel's address layout: from captured evidence, from a log alone, and PHYS_OFFSET by fitting."""
