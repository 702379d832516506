"""What people run: sources, the audit pipeline, reports and the command line."""
