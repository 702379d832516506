"""The collecting script: plain shell, reads only, bounded, and its bundle audits."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from analyzer.collect.on_this_host import script
from analyzer.sources import identity
from parsers.kinds import kind_of_path

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "fixtures" / "collected" / "pmem-6.12-kaslr.tar.gz"
SHELLS = [["sh"], ["dash"], ["bash", "--posix"], ["busybox", "sh"]]

on_linux = pytest.mark.skipif(platform.system() != "Linux", reason="collects from a Linux host")


def collected(*arguments: str, cwd: Path, shell: list[str] | None = None, path: Path | None = None):
    environment = {**os.environ, **({"PATH": f"{path}:{os.environ['PATH']}"} if path else {})}
    command = [*(shell or ["sh"]), "-s", "--", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, input=script(), capture_output=True, text=True, timeout=120, check=False
    )


def manifest(directory: Path) -> dict[str, str]:
    lines = (directory / "manifest").read_text().splitlines()
    assert lines[0].split("\t") == ["name", "uptime", "seconds", "bytes", "result"]
    return {name: result for name, _, _, _, result in (line.split("\t") for line in lines[1:])}


def tool(directory: Path, name: str, text: str) -> Path:
    """A command of that name that comes first in the PATH."""
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{text}\n")
    (directory / name).chmod(0o755)
    return directory


def installed(shell: list[str]) -> list[str]:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    return shell


def test_printed_script_is_the_one_that_runs(ptaudit) -> None:
    done = ptaudit("collect", "--print-script")
    assert done.status == 0
    assert done.out == script()
    assert "@" not in done.out, "a placeholder of the template"
    assert done.out.startswith("#!/bin/sh\n")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_syntax(shell: list[str]) -> None:
    done = subprocess.run([*installed(shell), "-n"], input=script(), text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", "-s", "sh", "-"], input=script(), text=True, capture_output=True, check=False)
    assert done.stdout == ""


@on_linux
@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_bundle_holds_what_the_manifest_says_and_nothing_lies_beside_it(shell: list[str], tmp_path: Path) -> None:
    done = collected("-o", "host.tar.gz", cwd=tmp_path, shell=installed(shell))
    assert done.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["host.tar.gz"]
    with tarfile.open(tmp_path / "host.tar.gz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4
        archive.extractall(tmp_path / "host")
    said = manifest(tmp_path / "host")
    present = {path.name for path in (tmp_path / "host").iterdir()}
    assert present == {name for name, result in said.items() if result == "ok"} | {"manifest"}
    assert {"uname", "cmdline", "meminfo"} <= present


@on_linux
def test_directory_and_what_it_holds_is_private(tmp_path: Path) -> None:
    done = collected("-o", "capture/", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "capture").stat().st_mode & 0o077 == 0
    assert (tmp_path / "capture" / "uname").read_text().startswith("Linux ")
    again = collected("-o", "capture/", cwd=tmp_path)
    assert again.returncode == 2
    assert "holds a capture already" in again.stderr


@on_linux
def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = collected("-n", cwd=tmp_path)
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []
    for name in ("kernel_page_tables", "iomem", "memory_blocks", "vmcoreinfo"):
        assert f"  {name} " in done.stderr


@on_linux
def test_read_that_hangs_is_given_up(tmp_path: Path) -> None:
    fake = tool(tmp_path / "bin", "lsmem", "echo start; exec sleep 30")
    done = collected("-t", "1", "-o", "capture/", cwd=tmp_path, path=fake)
    assert done.returncode == 0
    assert manifest(tmp_path / "capture")["lsmem"] == "no end after 1 s"
    assert not (tmp_path / "capture" / "lsmem").exists()
    assert (tmp_path / "capture" / "lsmem.partial").exists()
    assert kind_of_path("capture/lsmem.partial") is None, "nobody takes a part for the whole"


@on_linux
def test_read_that_is_too_large_is_cut_and_named_so(tmp_path: Path) -> None:
    fake = tool(tmp_path / "bin", "lsmem", "exec head -c 5000000 /dev/zero")
    done = collected("-m", "1", "-o", "capture/", cwd=tmp_path, path=fake)
    assert done.returncode == 0
    assert manifest(tmp_path / "capture")["lsmem"] == "larger than 1 MiB"
    assert (tmp_path / "capture" / "lsmem.partial").stat().st_size == 1 << 20


@on_linux
def test_command_that_fails_leaves_its_error(tmp_path: Path) -> None:
    fake = tool(tmp_path / "bin", "lsmem", "echo lsmem: no such thing >&2; exit 1")
    collected("-o", "capture/", cwd=tmp_path, path=fake)
    assert manifest(tmp_path / "capture")["lsmem"] == "lsmem: no such thing"
    assert not (tmp_path / "capture" / "lsmem").exists()


LOG = """[ 0.0] Booting Linux on physical CPU 0
[ 1.0] eth0: 52:54:00:12:34:56 on customer1, Serial: AB12 ok
"""
UNAME = "Linux customer1 6.12.1 #1 SMP aarch64 GNU/Linux"


@on_linux
@pytest.mark.parametrize(
    ("files", "collected_from"),
    [
        ({"dynamic_events": "f:mhp/mhp_pgmap memremap_pages pgmap=$arg1\n"}, "trace"),
        ({"dynamic_events": "p:mhp/mhp_add arch_add_memory\n", "kprobe_events": "p:mhp/mhp_add x\n"}, "trace"),
        ({"kprobe_events": "p:mhp/mhp_add arch_add_memory\n"}, "trace"),
        ({"set_event": "kmem:mm_page_alloc\n"}, "trace"),
        ({"current_tracer": "function\n"}, "trace"),
        (
            {"current_tracer": "nop\n", "instances/mhp/trace": "# tracer: nop\n# of the instance\n"},
            "instances/mhp/trace",
        ),
        ({"current_tracer": "nop\n", "dynamic_events": "", "kprobe_events": "", "set_event": ""}, None),
    ],
)
def test_trace_is_collected_whatever_records_it(files, collected_from, tmp_path: Path) -> None:
    tracing = tmp_path / "tracing"
    for name, text in {"trace": "# tracer: nop\n", **files}.items():
        (tracing / name).parent.mkdir(parents=True, exist_ok=True)
        (tracing / name).write_text(text)
    moved = script().replace("tracing=/sys/kernel/tracing\n", f"tracing={tracing}\n")
    assert moved != script()
    done = subprocess.run(
        ["sh", "-s", "--", "-o", "b/"],
        input=moved,
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    trace = tmp_path / "b" / "trace"
    assert trace.exists() == (collected_from is not None)
    if collected_from:
        assert trace.read_text() == (tracing / collected_from).read_text()


def test_redaction(tmp_path: Path) -> None:
    fake = tool(tmp_path / "bin", "dmesg", f"cat <<'EOF'\n{LOG}EOF")
    tool(fake, "uname", f"case $1 in -n) echo customer1;; -s) echo Linux;; -m) echo aarch64;; *) echo '{UNAME}';; esac")
    done = collected("-r", "-o", "capture/", cwd=tmp_path, path=fake)
    assert done.returncode == 0
    log = (tmp_path / "capture" / "dmesg").read_text()
    assert log.splitlines()[1] == "[ 1.0] eth0: xx:xx:xx:xx:xx:xx on (none), Serial: (redacted) ok"
    assert (tmp_path / "capture" / "uname").read_text().strip() == UNAME.replace("customer1", "(none)")


@pytest.mark.parametrize("arguments", [["-t", "x"], ["-t", ""], ["-t", "0"], ["-m", "1g"], ["-z"], ["stray"]])
def test_bad_options_are_2(arguments: list[str], tmp_path: Path) -> None:
    done = collected(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


@on_linux
def test_place_that_cannot_be_written_is_2(tmp_path: Path) -> None:
    done = collected("-o", "none/host.tar.gz", cwd=tmp_path)
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    with tarfile.open(BUNDLE) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4
        archive.extractall(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_bundle_of_a_real_kernel_is_audited(ptaudit, bundle: Path) -> None:
    done = ptaudit("audit", bundle, "--format", "json")
    document = json.loads(done.out)
    assert done.status == 0
    kinds = {source["kind"]: source for source in document["sources"]}
    assert not [source for source in document["sources"] if source["diagnostics"]]
    assert {"ptdump", "iomem", "memory_blocks", "memory_nodes", "vmcoreinfo", "config", "dmesg", "boot_id"} <= set(
        kinds
    )
    assert document["kernel"]["precision"]["phys_offset"] == "exact"
    assert document["kernel"]["source"]["phys_offset"] == "VMCOREINFO"


def test_every_file_of_the_real_bundle_was_read_whole(bundle: Path) -> None:
    said = manifest(bundle)
    assert said.pop("modules", "empty") == "empty"
    assert set(said.values()) == {"ok"}


@on_linux
def test_live_audit_keeps_the_capture_beside_its_reports(
    ptaudit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "refuse_other_architectures", lambda *_: None)  # whatever runs the tests
    done = ptaudit("audit", "--live", "--output", f"{tmp_path}/now/")
    assert done.status in {0, 1}
    report = json.loads((tmp_path / "now" / "report.json").read_text())
    assert "uname" in {source["kind"] for source in report["sources"]}
    assert (tmp_path / "now" / "capture" / "manifest").exists()


@pytest.mark.skipif(platform.machine() in {"aarch64", "arm64"}, reason="this host may be audited")
@on_linux
def test_a_host_of_another_architecture_is_refused(ptaudit, tmp_path: Path) -> None:
    done = ptaudit("audit", "--live", "--output", f"{tmp_path}/now/")
    assert done.status == 2
    assert "not for arm64" in done.err.splitlines()[-1]
    assert (tmp_path / "now" / "capture" / "manifest").exists()


@on_linux
def test_collect_command_passes_its_options_on(ptaudit, tmp_path: Path) -> None:
    assert ptaudit("collect", "-o", f"{tmp_path}/capture/", "-t", "30", "-m", "8", "--redact").status == 0
    assert (tmp_path / "capture" / "manifest").exists()
    assert ptaudit("collect", "-t", "0").status == 2
