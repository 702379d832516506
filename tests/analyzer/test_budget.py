"""One budget for everything that is given to one audit: what does not fit is named, and the rest is audited."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import shutil
import sys
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from analyzer.sources import budget, reading
from analyzer.sources.budget import Bounds, Budget, size_in_memory
from analyzer.sources.read import Request, Sources, read_sources
from parsers import ftrace
from parsers.errors import BudgetError, FormatError, InputError
from parsers.ftrace import scan, table
from tests.analyzer.conftest import CAPTURES

FIXTURES = Path(__file__).parents[2] / "fixtures"
CAPTURE = CAPTURES / "pmem-6.12-vuln/02-one-removed"
CORE = FIXTURES / "vmcore/pmem-6.12-vuln-after.core.zst"
LOG = (CAPTURE / "dmesg").read_bytes()
RAISE = "--budget 2 allows twice as much"
EVENT = b"  sh-58 [001] d.... %d.5: mhp_online: (online_pages+0x0/0x368) pfn=0x80000 nr=0x8000\n"


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch):
    """Sets the bounds of every audit."""

    def set_to(**amounts: float) -> None:
        monkeypatch.setattr(reading, "Bounds", lambda: Bounds(**amounts))

    return set_to


def noise(size: int) -> bytes:
    """Lines of a kernel log that say nothing."""
    line = b"[  100.000000] audit: backlog limit exceeded, nothing to see here at all\n"
    return line * (size // len(line))


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def left(read: Sources) -> dict[str, str]:
    return {path: reason for path, reason in read.unread if "--budget" in reason}


def kinds(read: Sources) -> set[str]:
    return {one.kind for one in read.sources}


@pytest.fixture
def evidence(tmp_path: Path) -> dict[str, Path]:
    """A capture, a log, a trace and an archive of logs; the logs are larger than the budget of the test."""
    shutil.copytree(CAPTURE, tmp_path / "host")
    (tmp_path / "host/messages.1").write_bytes(LOG + noise(3 << 20))
    (tmp_path / "kern.log").write_bytes(LOG + noise(3 << 20))
    (tmp_path / "trace").write_bytes(b"# tracer: nop\n#\n" + b"".join(EVENT % number for number in range(8000)))
    (tmp_path / "logs.tar.gz").write_bytes(
        gzip.compress(tar_of({f"messages.{number}": LOG + noise(900_000 + number) for number in range(4)}))
    )
    return {path.name: path for path in tmp_path.iterdir()}


def test_what_does_not_fit_is_named_and_the_rest_is_read(bounds, evidence: dict[str, Path]) -> None:
    bounds(kept_bytes=2 << 20)
    read = read_sources(Request(tuple(evidence[name] for name in ("host", "kern.log", "logs.tar.gz", "trace"))))
    host = evidence["host"]
    assert left(read) == {
        f"{host}/messages.1": f"larger than the 2 MiB that one audit holds: {RAISE}",
        str(evidence["kern.log"]): f"larger than the 2 MiB that one audit holds: {RAISE}",
        f"{evidence['logs.tar.gz']}:messages.2": f"does not fit into the 2 MiB that one audit holds: {RAISE}",
        f"{evidence['logs.tar.gz']}:messages.3": f"does not fit into the 2 MiB that one audit holds: {RAISE}",
        str(evidence["trace"]): f"does not fit into the 2 MiB that one audit holds: {RAISE}",
    }
    assert {"ptdump", "iomem", "dmesg", "zoneinfo"} <= kinds(read)


def test_twice_as_much_is_read_on_demand(bounds, evidence: dict[str, Path]) -> None:
    bounds(kept_bytes=2 << 20)
    with pytest.raises(InputError, match=RAISE) as caught:
        read_sources(Request((evidence["kern.log"],)))
    assert caught.value.path == str(evidence["kern.log"])
    read = read_sources(Request((evidence["kern.log"],), budget=2))
    assert not left(read)
    assert kinds(read) == {"dmesg"}
    evidence["kern.log"].write_bytes(noise(5 << 20))
    with pytest.raises(InputError, match=r"the 4 MiB .* --budget 4"):
        read_sources(Request((evidence["kern.log"],), budget=2))


def test_crash_dumps_draw_on_the_same_budget(bounds) -> None:
    used = size_in_memory(read_sources(Request((CORE,))).captured.vmcore)
    assert used > 10_000
    bounds(kept_bytes=used - 1 + sum(path.stat().st_size for path in CAPTURE.iterdir()))
    assert not left(read_sources(Request((CORE,))))
    bounds(kept_bytes=used - 1)
    read = read_sources(Request((CAPTURE / "iomem", CORE)))
    assert list(left(read)) == [str(CORE)]
    assert kinds(read) == {"iomem"}


def test_memory_does_not_grow_with_the_archive(bounds, tmp_path: Path) -> None:
    bounds(kept_bytes=4 << 20)
    path = tmp_path / "logs.tar.gz"
    path.write_bytes(gzip.compress(tar_of({f"messages.{number}": LOG + noise(1 << 20) for number in range(40)})))
    read_sources(Request((CAPTURE,)))  # imports what it needs
    tracemalloc.start()
    read = read_sources(Request((CAPTURE, path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(left(read)) >= 36
    assert peak < 24 << 20


def test_time_is_part_of_it(bounds) -> None:
    bounds(seconds=-1.0)
    with pytest.raises(InputError, match=f"the time for one audit: {RAISE}"):
        read_sources(Request((CAPTURE,)))


class Clock:
    """A second passes each time that someone looks."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


def zip_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


