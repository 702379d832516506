"""Views of one machine beside the audit: sections, tables."""
