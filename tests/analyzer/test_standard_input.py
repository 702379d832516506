"""``-`` is standard input, for every command that takes sources."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parents[2] / "fixtures"
OOPS = (FIXTURES / "field/transports/x_plain.txt").read_bytes()
TRACE = (FIXTURES / "ftrace/pmem.trace").read_bytes()
STATE = FIXTURES / "captures/pmem-6.12-vuln/02-one-removed"


@pytest.mark.parametrize(
    ("command", "data", "status", "said"),
    [
        (["audit", "-"], OOPS, 1, "OOP-01"),
        (["audit", str(STATE / "iomem"), "-"], OOPS, 1, "OOP-01"),
        (["timeline", "-"], TRACE, 0, "add section"),
        (["where", "-", "0xfffffdffc2100000"], OOPS, 0, "0x84000"),
        (["whatif", "-", "remove:0x80000000-0x82000000"], OOPS, 3, "UNKNOWN"),
        (["audit", "-"], gzip.compress(OOPS), 2, "name the file"),
        (["audit", "-"], b"", 2, "nothing on standard input"),
        (["audit", "-", "-"], OOPS, 2, "nothing on standard input"),
    ],
)
def test_commands_read_standard_input(
    ptaudit, monkeypatch: pytest.MonkeyPatch, command: list[str], data: bytes, status: int, said: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    done = ptaudit(*command)
    assert (done.status, said in done.out + done.err) == (status, True), done


def test_standard_input_that_is_closed(ptaudit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    done = ptaudit("audit", "-")
    assert (done.status, "standard input is closed" in done.err) == (2, True)
    assert ptaudit("audit", STATE, "-").status == 1  # the rest is audited
