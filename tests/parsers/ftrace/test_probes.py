"""The printed set-up places probes that the readers understand, on every kernel."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from parsers import ftrace
from parsers.ftrace.events import Phase
from parsers.ftrace.functions import FUNCTIONS, Kind
from parsers.ftrace.naming import kind_of
from parsers.ftrace.probes import probe_script, probes

RELEASES = [(5, 10), (6, 1), (6, 12), (6, 18), (7, 3), None]
DEFINITION = re.compile(r"^([prf]):mhp/(mhp_\w+) ([\w.]+)(%return)?((?: \w+=\S+)*)$")


def definitions(release, **options) -> list[re.Match]:
    found = [DEFINITION.match(text) for probe in probes(release, **options) for text in probe.definitions]
    assert all(found)
    return found


@pytest.mark.parametrize("release", RELEASES)
def test_readers_know_every_event_that_is_placed(release):
    for match in definitions(release):
        kind, is_return = kind_of(match[2])
        assert kind is not Kind.OTHER
        assert is_return == (match[1] == "r" or bool(match[4]))
        assert len(match[0]) < 4096


@pytest.mark.parametrize("release", RELEASES)
def test_what_a_probe_records_reads_back_into_the_columns_it_was_made_for(release):
    for match in definitions(release):
        arguments = re.findall(r"(\w+)=(\S+)", match[5])
        values = [f"{name}=0x{number + 1:x}" for number, (name, what) in enumerate(arguments) if ":string" not in what]
        where = f"(caller+0x4/0x8 <- {match[3]})" if kind_of(match[2])[1] else f"({match[3]}+0x0/0x8)"
        trace = ftrace.read(
            f"              sh-58      [000] d....     1.000000: {match[2]}: {where} {' '.join(values)}\n".encode()
        )
        assert {trace.events.arguments.columns[i] for i in trace.events.arguments.column} == {
            name for name, what in arguments if ":string" not in what
        }


def lines_of(release, event: str, **options) -> list[str]:
    return [text for probe in probes(release, **options) if probe.event == event for text in probe.definitions]


def test_signatures_follow_the_release():
    assert lines_of((5, 10), "mhp_arch_rem") == [
        "p:mhp/mhp_arch_rem arch_remove_memory nid=%x0:s32 start=%x1:x64 size=%x2:x64 altmap=%x3:x64"
    ]
    assert lines_of((6, 1), "mhp_arch_rem") == [
        "p:mhp/mhp_arch_rem arch_remove_memory start=%x0:x64 size=%x1:x64 altmap=%x2:x64"
    ]
    assert "start_pfn=%x1:x64" in lines_of((6, 1), "mhp_sec_rem")[0]
    assert "start_pfn=%x0:x64" in lines_of((6, 12), "mhp_sec_rem")[0]
    assert "online_type=%x2:s32" in lines_of((5, 10), "mhp_online")[0]


def test_meminit_functions_are_not_probed_before_they_can_be():
    assert not lines_of((6, 1), "mhp_vmm_pop")
    assert not lines_of((6, 10), "mhp_sec_add")
    assert lines_of((6, 12), "mhp_vmm_pop")
    assert "at_least 6 11 && add mhp_vmm_pop " in probe_script()
    assert "vmemmap_populate: __meminit" in probe_script((6, 1))


def test_btf_only_where_the_kernel_has_it_and_never_alone():
    assert not [text for text in definitions((6, 1)) if "->" in text[0]]
    assert not [text for text in definitions((6, 12), btf=False) if "->" in text[0]]
    with_btf = [probe for probe in probes((6, 12)) if any("->" in text for text in probe.definitions)]
    assert with_btf
    assert all("->" not in probe.definitions[-1] for probe in with_btf)


def test_fprobes_only_from_the_release_that_has_them_and_with_a_fallback():
    assert not [match for match in definitions((6, 12)) if match[1] == "f"]
    for probe in probes((6, 18)):
        assert probe.definitions[0].startswith("f:")
        assert not probe.definitions[-1].startswith("f:")
    assert "size=$arg3:x64 altmap=+0($arg4):x64" in lines_of((6, 18), "mhp_arch_add")[0]


def test_only_symbols_of_the_kernel_are_probed():
    symbols = {"arch_add_memory", "section_deactivate.isra.0", "create_kpti_ng_temp_pgd"}
    found = {name for probe in probes((6, 12), symbols) for name in probe.symbols}
    assert found == {"arch_add_memory", "create_kpti_ng_temp_pgd"}
    assert "section_deactivate: not in this kernel, or under a mangled name only" in probe_script((6, 12), symbols)


def test_every_generation_of_a_function_is_guarded_in_the_script_for_any_kernel():
    guards = re.findall(r"^  (.*?)add mhp_arch_rem '", probe_script(), re.MULTILINE)
    assert guards == ["at_least 5 7 && ! at_least 5 15 && ", "at_least 5 15 && "]


@pytest.mark.parametrize("release", RELEASES)
def test_the_script_is_posix_shell(release, tmp_path):
    path = tmp_path / "probes.sh"
    path.write_text(probe_script(release, noisy=True, buffer_kb=4096))
    shell = shutil.which("dash") or "sh"
    assert subprocess.run([shell, "-n", str(path)], check=False).returncode == 0
    assert "echo 4096 >" in path.read_text()


@pytest.mark.parametrize(
    ("release", "expected"), [("5.10.0-28-arm64", "5 10"), ("6.1.192", "6 1"), ("6.12-rc1", "6 12"), ("7.0", "7 0")]
)
def test_the_script_asks_the_kernel_for_its_release(release, expected, tmp_path):
    function = re.search(r"^at_least\(\) \{.*?^\}", probe_script(), re.MULTILINE | re.DOTALL)[0]
    major, minor = map(int, expected.split())
    checks = f"uname() {{ echo {release}; }}\n{function}\nat_least {expected} || exit 1\n"
    checks += (
        f"at_least {major} {minor + 1} && exit 2\nat_least {major + 1} 0 && exit 3\nat_least {major - 1} 99 || exit 4\n"
    )
    assert subprocess.run(["sh", "-c", checks], check=False).returncode == 0


def test_a_function_is_described_once():
    events = [function.event for function in FUNCTIONS]
    assert len(set(events)) == len(events)
    names = [name for function in FUNCTIONS for name in (function.event, *function.aliases, *function.names)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "memory", "pages", "populates"),
    [
        ("probes-5.10-4k.trace.xz", 1 << 30, 0x40000, False),
        ("probes-6.1-4k.trace.xz", 512 << 20, 0x20000, False),
        ("probes-6.12-64k-va48.trace.xz", 1 << 30, 0x4000, True),
    ],
)
def test_the_script_at_work(trace, name, memory, pages, populates):
    found = trace(name)
    events = found.events
    start, size = events.column("start")[0], events.column("size")[0]
    for kind in (Kind.ARCH_ADD_MEMORY, Kind.ARCH_REMOVE_MEMORY, Kind.REMOVE_MEMORY_BLOCK_DEVICES):
        (row,) = events.where(kind, Phase.ENTRY)
        assert (int(start[row]), int(size[row])) == (0x80000000, memory), kind
    for kind in (Kind.ADD_PAGES, Kind.REMOVE_PAGES, Kind.SPARSE_REMOVE_SECTION, Kind.OFFLINE_PAGES, Kind.ONLINE_PAGES):
        assert int(events.column("nr_pages")[0][events.where(kind, Phase.ENTRY)].sum()) == pages, kind
    for kind in (Kind.ONLINE_PAGES, Kind.OFFLINE_PAGES, Kind.ARCH_ADD_MEMORY):
        rows = events.where(kind, Phase.RETURN)
        assert events.signed("ret")[1][rows].all()
        assert not events.signed("ret")[0][rows].any()
    # Struct pages of 64 bytes each: either the populate is seen, or the pages that back them.
    if populates:
        rows = events.where(Kind.VMEMMAP_POPULATE, Phase.ENTRY)
        assert int((events.column("end")[0][rows] - start[rows]).sum()) == pages * 64
    else:
        rows = events.where(Kind.MM_PAGE_ALLOC)
        assert int((4096 << events.column("order")[0][rows]).sum()) == pages * 64
    stacked = (events.stack >= 0) | (events.phase == Phase.POINT)
    assert stacked.all()
    assert {issue.code for issue in found.health} <= {"missing-probe"}
    absent = {kind for issue in found.health for kind in issue.kinds}
    assert absent == (set() if populates else {Kind.SPARSE_ADD_SECTION, Kind.VMEMMAP_POPULATE})


# --- on a host: a folder stands for tracefs ---


def tracefs(folder, *, refuses=False):
    """What the script touches of tracefs, as plain files."""
    for name in ("events/mhp", "options", "instances"):
        (folder / name).mkdir(parents=True)
    for name, text in (
        ("dynamic_events", ""), ("tracing_on", "1\n"), ("buffer_size_kb", ""), ("options/stacktrace", "0\n"),
        ("trace", "# tracer: nop\n"), ("trace_marker", ""), ("kprobe_profile", ""),
    ):  # fmt: skip
        (folder / name).write_text(text)
    if not refuses:
        (folder / "events/mhp/enable").write_text("0\n")
    (folder / "instances").chmod(0o500)
    (folder / "instances").rmdir()  # no instances: the script falls back to the top buffer
    return folder


def at_work(folder, *arguments, script=None):
    path = folder.parent / "probes.sh"
    path.write_text((script or probe_script((6, 12))).replace("/sys/kernel/tracing", str(folder)))
    return subprocess.run(
        ["sh", str(path), *map(str, arguments)], cwd=folder.parent, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip


def test_a_start_that_fails_leaves_nothing_behind(tmp_path):
    fs = tracefs(tmp_path / "fs", refuses=True)
    (fs / "events/mhp").rmdir()  # then enabling the group fails
    done = at_work(fs, "start", tmp_path / "out")
    assert done.returncode == 1
    assert "no probe was taken" in done.stderr
    assert (fs / "tracing_on").read_text() == "1\n"
    assert (fs / "options/stacktrace").read_text() == "0\n"
    assert not (tmp_path / "out/deadline").exists()
    removed = [line for line in (fs / "dynamic_events").read_text().splitlines() if line.startswith("-:")]
    defined = [line for line in (fs / "dynamic_events").read_text().splitlines() if line.startswith(("p:", "r:"))]
    assert not defined or removed


def test_what_it_writes_is_for_its_user_only(tmp_path):
    fs = tracefs(tmp_path / "fs")
    assert at_work(fs, "start", tmp_path / "out").returncode == 0
    assert (tmp_path / "out").stat().st_mode & 0o077 == 0
    assert at_work(fs, "stop", tmp_path / "out").returncode == 0
    assert (tmp_path / "out/after/trace").stat().st_mode & 0o077 == 0
    assert not (tmp_path / "out/deadline").exists()


def test_it_stops_by_itself(tmp_path):
    fs = tracefs(tmp_path / "fs")
    assert at_work(fs, "start", tmp_path / "out", 1).returncode == 0
    end = time.monotonic() + 30
    while not (tmp_path / "out/after/memory_blocks").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert (tmp_path / "out/after/trace").exists()
    assert (fs / "tracing_on").read_text() == "0\n"


def test_a_stop_ends_what_waits_for_the_deadline(tmp_path):
    fs = tracefs(tmp_path / "fs")
    at_work(fs, "start", tmp_path / "out", 3600)
    pid = int((tmp_path / "out/deadline").read_text())
    assert at_work(fs, "stop", tmp_path / "out").returncode == 0
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("shell", [["sh"], ["bash", "--posix"], ["busybox", "sh"]], ids=lambda shell: shell[0])
def test_a_start_that_is_ended_leaves_nothing_behind(tmp_path, shell, number):
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    fs = tracefs(tmp_path / "fs")
    slow = probe_script((6, 12)).replace("  began=1\n", "  began=1\n  : > here\n  sleep 3\n")
    (tmp_path / "probes.sh").write_text(slow.replace("/sys/kernel/tracing", str(fs)))
    process = subprocess.Popen(
        [*shell, str(tmp_path / "probes.sh"), "start", str(tmp_path / "out")], cwd=tmp_path, start_new_session=True
    )
    end = time.monotonic() + 30
    while not (tmp_path / "here").exists() and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as a terminal does, for what the shell runs; sleep may not have begun
    assert process.wait(20) == 128 + number
    assert (fs / "tracing_on").read_text() == "1\n"
    assert (fs / "options/stacktrace").read_text() == "0\n"
    assert not (tmp_path / "out/deadline").exists()


def test_a_link_is_not_followed(tmp_path):
    fs = tracefs(tmp_path / "fs")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    done = at_work(fs, "start", tmp_path / "out")
    assert done.returncode == 1
    assert "is a link" in done.stderr
    assert not list((tmp_path / "elsewhere").iterdir())
