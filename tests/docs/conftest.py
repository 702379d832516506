"""The generators of the documentation are scripts in docs/generate."""

import sys
from pathlib import Path

from tests.analyzer.conftest import ptaudit

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "generate"))

__all__ = ["ptaudit"]
