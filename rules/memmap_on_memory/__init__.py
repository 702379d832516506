"""Struct pages that live in the memory block that they describe."""
