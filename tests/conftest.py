"""Disable Hypothesis deadlines: CI may be slow.  With PTAUDIT_WITHOUT_DRGN, run as where drgn is not installed."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

if os.environ.get("PTAUDIT_WITHOUT_DRGN"):
    sys.modules["drgn"] = None  # type: ignore[assignment]  # importing it is an ImportError from here on


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="write expected.json of the rules' cases from what they say")
