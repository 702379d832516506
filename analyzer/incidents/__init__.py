"""Incidents: findings that one event or one state explains, reported together."""
