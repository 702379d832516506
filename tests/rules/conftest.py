"""Machines, dumps and captures that the tests of several rules change."""

from __future__ import annotations

import shutil

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.layout import KernelLayout
from tests.cases import CAPTURES, case_file, files_of
from tests.rules.captures import file_of
from tests.rules.changed_traces import counted
from tests.rules.drawn import Drawn
from tests.rules.dumps import Sections


@pytest.fixture
def case_verdict(tmp_path):
    """The verdict of one rule about the trace of a fixture, changed by a function of its lines."""

    def verdict(code, case, change=lambda lines: lines, *, left_out=("expected.json",)):
        for name, file in files_of(f"{code}/{case}").items():
            if name not in left_out:
                (tmp_path / name).write_bytes(file.read_bytes())
        lines = case_file(f"{code}/{case}", "trace").read_text().splitlines()
        (tmp_path / "trace").write_text("".join(f"{line}\n" for line in counted(change(lines))))
        (found,) = audit(Request((tmp_path,)), only=[code]).verdicts
        return found

    return verdict


@pytest.fixture
def changed_capture(tmp_path):
    """Audits a capture in which files hold something else: bytes, or what another capture has; None for no file."""

    def audited(capture, **files):
        copy = tmp_path / "capture"
        shutil.copytree(CAPTURES / capture, copy)
        for name, content in files.items():
            if content is None:
                (copy / name).unlink()
            else:
                old = file_of(capture, name) if (CAPTURES / capture / name).exists() else b""
                (copy / name).write_bytes(content(old) if callable(content) else file_of(content, name))
        return audit(Request((copy,)))

    return audited


@pytest.fixture(scope="session")
def pmem():
    return Sections("pmem-6.12-vuln-before.core.zst")


@pytest.fixture(scope="session")
def after():
    return Sections("pmem-6.12-vuln-after.core.zst")


@pytest.fixture(scope="session")
def mixed():
    return Sections("dimm-6.12-mixed-online.core.zst")


@pytest.fixture(scope="session")
def hvo():
    return Sections("hvo-6.1-allocated.core.zst")


@pytest.fixture(scope="session")
def dimm():
    return Sections("dimm-6.12-memmap-on-memory-online.core.zst")


@pytest.fixture(scope="session")
def layout(tmp_path_factory):
    """Of a machine of 4K pages and 48 bits."""
    return Drawn().audit(tmp_path_factory.mktemp("drawn")).facts.get(KernelLayout)
