"""Collecting evidence: on this host, by a script, by tracing, from a crash dump."""
