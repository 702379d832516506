"""The hook of mkdocs: adds the generated pages to the site, and every rule to the navigation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from mkdocs.structure.files import File, Files
from pages import generated_pages


def on_files(files: Files, config: Any) -> Files:  # noqa: ANN401 mkdocs'
    for path, content in generated_pages().items():
        files.append(File.generated(config, path, content=content))
    return files
