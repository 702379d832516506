"""Half a line at the end of a file may hold half a number: that is said, wherever the file lies."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from analyzer.sources.found import UNENDED
from analyzer.sources.read import Request, read_sources

FIXTURES = Path(__file__).parents[2] / "fixtures"
CAPTURE = FIXTURES / "captures/pmem-6.12-vuln/02-one-removed"


def said(*paths: Path, **kinds: Path) -> list[str]:
    sources = read_sources(Request(paths, kinds)).sources
    return [str(each) for one in sources for each in one.diagnostics if UNENDED in each.message]


@pytest.mark.parametrize("name", [path.name for path in sorted(CAPTURE.iterdir()) if path.suffix == ""])
def test_half_a_last_line(tmp_path: Path, name: str) -> None:
    whole = (CAPTURE / name).read_bytes()
    cut = tmp_path / name
    cut.write_bytes(whole.rstrip(b"\n"))
    kind = name.replace("kernel_page_tables", "ptdump")
    assert said(**{kind: cut}) == [f"{cut}:offset {cut.stat().st_size:#x}: {UNENDED}"]
    cut.write_bytes(whole)
    assert said(tmp_path) == []


def test_in_archives_and_trees(tmp_path: Path) -> None:
    files = {
        "proc/iomem": b"40000000-bfffffff : System RAM\n",
        "sys/devices/system/memory/block_size_bytes": b"800",
        "sys/devices/system/memory/memory8/state": b"online\n",
        "proc/meminfo": b"MemTotal:     123",
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, data in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    archive = tmp_path.with_suffix(".tar.gz")
    archive.write_bytes(gzip.compress(out.getvalue()))
    for root, between in ((tmp_path, "/"), (archive, ":")):
        assert said(root) == [
            f"{root}{between}proc/meminfo:offset 0x11: {UNENDED}",
            f"{root}{between}sys/devices/system/memory: block_size_bytes: {UNENDED}",
        ]


def test_binary_files_have_no_lines() -> None:
    assert said(FIXTURES / "ftrace/pmem.dat") == []
