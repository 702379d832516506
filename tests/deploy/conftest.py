"""The command line and the captures are those of the analyzer's tests."""

from tests.analyzer.conftest import damaged, ptaudit

__all__ = ["damaged", "ptaudit"]
