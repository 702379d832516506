"""Commands on a file that is shaped as /proc/kcore, and on hosts where the kernel's memory cannot be read."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from analyzer.collect import on_this_host
from analyzer.sources import reading, running
from analyzer.sources.crashdump import Symbols
from analyzer.sources.read import Request, read_sources
from parsers.manifest import parse_manifest
from parsers.vmcore.extract import VmcoreFacts
from tests.analyzer.test_collect import on_linux
from tests.parsers.vmcore.conftest import AFTER
from tests.parsers.vmcore.kcores import room_for_kcore
from tests.parsers.vmcore.test_kcore import kcore_of


@pytest.fixture(scope="module")
def kcore():
    with room_for_kcore() as room:
        yield kcore_of(room, AFTER)


def findings(document: str) -> list[tuple[str, str, str, list[dict[str, str]]]]:
    found = json.loads(document)["findings"]
    return [(one["rule"], one["severity"], one["claim"], one["pfn_ranges"]) for one in found]


def test_the_findings_are_those_of_the_dump(ptaudit, kcore: Path) -> None:
    done = ptaudit("audit", kcore, "--format", "json")
    assert findings(done.out) == findings(ptaudit("audit", AFTER, "--format", "json").out)
    assert ("VMM-02", "critical", "proven") in [found[:3] for found in findings(done.out)]
    assert done.status == 1


def test_sections_where_and_distill(ptaudit, kcore: Path, tmp_path: Path) -> None:
    assert ptaudit("sections", kcore).out == ptaudit("sections", AFTER).out
    of_kcore, of_dump = (ptaudit("where", path, "pfn:0x82000").out for path in (kcore, AFTER))
    assert of_kcore.replace(kcore.name, "") == of_dump.replace(AFTER.name, "")
    small = tmp_path / "host.core"
    assert ptaudit("distill", kcore, "-o", small).status == 0
    assert small.stat().st_size < 8 << 20
    assert findings(ptaudit("audit", small, "--format", "json").out) == findings(
        ptaudit("audit", AFTER, "--format", "json").out
    )


def test_the_running_kernel_is_a_source_beside_texts(kcore: Path) -> None:
    facts = running.read_running(Symbols(), kcore)
    assert isinstance(facts, VmcoreFacts)
    sources = read_sources(Request((), running=facts))
    assert sources.captured.vmcore is facts
    (source,) = sources.sources
    assert (source.kind, len(source.sha256)) == ("vmcore", 64)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/nonexistent", "does not exist"),
        ("/dev/null", "is masked"),
        (__file__, "neither an ELF core nor a kdump"),
    ],
)
def test_memory_that_cannot_be_read_is_one_line(path: str, why: str) -> None:
    said = running.read_running(Symbols(), Path(path))
    assert isinstance(said, str)
    assert why in said
    assert "\n" not in said


def test_lockdown_and_missing_capabilities_are_distinguished(monkeypatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(running.os, "open", refuse)
    lockdown = tmp_path / "lockdown"
    monkeypatch.setattr(running, "_LOCKDOWN", lockdown)
    status = tmp_path / "status"
    monkeypatch.setattr(running, "_STATUS", status)
    needs, closed = "needs root with CAP_SYS_RAWIO, which containers lack", "is closed by kernel lockdown"
    for text, capabilities, why in (
        ("none [integrity] confidentiality", "00000000a80425fb", needs),
        ("none integrity [confidentiality]", "000001ffffffffff", closed),
        (None, "00000000a80425fb", needs),
        (None, "000001ffffffffff", "is closed to root with CAP_SYS_RAWIO, as kernel lockdown"),
    ):
        lockdown.unlink(missing_ok=True)
        if text is not None:
            lockdown.write_text(text)
        status.write_text(f"Name:\tpython3\nCapEff:\t{capabilities}\n")
        assert why in (running.kcore_refusal(tmp_path) or "")


def test_an_audit_of_the_file_itself_says_why_it_cannot_be_read(ptaudit, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(reading, "is_proc_kcore", lambda path: path == tmp_path / "kcore")
    monkeypatch.setattr(reading, "read_kcore", lambda symbols: running.read_kcore(symbols, Path("/dev/null")))
    done = ptaudit("audit", tmp_path / "kcore")
    assert (done.status, done.out) == (2, "")
    assert done.err == "ptaudit: /dev/null is masked, as in a container\n"


# Bundles with a small core --------------------------------------------------------------------------------------------


@on_linux
@pytest.mark.parametrize("name", ["bundle.tar.gz", "bundle", "home/"])
def test_a_bundle_holds_the_small_core_and_audits_as_the_dump_does(
    ptaudit, monkeypatch, kcore: Path, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(on_this_host, "KCORE", kcore)
    monkeypatch.setattr(on_this_host, "kcore_refusal", lambda: None)
    monkeypatch.setattr(on_this_host, "collect", lambda arguments: only_texts(Path(arguments[-1])))
    done = ptaudit("collect", "-o", f"{tmp_path}/{name}")
    assert (done.status, done.out) == (0, "")
    bundle = tmp_path / ("bundle.tar.gz" if name == "bundle" else name)
    assert [path.name for path in tmp_path.iterdir()] == [bundle.name]
    if bundle.is_file():
        assert bundle.stat().st_mode & 0o777 == 0o600
        assert bundle.stat().st_size < 2 << 20
    document = json.loads(ptaudit("audit", bundle, "--format", "json").out)
    assert {"vmcore", "uname"} <= {one["kind"] for one in document["sources"]}
    assert ("VMM-02", "critical", "proven") in [
        (one["rule"], one["severity"], one["claim"]) for one in document["findings"]
    ]
    (core,) = (one["path"] for one in document["sources"] if one["kind"] == "vmcore")
    assert core.endswith("host.core")
    assert not [one for one in document["findings"] if "/tmp/ptaudit-" in json.dumps(one)]


def only_texts(home: Path) -> int:
    """What the script would have left of that host."""
    home.mkdir()
    (home / "uname").write_text("Linux host 6.12.117 #1 SMP aarch64 GNU/Linux\n")
    (home / "manifest").write_text("name\tuptime\tseconds\tbytes\tresult\n")
    return 0


@on_linux
def test_without_the_kernels_memory_a_bundle_says_so(ptaudit, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(on_this_host, "kcore_refusal", lambda: "/proc/kcore is masked, as in a container")
    monkeypatch.setattr(on_this_host, "collect", lambda arguments: only_texts(Path(arguments[-1])))
    done = ptaudit("collect", "-o", f"{tmp_path}/home/")
    assert "collect: /proc/kcore is masked, as in a container: the bundle has no host.core" in done.err
    manifest = parse_manifest((tmp_path / "home" / "manifest").read_bytes(), "manifest")
    assert manifest.why_not("host.core") == "/proc/kcore is masked, as in a container"
    assert not manifest.diagnostics
    assert not (tmp_path / "home" / "host.core").exists()


@on_linux
def test_a_live_audit_that_is_refused_the_memory_sends_its_reader_to_the_host(ptaudit, monkeypatch) -> None:
    why = "/proc/kcore is masked, as in a container"
    monkeypatch.setattr(on_this_host, "read_running", lambda _: why)
    monkeypatch.setattr(on_this_host, "collect", lambda arguments: only_texts(Path(arguments[-1])))
    done = ptaudit("audit", "--live")
    assert done.status == 0
    assert f"ptaudit: {why}: only text sources are audited\n" in done.err
    assert f"{why}: run ptaudit audit --live, or ptaudit collect, as root on the host itself." in done.out


@on_linux
def test_a_redacted_bundle_has_no_core(ptaudit, monkeypatch, kcore: Path, tmp_path: Path) -> None:
    """Pages are kept whole, and the host's name may lie in one."""
    monkeypatch.setattr(on_this_host, "KCORE", kcore)
    monkeypatch.setattr(on_this_host, "kcore_refusal", lambda: None)
    monkeypatch.setattr(on_this_host, "collect", lambda arguments: only_texts(Path(arguments[-1])))
    done = ptaudit("collect", "-r", "-o", f"{tmp_path}/home/")
    assert "cannot be redacted: the bundle has no host.core" in done.err
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["manifest", "uname"]


