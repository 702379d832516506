"""Archives audit like the directory that they were made of; hostile ones are refused with a word about the member."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from analyzer.audit import audit
from analyzer.reports.json import document
from analyzer.sources.archive import Limits, read_archive
from analyzer.sources.archive_format import archive_format, plain_name
from analyzer.sources.budget import Bounds, Budget
from analyzer.sources.read import Request
from parsers.errors import InputError, UsageError
from rules.engine import Outcome

FIXTURES = Path(__file__).parents[2] / "fixtures"
CAPTURE = FIXTURES / "captures/pmem-6.12-vuln/02-one-removed"
OOPS = (FIXTURES / "oops/pmem-6.12-vuln.txt").read_bytes()
UNAME = b"Linux h 6.12.117 #1 SMP aarch64 GNU/Linux\n"


def tar_of(files: dict[str, bytes | tarfile.TarInfo], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, data in files.items():
            if isinstance(data, tarfile.TarInfo):
                tar.addfile(data)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return out.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def capture(under: str = "case") -> dict[str, bytes]:
    return {f"{under}/{path.name}": path.read_bytes() for path in sorted(CAPTURE.iterdir()) if path.is_file()}


def findings(path: Path) -> list[tuple[object, ...]]:
    return [
        (one["rule"], one["fingerprint"], one["claim"], [line.get("line") for line in one["evidence"]])
        for one in document(audit(Request((path,))))["findings"]
    ]


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_tar_audits_like_the_directory(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "bundle.bin"
    path.write_bytes(COMPRESSIONS[compression](tar_of(capture())))
    assert findings(path) == findings(CAPTURE)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_dialect_of_tar(tmp_path: Path, form: int) -> None:
    path = tmp_path / "bundle.tar"
    path.write_bytes(tar_of(capture("a/" + "long" * 20 + "/case"), form))
    assert findings(path) == findings(CAPTURE)


def test_zip_audits_like_the_directory(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(zip_of(capture()))
    assert findings(path) == findings(CAPTURE)


def test_tar_in_a_zip_in_a_compressed_tar(tmp_path: Path) -> None:
    inner = zip_of({"customer.bin": gzip.compress(tar_of(capture()))})
    path = tmp_path / "case.dat"
    path.write_bytes(lzma.compress(tar_of({"from/mail.zip": inner})))
    report = document(audit(Request((path,))))
    assert findings(path) == findings(CAPTURE)
    source = next(one for one in report["sources"] if one["kind"] == "ptdump")
    assert source["path"] == f"{path}:from/mail.zip:customer.bin:case/kernel_page_tables"
    assert report["findings"][0]["evidence"][0]["source"] == source["path"]


def test_archive_in_a_directory(tmp_path: Path) -> None:
    (tmp_path / "attachment.bin").write_bytes(tar_of(capture()))
    (tmp_path / "notes.doc").write_bytes(b"see the attachment" * 100)
    assert findings(tmp_path) == findings(CAPTURE)


def test_compressed_files_in_a_directory(tmp_path: Path) -> None:
    for name, data in capture("").items():
        suffix, compress = (".gz", gzip.compress) if "iomem" in name else (".zst", COMPRESSIONS["zst"])
        (tmp_path / (name.strip("/") + suffix)).write_bytes(compress(data))
    assert findings(tmp_path) == findings(CAPTURE)


@pytest.mark.parametrize("compression", [name for name in COMPRESSIONS if name != "plain"])
def test_compressed_log_alone(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "anything"
    path.write_bytes(COMPRESSIONS[compression](OOPS))
    assert {rule for rule, *_ in findings(path)} >= {"OOP-01", "VMM-02"}


def test_files_with_unknown_names_are_recognised_by_content(tmp_path: Path) -> None:
    path = tmp_path / "mail.zip"
    path.write_bytes(zip_of({"screen.txt": OOPS, "letter.txt": b"please help"}))
    report = document(audit(Request((path,))))
    assert {one["rule"] for one in report["findings"]} >= {"OOP-01", "VMM-02"}
    assert f"{path}:letter.txt" in report["ignored"]


def test_sosreport_with_an_archive_inside(tmp_path: Path) -> None:
    blocks = {
        "sys/devices/system/memory/block_size_bytes": b"8000000\n",
        "sys/devices/system/memory/memory8/state": b"online\n",
        "sys/devices/system/memory/memory9/state": b"offline\n",
    }
    files = {
        "proc/iomem": (CAPTURE / "iomem").read_bytes(),
        "boot/config-6.12.117": (CAPTURE / "config").read_bytes(),
        "sos_commands/kernel/dmesg": (CAPTURE / "dmesg").read_bytes(),
        "sos_commands/kernel/uname_-a": UNAME,
        "sos_commands/memory/lsmem_-a": b"RANGE SIZE STATE\n",
        "proc/fs.tar": tar_of({"zoneinfo": (CAPTURE / "zoneinfo").read_bytes()}),
        "uname": special("sos/uname", tarfile.SYMTYPE, "sos_commands/kernel/uname_-a"),
        **blocks,
    }
    members = {f"sos/{name}": data for name, data in files.items()}
    path = tmp_path / "sosreport-h-2026.tar.xz"
    path.write_bytes(lzma.compress(tar_of(members)))
    report = document(audit(Request((path,))))
    kinds = {one["kind"]: one for one in report["sources"]}
    assert {"iomem", "config", "dmesg", "uname", "zoneinfo", "memory_blocks"} <= kinds.keys()
    assert kinds["zoneinfo"]["path"] == f"{path}:sos/proc/fs.tar:zoneinfo"
    assert kinds["memory_blocks"]["path"] == f"{path}:sys/devices/system/memory"
    assert [note["message"] for note in kinds["archive"]["diagnostics"]] == [
        f"{path}:sos/uname: no plain file, not followed"
    ]


def test_several_captures_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "all.tar.gz"
    path.write_bytes(gzip.compress(tar_of(capture("monday") | capture("tuesday"))))
    with pytest.raises(UsageError, match="several captures, name one: monday, tuesday"):
        audit(Request((path,)))


# What is hostile.


def refused(path: Path, data: bytes, message: str, budget: Budget | None = None, **limits: int) -> None:
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        read_archive(path, lambda name: name.endswith("iomem"), Limits(**limits), budget=budget)
    assert str(path) in caught.value.path


def left_out(path: Path, data: bytes) -> list[str]:
    path.write_bytes(data)
    contents = read_archive(path, lambda name: name.endswith(("iomem", "passwd")))
    assert [member.relative for member in contents.members] == ["iomem"]
    return [note.message for note in contents.notes]


@pytest.mark.parametrize(
    "entry",
    [
        {"../../etc/passwd": b"x"},
        {"/etc/passwd": b"x"},
        {"a/../../passwd": b"x"},
        {"l": special("passwd", tarfile.SYMTYPE, "/etc/passwd")},
        {"l": special("passwd", tarfile.LNKTYPE, "/etc/passwd")},
        {"d": special("passwd", tarfile.CHRTYPE)},
        {"d": special("passwd", tarfile.BLKTYPE)},
        {"f": special("passwd", tarfile.FIFOTYPE)},
    ],
    ids=["up", "absolute", "up later", "symlink", "hard link", "character device", "block device", "pipe"],
)
def test_members_that_lead_elsewhere_are_left_out_by_name(tmp_path: Path, entry: dict[str, object]) -> None:
    (note,) = left_out(tmp_path / "a.tar", tar_of({**entry, "iomem": b"y"}))  # type: ignore[dict-item]
    assert "passwd" in note
    assert "not read" in note or "not followed" in note


def test_names_of_a_zip_are_judged_alike(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("passwd")
    link.external_attr = 0o120777 << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("..\\..\\passwd", b"x")
        made.writestr(link, b"/etc/passwd")
        made.writestr("iomem", b"y")
    notes = left_out(tmp_path / "a.zip", out.getvalue())
    assert len(notes) == 2


def test_commands_for_the_terminal_in_a_name_are_taken_out(tmp_path: Path) -> None:
    (note,) = left_out(tmp_path / "a.tar", tar_of({"../\x1b[2Jpasswd": b"x", "iomem": b"y"}))
    assert "\x1b" not in note


def test_encrypted_zip_is_named(tmp_path: Path) -> None:
    data = bytearray(zip_of({"iomem": b"secret"}))
    central = data.index(b"PK\x01\x02")
    data[6] |= 1
    data[central + 8] |= 1
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    with pytest.raises(InputError, match="iomem: encrypted, not read"):
        audit(Request((path,)))


@pytest.mark.parametrize("compression", [name for name in COMPRESSIONS if name != "plain"])
def test_bomb_is_refused_before_it_goes_off(tmp_path: Path, compression: str) -> None:
    bomb = COMPRESSIONS[compression](tar_of({"iomem": bytes(48 << 20)}))
    path = tmp_path / "bomb"
    path.write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(InputError, match="perhaps a bomb") as caught:
        read_archive(path, lambda name: name.endswith("iomem"), Limits(ratio_from=4 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(path) in caught.value.path
    assert peak < 200 << 20


def test_bomb_in_a_zip_names_the_member(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zip_of({"deep/iomem": bytes(70 << 20)}))
    with pytest.raises(InputError, match="perhaps a bomb") as caught:
        read_archive(path, lambda name: name.endswith("iomem"))
    assert caught.value.path == f"{path}:deep/iomem"


def test_archive_that_holds_itself_is_refused(tmp_path: Path) -> None:
    data = tar_of({"iomem": b"x"})
    for _ in range(12):
        data = gzip.compress(tar_of({"again.bin": data}))
    refused(tmp_path / "a", data, "nested more than")


def test_too_many_members(tmp_path: Path) -> None:
    many = {f"f{number}": b"" for number in range(30)}
    refused(tmp_path / "a", tar_of(many), "more than 20 members, the last f20", members=20)
    refused(tmp_path / "b", zip_of(many), "more than 20 members", members=20)


def test_too_much_in_all(tmp_path: Path) -> None:
    files = {f"{number}/iomem": bytes([number]) * 100_000 for number in range(30)}
    (tmp_path / "a").write_bytes(tar_of(files))
    for bounds, reason in (
        (Bounds(kept_bytes=1 << 20), "does not fit into the 1 MiB that one audit holds: --budget 2 allows twice"),
        (Bounds(passed_bytes=1 << 20), "more than the 1 MiB that one audit goes through: --budget 2 allows twice"),
    ):
        contents = read_archive(tmp_path / "a", lambda name: name.endswith("iomem"), budget=Budget(bounds))
        assert 8 <= len(contents.members) <= 10
        (said,) = contents.left_out
        assert reason in said
    refused(tmp_path / "b", tar_of(files), "larger than the 0 MiB", Budget(Bounds(kept_bytes=1 << 10)))
    refused(tmp_path / "c", tar_of(files), "goes through", Budget(Bounds(passed_bytes=1 << 16)))


def test_member_that_is_too_large_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(tar_of({"0/iomem": bytes(5000), "1/iomem": b"y"}))
    contents = read_archive(path, lambda _: True, budget=Budget(Bounds(member_bytes=4096)))
    assert [member.relative for member in contents.members] == ["1/iomem"]
    assert "0/iomem: larger than" in contents.notes[0].message


def test_header_that_claims_gigabytes(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8 << 30
    refused(tmp_path / "a", info.tobuf(tarfile.GNU_FORMAT) + bytes(4096), "damaged")


def test_long_chain_of_headers(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 4
    link = info.tobuf(tarfile.GNU_FORMAT) + b"name".ljust(512, b"\0")
    refused(tmp_path / "a", link * 3000 + tar_of({"iomem": b"x"}), "damaged")


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_truncated_archive_is_refused(tmp_path: Path, compression: str, share: float) -> None:
    data = COMPRESSIONS[compression](tar_of(capture()).rstrip(b"\0"))
    refused(tmp_path / "a", data[: int(len(data) * share)], "cut short")


def test_truncated_zip_is_refused(tmp_path: Path) -> None:
    data = zip_of(capture())
    refused(tmp_path / "a.zip", data[: len(data) // 2], "damaged")


def test_truncated_between_members(tmp_path: Path) -> None:
    data = tar_of({"iomem": b"x" * 512})
    refused(tmp_path / "a.tar", data[:1024], "the end of the archive is missing")


def test_crash_dump_in_an_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of({"crash/vmcore": b"KDUMP   " + bytes(4096), "crash/vmcore-dmesg.txt": OOPS}))
    (tmp_path / "b.tar").write_bytes(tar_of({"crash/vmcore": b"KDUMP   " + bytes(4096)}))
    with pytest.raises(InputError, match="crash/vmcore: a crash dump: extract it and give it by itself"):
        audit(Request((tmp_path / "b.tar",)))
    report = document(audit(Request((path,))))
    assert "OOP-01" in {one["rule"] for one in report["findings"]}
    assert "crash/vmcore: a crash dump" in report["sources"][0]["diagnostics"][0]["message"]


def test_damage_never_ends_in_another_error(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for compress in (bytes, gzip.compress, zstandard.ZstdCompressor().compress):
        data = bytearray(compress(tar_of({"a/iomem": b"text" * 4000, "b.tar": tar_of({"iomem": b"x"})})))
        for at in range(0, len(data), max(len(data) // 97, 1)):
            broken = bytearray(data)
            broken[at] ^= 0x55
            path.write_bytes(broken)
            if archive_format(bytes(broken[:4096])):
                with contextlib.suppress(InputError):
                    read_archive(path, lambda name: name.endswith("iomem"))


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(tar_of(capture())))
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    assert findings(path) == findings(CAPTURE)
    assert [one.name for one in tmp_path.iterdir()] == ["a.tgz"]


def test_names_without_their_compression() -> None:
    names = ["a/dmesg.gz", "config-6.1.zst", "bundle.tgz", ".gz", "iomem"]
    assert [plain_name(name) for name in names] == ["a/dmesg", "config-6.1", "bundle.tar", ".gz", "iomem"]


def test_limits_are_wide_enough_for_a_bundle_of_ours() -> None:
    assert Bounds().member_bytes >= 256 << 20


# One machine, one boot.


def write(folder: Path, **files: bytes) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_two_boots_are_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "one", boot_id=b"5c0ef2d4-6a0e-4d0f-8d3a-0f3a4b5c6d7e\n", uname=UNAME)
    two = write(tmp_path / "two", boot_id=b"11111111-6a0e-4d0f-8d3a-0f3a4b5c6d7e\n", uname=UNAME)
    with pytest.raises(UsageError, match=r"boot id is 5c0e.* in .*one/boot_id and 1111.* in .*two/boot_id; .*diff"):
        audit(Request((one, two)))


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({"dmesg": b"[    0.000000] Linux version 6.1.90 (a@b) #1 SMP\n"}, "kernel release"),
        ({"config": b"CONFIG_ARM64=y\nCONFIG_ARM64_64K_PAGES=y\n", "dmesg": OOPS}, "page size"),
        ({"vmcoreinfo": b"OSRELEASE=6.6.1\nPAGESIZE=4096\n"}, "kernel release"),
    ],
)
def test_what_cannot_be_one_machine_is_refused(tmp_path: Path, files: dict[str, bytes], what: str) -> None:
    with pytest.raises(UsageError, match=f"two machines or two boots: the {what} is"):
        audit(Request((write(tmp_path / "one", uname=UNAME, **files),)))


NAMED = b"[    0.000000] Linux version 6.12.117 (a@b) #1 SMP\n[    4.100000] systemd[1]: Hostname set to <%s>.\n"


@pytest.mark.parametrize(
    ("uname", "log", "doubt"),
    [
        (b"web1", b"db2", True),
        (b"web1.example.com", b"Web1", False),
        (b"(none)", b"db2", False),
        (b"web1", b"localhost", False),
        (b"web1", b"dracut>.\n[    9.000000] systemd[1]: Hostname set to <web1", False),
    ],
)
def test_host_names_that_differ_are_a_doubt(tmp_path: Path, uname: bytes, log: bytes, doubt: bool) -> None:
    files = {"uname": UNAME.replace(b" h ", b" %s " % uname), "dmesg": NAMED % log}
    sources = document(audit(Request((write(tmp_path / "one", **files),))))["sources"]
    notes = {one["kind"]: [note for note in one["diagnostics"] if "two machines?" in str(note)] for one in sources}
    assert notes["uname"] == []
    assert len(notes["dmesg"]) == doubt
    if doubt:
        assert "The host is called web1 in" in str(notes["dmesg"])
        assert "db2 in" in str(notes["dmesg"])


def test_log_with_an_older_kernel_before_is_one_machine(tmp_path: Path) -> None:
    log = b"[    0.000000] Linux version 6.1.90 (a@b) #1 SMP\n[    0.000000] Linux version 6.12.117 (a@b) #1 SMP\n"
    report = audit(Request((write(tmp_path / "one", uname=UNAME, dmesg=log),)))
    assert json.dumps(document(report)["kernel"]["release"]) == '"6.12.117"'


def test_sources_of_one_machine_merge(tmp_path: Path) -> None:
    parts = [CAPTURE / name for name in ("kernel_page_tables", "iomem", "memory_blocks", "dmesg", "uname")]
    together = document(audit(Request(tuple(parts))))["findings"]
    assert {one["rule"] for one in together} >= {"VMM-02"}


@pytest.mark.parametrize("compression", sorted({*COMPRESSIONS} - {"plain"}))
@pytest.mark.parametrize("share", [0.6, 0.97])
@pytest.mark.parametrize("within", ["", "var/log/"])
def test_cut_log_is_read_as_far_as_it_can_be_decompressed(
    tmp_path: Path, compression: str, share: float, within: str
) -> None:
    head = OOPS + b"".join(b"[  300.%06d] eth0: queue %d\n" % (i, i * 7919 % 10007) for i in range(100_000))
    packed = COMPRESSIONS[compression](head)
    cut = packed[: int(len(packed) * share)]
    path = tmp_path / "kern.log"
    path.write_bytes(tar_of({f"{within}kern.log.{compression}": cut}) if within else cut)
    contents = read_archive(path, lambda name: name.endswith("kern.log"))
    (member,) = contents.members
    assert head.startswith(member.data)
    assert member.data[-1:] != b"\n", "the parser shall see that the end is missing"
    assert len(OOPS) < len(member.data) < len(head)
    assert any("cut short: read are the first" in note.message for note in contents.notes)
    report = audit(Request((path,)))
    assert "OOP-01" in {one.rule.code for one in report.findings}
    passed = {one.rule.code for one in report.verdicts if one.outcome is Outcome.PASSED}
    assert not passed & {"OOP-04", "OOP-24", "SEC-10"}, "what the log lacks may have said it"


def test_damage_in_the_middle_is_not_salvaged(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(OOPS * 50))
    packed[len(packed) // 2] ^= 0x55
    refused(tmp_path / "a", bytes(packed), "damaged")
