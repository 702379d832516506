"""Incidents: findings that one event or one state explains, told as one story."""
