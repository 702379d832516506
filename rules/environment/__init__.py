"""The kernel and machine as a whole."""