@on_linux
def test_other_work_goes_first(monkeypatch) -> None:
    """Once only, however often it is asked for, and without ionice too."""
    niceness, commands = [3], []

    def nice(more: int) -> int:
        niceness[0] += more
        return niceness[0]

    monkeypatch.setattr(on_this_host.os, "nice", nice)
    monkeypatch.setattr(on_this_host.subprocess, "run", lambda command, **_: commands.append(command))
    monkeypatch.setattr(on_this_host.shutil, "which", lambda _: "/usr/bin/ionice")
    on_this_host._give_way()
    on_this_host._give_way()
    assert niceness == [10]
    assert commands == [["/usr/bin/ionice", "-c", "3", "-p", str(os.getpid())]] * 2
    monkeypatch.setattr(on_this_host.shutil, "which", lambda _: None)
    on_this_host._give_way()
    assert len(commands) == 2


def test_a_core_in_an_archive_that_is_damaged_does_not_hide_the_texts(ptaudit, tmp_path: Path) -> None:
    home = tmp_path / "home"
    only_texts(home)
    (home / "host.core").write_bytes(b"\x7fELF" + bytes(100))
    with tarfile.open(tmp_path / "bundle.tar.gz", "w:gz") as archive:
        archive.add(home / "uname", "uname")
        archive.add(home / "host.core", "host.core")
    document = json.loads(ptaudit("audit", tmp_path / "bundle.tar.gz", "--format", "json").out)
    assert any(one["kind"] == "vmcore" and one["diagnostics"] for one in document["sources"])
    assert document["kernel"]["release"]