LARGE = LOG + noise(24 << 20)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("trace", lambda: b"# tracer: nop\n#\n" + b"".join(EVENT % number for number in range(250_000))),
        ("kernel_page_tables", lambda: (CAPTURE / "kernel_page_tables").read_bytes() * 4000),
        ("kern.log.xz", lambda: lzma.compress(LARGE, preset=0)),
        ("logs.tar.gz", lambda: gzip.compress(tar_of({"one": LARGE}), 1)),
        ("logs.zip", lambda: zip_of({"one": LARGE})),
    ],
)
def test_time_ends_in_the_middle_of_a_file(
    bounds, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, content: Callable[[], bytes]
) -> None:
    monkeypatch.setattr(budget, "time", Clock())
    monkeypatch.setattr(scan, "BLOCK_SIZE", 1 << 20)
    bounds(seconds=8.0)  # looked at once a file, this is not over
    (tmp_path / name).write_bytes(content())
    with pytest.raises(BudgetError, match="not read after 8 s"):
        read_sources(Request((tmp_path / name,)))


def test_a_hole_of_a_terabyte_is_neither_read_nor_hashed(tmp_path: Path) -> None:
    shutil.copytree(CAPTURE, tmp_path / "host")
    for name in ("zoneinfo", "trace", "kern.log", "memory8"):
        (tmp_path / "host" / name).unlink(missing_ok=True)
        os.truncate(os.open(tmp_path / "host" / name, os.O_CREAT | os.O_WRONLY), 1 << 40)
    read = read_sources(Request((tmp_path / "host",)))
    assert {Path(path).name for path in left(read)} == {"zoneinfo", "trace", "kern.log"}
    assert "iomem" in kinds(read)


def test_standard_input_is_bounded(bounds, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds(kept_bytes=1 << 20)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(noise(1 << 22))))
    with pytest.raises(InputError, match=RAISE):
        read_sources(Request((Path("-"),)))


def test_a_budget_that_is_refused_is_not_spent() -> None:
    budget = Budget(Bounds(kept_bytes=100))
    with pytest.raises(BudgetError):
        budget.keep(101, "large")
    budget.keep(100, "small")


def test_bad_archives_in_an_archive_are_left_out(tmp_path: Path) -> None:
    files = {f"host/{path.name}": path.read_bytes() for path in CAPTURE.iterdir()}
    cut = gzip.compress(tar_of({"host/dmesg": LOG}))[:400]
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("iomem", bytes(80 << 20))
        made.writestr("uname", b"Linux h 6.12.117 #2 SMP aarch64 GNU/Linux\n")
    for name, data in (("a.tar.gz", cut), ("b.zip", bomb.getvalue())):
        path = tmp_path / f"{name}.tar"
        path.write_bytes(tar_of({name: data, **files}))
        read = read_sources(Request((path,)))
        assert {"ptdump", "iomem", "dmesg"} <= kinds(read)
        (reason,) = (reason for where, reason in read.unread if name in where and "superseded" not in reason)
        assert "cut short" in reason or "bomb" in reason


@pytest.mark.parametrize("name", ["dmesg", "kern.log", "letter.txt"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("named", [True, False])
def test_a_log_that_is_too_long_to_be_searched_is_read_or_named(
    bounds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, pack, named: bool
) -> None:
    for module in ("parsers.transport", "parsers.parts", "analyzer.sources.recognise"):
        monkeypatch.setattr(f"{module}.MAX_BYTES", 1 << 20)
    bounds(look_bytes=1 << 19)
    shutil.copytree(CAPTURES / "dimm-6.12/02-dimm-online", tmp_path / "host")
    (tmp_path / "host/dmesg").unlink()
    path = tmp_path / "host" / (name + (".gz" if pack is gzip.compress else ""))
    log = (CAPTURES / "dimm-6.12/02-dimm-online/dmesg").read_bytes()
    path.write_bytes(pack(log + noise(2 << 20)))
    read = read_sources(Request((path,) if named else (tmp_path / "host",)))
    used = [one for one in read.sources if one.kind == "dmesg"]
    if used:
        assert len(read.captured.dmesg.boot.messages) > 10
    else:
        reasons = [reason for where, reason in read.unread if where.startswith(str(path))]
        assert reasons == ["its name is not known, and it is larger than 0 MiB: name its kind"]
        assert name == "letter.txt"
        assert not named


def test_a_trace_of_too_many_events_is_refused_before_they_take_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MAX_ROWS", 1000)
    whole = b"# tracer: nop\n#\n" + b"".join(EVENT % number for number in range(1000))
    assert len(ftrace.read(whole, path="trace")) == 1000
    with pytest.raises(FormatError, match=r"^trace: more than 1000 events of memory hotplug"):
        ftrace.read(whole + EVENT % 1000, path="trace")


def test_a_log_of_too_many_events_is_read_without_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(table, "MAX_ROWS", 10)
    path = tmp_path / "kern.log"
    path.write_bytes(LOG + b"[  300.000000] Offlined Pages 32768\n" * 20)
    read = read_sources(Request((path,)))
    assert kinds(read) == {"dmesg"}
    assert "events of hotplug in the log: more than 10" in read.unread[0].reason


def test_the_command_says_what_to_do(ptaudit, bounds, evidence: dict[str, Path]) -> None:
    bounds(kept_bytes=2 << 20)
    assert RAISE in ptaudit("audit", evidence["kern.log"]).err
    assert ptaudit("audit", evidence["kern.log"], "--budget", 2, "--fail-on", "critical").status == 0
    assert ptaudit("audit", evidence["kern.log"], "--budget", 0).status == 2
    done = ptaudit("diff", evidence["host"], evidence["host"], "--budget", 4)
    assert done.status == 0
