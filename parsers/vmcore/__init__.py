"""Crash dumps of arm64 Linux: page tables, section table and what else the audit needs, from memory itself.

Start at `parsers.vmcore.extract`; the tables that come out of it are in `parsers.vmcore.rows`.
"""
