"""Permissions and memory types."""
