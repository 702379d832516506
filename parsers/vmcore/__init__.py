"""Crash dumps of arm64 Linux: page tables, section table and what else the audit needs, from memory itself."""

from parsers.vmcore.extract import VmcoreFacts, distill, extract

__all__ = ["VmcoreFacts", "distill", "extract"]
