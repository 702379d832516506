"""The verdict: damage and risk win, and a host is clean only if the rules could look."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.audit_command import FORMATS
from analyzer.sources.read import Request
from analyzer.verdict import State
from tests.analyzer.conftest import CAPTURES

FIXTURES = CAPTURES.parent
VMCORES = FIXTURES / "vmcore"


def overall(*paths: Path):
    return audit(Request(paths)).overall


@pytest.fixture
def without(tmp_path: Path) -> Callable[..., Path]:
    """A copy of a capture without some of its files."""

    def copy(capture: Path, *names: str) -> Path:
        folder = tmp_path / "capture"
        shutil.copytree(capture, folder)
        for name in names:
            (folder / name).unlink()
        return folder

    return copy


@pytest.mark.parametrize(
    ("source", "state"),
    [
        ("captures/pmem-6.12-vuln/00-boot", State.CLEAN),
        ("captures/pmem-6.12-vuln/01-three-namespaces", State.AT_RISK),
        ("captures/pmem-6.12-vuln/02-one-removed", State.DAMAGED),
        ("captures/pmem-6.12-fixed/02-one-removed", State.CLEAN),
        ("captures/fallback-6.12-4k/02-dimm-online", State.CLEAN),
        ("vmcore/pmem-6.12-vuln-after.core.zst", State.DAMAGED),
        ("vmcore/pmem-6.12-vuln-before.core.zst", State.AT_RISK),
        ("vmcore/dimm-6.12-memmap-on-memory-online.core.zst", State.CLEAN),
        ("captures/pmem-6.12-vuln/02-one-removed/trace", State.DAMAGED),
        ("captures/pmem-6.12-vuln/00-boot/iomem", State.BLIND),
        ("captures/pmem-6.12-vuln/00-boot/kernel_page_tables", State.BLIND),
        ("captures/dimm-6.12/02-dimm-online/trace", State.BLIND),
        ("captures/dimm-6.12/02-dimm-online/dmesg", State.BLIND),
        ("oops/pmem-6.12-vuln-mailed.txt", State.DAMAGED),
    ],
)
def test_the_state_of_what_was_captured(source: str, state: State) -> None:
    assert overall(FIXTURES / source).state is state


def test_a_clean_host_without_its_page_tables_is_blind(without) -> None:
    found = overall(without(CAPTURES / "dimm-6.12/02-dimm-online", "kernel_page_tables"))
    assert found.state is State.BLIND
    assert found.missing[0] == "page tables"
    assert f"{found.undecided} of {found.of} rules" in found.text
    assert found.undecided > found.of / 2


def test_a_damaged_host_without_its_page_tables_is_not_clean(without, damaged: Path) -> None:
    assert overall(without(damaged, "kernel_page_tables", "trace", "dmesg")).state is State.BLIND


def test_a_host_without_a_list_of_its_memory_is_blind(without, sound: Path) -> None:
    found = overall(without(sound, "iomem", "memory_blocks"))
    assert (found.state, found.missing[0]) == (State.BLIND, "/proc/iomem")


def test_iomem_that_was_read_without_root_makes_blind_and_says_so(without, sound: Path) -> None:
    folder = without(sound, "memory_blocks")
    zeros = [f"00000000-00000000{line[line.index(' :') :]}" for line in (folder / "iomem").read_text().splitlines()]
    (folder / "iomem").write_text("\n".join(zeros) + "\n")
    found = overall(folder)
    assert found.state is State.BLIND
    assert "without privilege" in found.text


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("CONFIG_PTDUMP_DEBUGFS=y", "cat /sys/kernel/debug/kernel_page_tables"),
        ("# CONFIG_PTDUMP_DEBUGFS is not set\nCONFIG_PROC_KCORE=y", "/proc/kcore"),
        ("# CONFIG_PTDUMP_DEBUGFS is not set\n# CONFIG_PROC_KCORE is not set", "take a crash dump"),
    ],
)
def test_the_missing_tables_are_asked_for_as_this_kernel_gives_them(without, sound: Path, option, said) -> None:
    folder = without(sound, "kernel_page_tables")
    lines = (folder / "config").read_text().splitlines()
    kept = [line for line in lines if "PTDUMP_DEBUGFS" not in line and "PROC_KCORE" not in line]
    kept[3:3] = option.splitlines()
    (folder / "config").write_text("\n".join(kept) + "\n")
    text = overall(folder).text
    assert said in text
    assert ("cat /sys/kernel/debug" in text) == option.startswith("CONFIG_PTDUMP_DEBUGFS=y")


def test_lockdown_closes_kcore(without, sound: Path) -> None:
    folder = without(sound, "kernel_page_tables")
    config = (folder / "config").read_text().replace("CONFIG_PTDUMP_DEBUGFS=y", "# CONFIG_PTDUMP_DEBUGFS is not set")
    (folder / "config").write_text(config)
    (folder / "cmdline").write_text("console=ttyAMA0 lockdown=confidentiality\n")
    text = overall(folder).text
    assert "lockdown" in text
    assert "ptaudit audit --live" not in text


@pytest.mark.parametrize("dump", sorted(VMCORES.glob("*.core.zst")), ids=lambda path: path.name)
def test_who_audits_a_crash_dump_is_not_asked_for_one(ptaudit, dump: Path) -> None:
    out = " ".join(ptaudit("audit", dump, "--verbose").out.split()).lower()
    assert "take a crash dump" not in out
    assert "cat /sys/kernel/debug/kernel_page_tables >" not in out


def test_a_baseline_accepts_risk_away(ptaudit, tmp_path: Path) -> None:
    source = CAPTURES / "pmem-6.12-vuln/01-three-namespaces"
    ptaudit("audit", source, "--write-baseline", tmp_path / "known.toml")
    assert ptaudit("audit", source, "--baseline", tmp_path / "known.toml").out.startswith("clean: ")


def test_a_host_at_which_no_severe_rule_looked_is_not_clean(ptaudit, sound: Path) -> None:
    assert ptaudit("audit", sound, "--select", "ENV-01").out.startswith("blind: no rule of severity high or above was")
    assert ptaudit("audit", sound, "--select", "VMM-02,ENV-01").out.startswith("clean: ")
    assert ptaudit("audit", sound, "--select", "VMM", "--ignore", "VMM").status == 2


def test_min_severity_does_not_change_the_verdict(ptaudit) -> None:
    source = CAPTURES / "pmem-6.12-vuln/01-three-namespaces"
    assert ptaudit("audit", source, "--min-severity", "critical").out.startswith("at risk: ")


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_has_it_at_its_beginning(ptaudit, damaged: Path, form: str) -> None:
    out = ptaudit("audit", damaged, "--format", form).out
    head = out if form in {"html", "sarif"} else "\n".join(out.splitlines()[:6])
    assert "damaged" in head
    assert "VMM-02" in head


def test_json_says_how_many_could_not_look(ptaudit, sound: Path) -> None:
    verdict = json.loads(ptaudit("audit", sound, "--format", "json").out)["verdict"]
    assert verdict["state"] == "clean"
    assert 0 < verdict["undecided"] < verdict["of"]
    assert verdict["text"].startswith("clean: ")


WIFI = """[   55.008324] Unable to handle kernel NULL pointer dereference at virtual address 0000000000000400
[   55.008377]   ESR = 0x0000000096000006
[   55.008481] user pgtable: 4k pages, 48-bit VAs, pgdp=00000001046c6000
[   55.008525] Internal error: Oops: 0000000096000006 [#1] PREEMPT SMP
[   55.008799] CPU: 2 PID: 166 Comm: mt76-usb-rx phy Tainted: G         C         6.6.47-openwrt #1
[   55.008855] pc : mt792x_rx_get_wcid+0x48/0x140 [mt792x_lib]
[   55.008856] ---[ end trace 0000000000000000 ]---
"""


def test_unrelated_crash_is_reported_in_one_line_and_asks_for_nothing(ptaudit, tmp_path) -> None:
    (tmp_path / "dmesg").write_text(WIFI)
    text = ptaudit("audit", tmp_path / "dmesg").out
    first, *rest = text.splitlines()
    assert first == (
        "blind: memory has nothing to do with the NULL pointer dereference (level 2 translation fault on a read) in "
        "mt792x_rx_get_wcid() [mt792x_lib] of line 1"
    )
    for words in ("ask for", "collect", "undecided:"):
        assert not any(words in line for line in rest)


def test_crash_that_memory_can_have_to_do_with_asks_still(ptaudit, tmp_path) -> None:
    (tmp_path / "dmesg").write_text(WIFI.replace("0000000000000400", "ffff000040000400").replace("user", "swapper"))
    assert "ask for the crash dump" in ptaudit("audit", tmp_path / "dmesg").out.splitlines()[0]
