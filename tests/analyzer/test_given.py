"""What is given is used, or named with the reason: files as people send them (fixtures/given/README.md)."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import os
import shutil
import tarfile
import time
import tracemalloc
from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.audit_command import FORMATS
from analyzer.sources.read import Request, read_sources
from analyzer.sources.recognise import documents_of
from parsers.errors import InputError, UsageError
from parsers.layout import KernelLayout
from parsers.parts import parts_of
from parsers.uname import KernelRelease
from rules.engine import Outcome
from rules.model.captured import build_facts
from tests.analyzer.conftest import CAPTURES

GIVEN = Path(__file__).parents[2] / "fixtures" / "given"
OOPS = (GIVEN / "oops-then-zoneinfo.txt").read_bytes().partition(b"Node 0, zone")[0]
LOST = {"VMM-02", "OOP-01"}
TRACE = {"VMM-02", "TRC-07", "TRC-08"}


def fired(*paths: Path) -> set[str]:
    return {one.rule.code for one in audit(Request(paths)).verdicts if one.outcome is Outcome.FIRED}


def unread(*paths: Path) -> dict[str, str]:
    return {Path(path).name: reason for path, reason in read_sources(Request(paths)).unread}


def kinds(*paths: Path) -> list[str]:
    return sorted(source.kind for source in read_sources(Request(paths)).sources if source.kind != "archive")


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("two-traces-empty-instance-first.tar.gz", TRACE),
        ("sos-ubuntu-kdump-tools.tar.gz", LOST),
        ("sos-pstore.tar.gz", LOST),
        ("rotated-log.tar.gz", LOST),
        ("nvidia-bug-report.log.gz", LOST),
        ("supportconfig.txz", LOST),
        ("android-bugreport.txt", LOST),
        ("other-names.tar.gz", TRACE),
        ("terminal-session.txt", LOST),
        ("oops-then-zoneinfo.txt", LOST),
    ],
)
def test_all_of_it_is_read_packed_and_unpacked(name: str, codes: set[str], tmp_path: Path) -> None:
    assert fired(GIVEN / name) >= codes
    if name.endswith((".tar.gz", ".txz")):
        with tarfile.open(GIVEN / name) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4
            archive.extractall(tmp_path)
        assert fired(tmp_path) >= codes


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("terminal-session.txt", ["cmdline", "dmesg", "iomem", "memory_blocks", "ptdump", "uname", "zoneinfo"]),
        ("android-bugreport.txt", ["dmesg", "dmesg", "meminfo", "uname", "zoneinfo"]),
        ("nvidia-bug-report.log.gz", ["cmdline", "dmesg", "iomem", "meminfo", "uname", "uname"]),
        ("oops-then-zoneinfo.txt", ["dmesg", "zoneinfo"]),
        ("lsmem-16k.txt", ["lsmem"]),
        ("lsmem-empty-zones.txt", ["lsmem"]),
    ],
)
def test_every_kind_in_one_text(name: str, found: list[str]) -> None:
    assert kinds(GIVEN / name) == found


def test_a_quoted_and_wrapped_dump_is_read_whole() -> None:
    sources = read_sources(Request((GIVEN / "page-tables-quoted-wrapped.txt",)))
    dump = sources.captured.dump
    assert (len(dump), dump.diagnostics) == (41, ())
    layout = build_facts(sources.captured).get(KernelLayout)
    assert (layout.page_size, layout.get("va_bits")) == (4096, 48)


def test_parts_keep_their_lines() -> None:
    text = (GIVEN / "terminal-session.txt").read_bytes()
    lines = text.splitlines()
    for part in parts_of(text):
        own = part.data.splitlines()
        assert all(line in {b"", lines[number]} for number, line in enumerate(own))
        assert own[part.line - 1]
    report = audit(Request((GIVEN / "terminal-session.txt",)))
    (finding,) = [one for one in report.findings if one.rule.code == "OOP-01"]
    for evidence in finding.hit.evidence:
        if evidence.line is not None and evidence.source.endswith("terminal-session.txt"):
            assert evidence.text.strip().encode() in lines[evidence.line - 1]


def test_a_text_of_one_kind_is_not_taken_apart() -> None:
    for path in sorted((CAPTURES / "pmem-6.12-vuln" / "02-one-removed").iterdir()):
        data = path.read_bytes()
        if b"\0" not in data[:100]:
            assert parts_of(data) == (), path.name


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("iomem", b"And my /proc/iomem:\n40000000-bfffffff : System RAM\n"),
        ("meminfo", b"MemTotal:        8000000 kB\nMemFree:         4000000 kB\n"),
        ("config", b"CONFIG_ARM64=y\nCONFIG_KASAN=y\n"),
    ],
)
def test_an_oops_with_a_few_lines_of_something_else_is_both(kind: str, lines: bytes) -> None:
    assert {part.kind.name for part in parts_of(OOPS + b"\n" + lines)} == {"dmesg", kind}


def test_a_boot_log_that_names_pools_of_huge_pages_is_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"[    0.000000] Linux version 6.12.30 (a@b)\n[    1.000000] HugeTLB: hugepages-2048kB/ sysfs\n")
    assert kinds(path) == ["dmesg"]


def test_a_mail_that_quotes_one_line_is_not_a_configuration() -> None:
    text = OOPS + b"\nIs CONFIG_PTDUMP_DEBUGFS=y set there?\nCONFIG_PTDUMP_DEBUGFS=y\n"
    assert [part.kind.name for part in parts_of(text)] == []
    assert [document.kind.name for document in documents_of(text)] == ["dmesg"]


@pytest.mark.parametrize(
    "name",
    [
        "dmesg.202611271312",
        "var/crash/127.0.0.1-2026-11-27/vmcore-dmesg-incomplete.txt",
        "sys/fs/pstore/dmesg-ramoops-0",
        "var/log/kern.log.1",
        "var/log/messages-20261127",
        "var/log/messages-20261127.xz",
        "var/log/syslog.2.gz",
        "whatever.txt",
        "notes/whatever.bz2",
    ],
)
def test_logs_count_whatever_they_are_called(tmp_path: Path, name: str) -> None:
    pack = {".xz": lzma.compress, ".gz": gzip.compress, ".bz2": bz2.compress}.get(Path(name).suffix, bytes)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack(OOPS))
    shutil.copy(CAPTURES / "pmem-6.12-vuln" / "02-one-removed" / "iomem", tmp_path)
    assert fired(tmp_path) >= LOST


def test_without_a_limit_of_files(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"note-{number}.txt").write_text(f"nothing of interest, {number}\n")
    (tmp_path / "zz-last.txt").write_bytes(OOPS)
    assert fired(tmp_path) >= LOST
    left = unread(tmp_path)
    assert left["note-7.txt"] == "not recognised"
    assert len(left) == 100


def test_an_oops_in_two_logs_is_one(tmp_path: Path) -> None:
    (tmp_path / "dmesg").write_bytes(OOPS)
    (tmp_path / "kern.log.1").write_bytes(b"[    0.000000] an older line\n" + OOPS)
    findings = [one for one in audit(Request((tmp_path,))).findings if one.rule.code == "OOP-01"]
    assert len(findings) == 1


def test_a_log_of_another_kernel_is_decoded_as_that(tmp_path: Path) -> None:
    (tmp_path / "uname").write_text("Linux vm 6.12.117 #2 SMP aarch64 GNU/Linux\n")
    (tmp_path / "dmesg").write_bytes(b"[    0.000000] Linux version 6.12.117 (root@vm) #2 SMP\n")
    (tmp_path / "kern.log.1").write_bytes(OOPS.replace(b"6.12.117", b"6.12.90"))
    report = audit(Request((tmp_path,)))
    (finding,) = [one for one in report.findings if one.rule.code == "OOP-01"]
    assert "6.12.90" in finding.hit.message
    assert "VMM-02" not in {one.rule.code for one in report.findings}


def test_an_oops_of_another_kernel_alone_is_another_machine(tmp_path: Path) -> None:
    (tmp_path / "uname").write_text("Linux vm 6.12.117 #2 SMP aarch64 GNU/Linux\n")
    (tmp_path / "dmesg").write_bytes(OOPS.replace(b"6.12.117", b"5.10.9"))
    with pytest.raises(UsageError, match=r"5\.10\.9"):
        read_sources(Request((tmp_path,)))


def test_the_same_moment_twice_is_one(tmp_path: Path, damaged: Path) -> None:
    packed = tmp_path / "host.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(damaged, "host")
    read = read_sources(Request((damaged, packed)))
    assert read.captured.earlier_dump is None
    assert unread(damaged, packed)["kernel_page_tables"].startswith("the same content as ")


def test_what_is_superseded_is_named(tmp_path: Path, damaged: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "iomem").write_bytes((damaged / "iomem").read_bytes())
    (tmp_path / "a" / "iomem").write_text("40000000-4fffffff : System RAM\n  40210000-41ffffff : Kernel code\n")
    assert unread(tmp_path) == {"iomem": f"superseded by {tmp_path / 'b' / 'iomem'}"}


def test_packed_attachment_of_a_mail_is_named(tmp_path: Path) -> None:
    oops = (GIVEN.parent / "oops/pmem-6.12-vuln.txt").read_bytes()
    packed = base64.encodebytes(gzip.compress(oops, mtime=0))
    heads = b"Content-Type: %b; name=%b\nContent-Transfer-Encoding: %b\n\n"
    mail = (
        b"From: a@b\nContent-Type: multipart/mixed; boundary=b\n\n--b\n" + heads % (b"text/plain", b"t", b"8bit") + oops
    )
    (tmp_path / "mail").write_bytes(
        mail + b"--b\n" + heads % (b"application/gzip", b"log.gz", b"base64") + packed + b"--b--\n"
    )
    for path in (tmp_path, tmp_path / "mail"):
        assert [name for name in unread(path) if name.endswith("mail: log.gz")]


def test_members_of_one_name_are_named(tmp_path: Path, damaged: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for text in (b"40000000-4fffffff : System RAM\n", (damaged / "iomem").read_bytes()):
            info = tarfile.TarInfo("iomem")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    read = read_sources(Request((path,)))
    assert read.captured.iomem.start.size > 10
    assert [reason for _, reason in read.unread] == ["more than once in the archive: the last one is read"]


def test_bad_files_in_a_capture_never_end_the_audit(tmp_path: Path, damaged: Path) -> None:
    capture = tmp_path / "host"
    shutil.copytree(damaged, capture)
    (capture / "cut.tar.gz").write_bytes(gzip.compress(bytes(range(256)) * 99)[:60])
    shutil.copy(GIVEN / "zip-overlapping.zip", capture / "bundle.zip")
    (capture / "meminfo").write_bytes(b"\0\1\2")
    os.mkfifo(capture / "pipe")
    os.truncate(os.open(capture / "zoneinfo", os.O_CREAT | os.O_WRONLY), 1 << 40)
    began = time.monotonic()
    assert "VMM-02" in fired(capture)
    assert time.monotonic() - began < 20
    left = unread(capture)
    assert left["pipe"] == "not a regular file"
    assert "overlap" in left["bundle.zip"]
    assert "larger than" in left["zoneinfo"]
    assert "meminfo" in left


def test_links_that_lead_out_are_named(tmp_path: Path, damaged: Path) -> None:
    capture = tmp_path / "host"
    shutil.copytree(damaged, capture)
    (tmp_path / "elsewhere").write_bytes(b"KDUMP   ")
    (capture / "vmcore").symlink_to(tmp_path / "elsewhere")
    assert "leads out of the directory" in unread(capture)["vmcore"]


def test_links_that_lead_out_are_named_where_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "elsewhere").write_bytes(b"KDUMP   ")
    (tmp_path / "host/vmcore").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"host/vmcore \(a link that leads out of the directory"):
        audit(Request((tmp_path / "host",)))


def test_the_configuration_of_another_architecture_is_not_used(tmp_path: Path, damaged: Path) -> None:
    capture = tmp_path / "host"
    shutil.copytree(damaged, capture)
    (capture / "config").write_text("# Linux/riscv 6.12.0 Kernel Configuration\nCONFIG_RISCV=y\n")
    assert "VMM-02" in fired(capture)
    assert unread(capture)["config"] == "the configuration of a kernel for riscv, not for arm64"


def test_a_capture_beside_others_can_be_named(tmp_path: Path, damaged: Path) -> None:
    capture = tmp_path / "host"
    shutil.copytree(damaged, capture)
    shutil.copytree(damaged, capture / "before")
    assert "VMM-02" in fired(capture)
    assert unread(capture)["kernel_page_tables"] == "of another capture, before: name that by itself"


def test_what_the_audit_does_not_use_is_named(tmp_path: Path, damaged: Path) -> None:
    shutil.copy(damaged / "iomem", tmp_path)
    (tmp_path / "modules").write_text("ext4 1 0 - Live 0x0\n")
    assert unread(tmp_path) == {"modules": "the audit does not use it"}


@pytest.mark.parametrize("name", ["zip-bzip2-bomb.zip", "zip-overlapping.zip", "pax-headers.tar.gz"])
def test_hostile_archives_are_refused_soon_and_small(name: str) -> None:
    began = time.monotonic()
    tracemalloc.start()
    with pytest.raises(InputError, match=r"bomb|overlap|damaged"):
        read_sources(Request((GIVEN / name,)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 << 20
    assert time.monotonic() - began < 30


def test_titles_in_a_configuration_are_not_prompts(tmp_path: Path) -> None:
    rows = b"".join(b"CONFIG_A%d=y\n# CONFIG_B%d is not set\n" % (number, number) for number in range(40))
    text = b"BUG: KFENCE: use-after-free read in f+0x1/0x2\n\n" + rows + b"#\n# General setup\n#\n" + rows
    found = documents_of(text + b"# end of General setup\n" + rows.replace(b"_A", b"_C"))
    assert [one.kind.name for one in found] == ["dmesg", "config"]


def test_a_few_lines_of_a_configuration_are_not_a_whole_one(tmp_path: Path) -> None:
    (tmp_path / "mail").write_bytes(OOPS + b"\nCONFIG_ARM64=y\nCONFIG_KASAN=y\n")
    config = read_sources(Request((tmp_path / "mail",))).captured.config
    assert config is not None
    assert not config.complete


def test_a_log_of_another_architecture_beside_a_line_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mail").write_bytes(
        b"Unable to handle kernel paging request at virtual address c010f1f4\n"
        b"Internal error: Oops: 80d [#1] PREEMPT ARM\n"
        b"PC is at f+0x1/0x2\nCall trace:\n# cat /proc/cmdline\nro quiet\n"
    )
    with pytest.raises(InputError, match="32-bit Arm"):
        audit(Request((tmp_path / "mail",)))


def test_a_text_that_is_too_long_to_be_searched_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("parsers.parts", "analyzer.sources.recognise"):
        monkeypatch.setattr(f"{module}.MAX_BYTES", 1000)
    (tmp_path / "text").write_bytes(OOPS + b"# cat /proc/iomem\n40000000-7fffffff : System RAM\n" * 40)
    (source,) = read_sources(Request((tmp_path / "text",))).sources
    assert any("not searched for other evidence" in one.message for one in source.diagnostics)


@pytest.mark.parametrize("machine", ["x86_64", "riscv64", "ppc64le"])
def test_release_of_another_architecture_is_left_out_and_named(tmp_path: Path, machine: str) -> None:
    home = tmp_path / "capture"
    shutil.copytree(CAPTURES / "dimm-6.12/02-dimm-online", home)
    (home / "uname").write_text(f"Linux pc 6.1.55 #1 SMP {machine} GNU/Linux\n")
    assert unread(home)["uname"] == "the release of another architecture: arm64 is audited"
    release = build_facts(read_sources(Request((home,))).captured).get(KernelRelease)
    assert release is None or release.raw != "6.1.55"


def test_identical_files_are_not_called_superseded(tmp_path: Path) -> None:
    home = tmp_path / "capture"
    shutil.copytree(CAPTURES / "dimm-6.12/02-dimm-online", home)
    shutil.copy(home / "iomem", tmp_path / "iomem")
    assert unread(home, tmp_path / "iomem")["iomem"] == f"the same content as {tmp_path / 'iomem'}"


@pytest.mark.parametrize("form", FORMATS)
def test_reports_of_ptaudit_are_not_evidence(ptaudit, tmp_path: Path, damaged: Path, form: str) -> None:
    (tmp_path / "capture").mkdir()
    shutil.copy(damaged / "iomem", tmp_path / "capture")
    name = f"report.{FORMATS[form]}"
    ptaudit("audit", damaged, "--format", form, "--output", tmp_path / "capture" / name)
    assert unread(tmp_path / "capture") == {name: "a report of ptaudit, not evidence"}
    with pytest.raises(InputError, match="a report of ptaudit"):
        read_sources(Request((tmp_path / "capture" / name,)))
