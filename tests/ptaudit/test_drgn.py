"""In drgn: ptaudit.open(prog), and the command of the plug-in, on a core of the fixtures."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import zstandard

import ptaudit

drgn = pytest.importorskip("drgn", reason="drgn is not installed")
commands = pytest.importorskip("drgn.commands", reason="this drgn has no command registry")

CORE = Path(__file__).parents[2] / "fixtures" / "vmcore" / "pmem-6.12-vuln-after.core.zst"


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("core") / "vmcore"
    with CORE.open("rb") as packed, path.open("wb") as plain:
        zstandard.ZstdDecompressor().copy_stream(packed, plain)
    return path


@pytest.fixture(scope="module")
def prog(core: Path):  # type: ignore[no-untyped-def]
    opened = drgn.Program()
    opened.set_core_dump(core)
    return opened


def run(prog, command: str) -> str:  # type: ignore[no-untyped-def]
    import ptaudit.drgn_plugin  # noqa: F401, PLC0415 registers the command

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        commands.run_command(prog, command)
    return printed.getvalue()


def test_an_open_program_gives_what_its_file_gives(prog, core: Path) -> None:  # type: ignore[no-untyped-def]
    program, file = ptaudit.open(prog), ptaudit.open(core)
    assert program.sections().equals(file.sections())
    assert program.mapping("vmemmap").drop(columns="source").equals(file.mapping("vmemmap").drop(columns="source"))
    assert program.findings().fingerprint.tolist() == file.findings().fingerprint.tolist()


def test_memory_that_only_drgn_reads_gives_the_same(core: Path) -> None:
    from parsers.vmcore.opening import open_dump  # noqa: PLC0415

    raw = open_dump(core)

    def read(address: int, count: int, _offset: int, _physical: bool) -> bytes:
        try:
            return raw.memory.read(address, count)
        except Exception as error:
            raise drgn.FaultError(str(error), address) from error

    flags = drgn.PlatformFlags.IS_64_BIT | drgn.PlatformFlags.IS_LITTLE_ENDIAN
    own = drgn.Program(drgn.Platform(drgn.Architecture.AARCH64, flags), vmcoreinfo=raw.vmcoreinfo_bytes)
    own.set_linux_kernel_custom(raw.vmcoreinfo_bytes, False)
    own.add_memory_segment(0, 1 << 52, read, True)
    opened = ptaudit.open(own)
    assert opened.findings().fingerprint.tolist() == ptaudit.open(core).findings().fingerprint.tolist()
    assert [one.path for one in opened.read.sources] == ["drgn"]


def test_absent_units_are_absent_and_order_is_kept(core: Path) -> None:
    from parsers.vmcore.drgn_memory import ProgramMemory  # noqa: PLC0415

    class Program:
        def read(self, address: int, count: int, physical: bool) -> bytes:
            assert physical
            if address <= 5 * 4096 < address + count:
                raise drgn.FaultError("hole", 5 * 4096)
            return b"".join(
                (at).to_bytes(8, "little") * 512 for at in range(address // 4096, (address + count) // 4096)
            )

    units = np.array([9, 4, 5, 6, 4, 300, 3], dtype=np.uint64)
    data, present = ProgramMemory(Program()).read_units(units)  # type: ignore[arg-type]
    assert present.tolist() == [True, True, False, True, True, True, True]
    assert data.view("<u8")[:, 0].tolist() == [9, 4, 0, 6, 4, 300, 3]


def test_the_command_audits_shows_sections_and_answers_where(prog) -> None:  # type: ignore[no-untyped-def]
    assert "CRITICAL VMM-02" in run(prog, "ptaudit audit")
    assert run(prog, "ptaudit sections").startswith("section")
    assert "section" in run(prog, "ptaudit where pfn:0x80000 pfn:0x84000")


def test_the_command_says_what_is_wrong_with_its_arguments(prog) -> None:  # type: ignore[no-untyped-def]
    for line in ("ptaudit", "ptaudit dance", "ptaudit sections -x", "ptaudit where"):
        with pytest.raises(commands.CommandArgumentError, match="usage"):
            run(prog, line)
    with pytest.raises(commands.CommandError):
        run(prog, "ptaudit where nonsense")


def test_a_program_that_is_not_a_kernel_is_refused() -> None:
    with pytest.raises(ptaudit.PtauditError, match="not a Linux kernel"):
        ptaudit.open(drgn.Program())


def test_drgn_finds_the_plug_in_by_its_entry_point(core: Path) -> None:
    assert "ptaudit" in {one.name for one in entry_points(group="drgn.plugins")}
    code = f"""
import drgn
from drgn.commands import run_command
prog = drgn.Program()
prog.set_core_dump({str(core)!r})
run_command(prog, "ptaudit sections")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("section")
    assert done.stderr == ""
