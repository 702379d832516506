"""Which evidence shows which damage; the page of the lab's boots, made from itself where captures are gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.lab import evidence, matrix
from fixtures.lab.evidence import DAMAGE, shown

PAGE = Path(__file__).parents[2] / "docs/lab-matrix.md"
NAMES = sorted(DAMAGE)


@pytest.fixture(scope="module")
def table():
    """{damage: {kind of evidence: what it shows}}."""
    return {
        name: {kind: shown(DAMAGE[name]["rules"], files) for kind, files in evidence.evidence(name) if files}
        for name in NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_no_evidence_of_a_damage_passes(table, name):
    assert not [kind for kind, cell in table[name].items() if "passed" in cell or "refused" in cell]


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_text_shows_it(table, name):
    rule, claim = table[name]["text bundle"].split(", ")
    assert rule in DAMAGE[name]["rules"]
    assert claim in {"probable", "proven"}


@pytest.mark.parametrize("name", [name for name in NAMES if "core" in DAMAGE[name]])
def test_the_small_core_shows_it(table, name):
    assert table[name]["small core"].split(", ")[0] in DAMAGE[name]["rules"]


def test_a_capture_without_the_damage_is_a_miss():
    boot = evidence.HERE.parent / "captures/pmem-6.12-vuln/00-boot"
    assert shown(["VMM-02", "VMM-01"], [boot]) == "**passed**"
    assert shown(["VMM-02"], [boot / "uname"]) in {"undecided", "not applicable"}


def test_evidence_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "kernel_page_tables").write_text("nonsense\n")
    assert shown(["VMM-02"], [tmp_path / "kernel_page_tables"]).startswith("refused: ")


def test_forms_of_one_crash_are_compared(tmp_path):
    core = evidence.HERE.parent / "vmcore/pmem-6.12-vuln-after.core.zst"
    before = evidence.HERE.parent / "vmcore/pmem-6.12-vuln-before.core.zst"
    (tmp_path / "boot/kdump").mkdir(parents=True)
    (tmp_path / "boot/02-one-removed").mkdir()
    (tmp_path / "boot/02-one-removed/kernel.elf.zst").symlink_to(core)
    (tmp_path / "boot/kdump/raw").symlink_to(core)
    (tmp_path / "boot/kdump/raw.log").write_text("dd")
    lines, wrong = evidence.crashes(tmp_path)
    assert [line.split(" | ")[1] for line in lines[2:]] == ["the hypervisor's dump", "raw copy of /proc/vmcore"]
    assert "VMM-02, proven" in lines[2]
    assert wrong == []
    (tmp_path / "boot/kdump/lzo-31").symlink_to(before)
    lines, wrong = evidence.crashes(tmp_path)
    assert len(lines) == 5
    assert "VMM-01" in wrong[0]


def test_the_page_says_what_the_evidence_shows(table):
    page = PAGE.read_text()
    for name, row in table.items():
        (line,) = (line for line in page.splitlines() if line.startswith(f"| {DAMAGE[name]['what']} |"))
        assert set(row.values()) <= {cell.strip() for cell in line.split("|")}, name


def test_the_page_can_be_made_from_itself():
    page = PAGE.read_text()
    known = matrix.kept(page)
    assert len(known) > 90
    assert known["pmem-6.12-64k"]["moments"]["01-namespaces"]["VMM-06"] == "fired"
    assert known["pmem-5.10-4k"]["kernel"] == "5.10.262"
    again, _ = matrix.document(known, [], [])
    assert matrix.table(matrix.kept(again)) == matrix.table(known)
    assert matrix.table(known)[2] in page.splitlines()


def test_a_test_of_the_corpus_has_the_rodata_of_its_machine():
    said = {"kernel": "7.3.4", "pages": "4K", "moments": {"04-unplug": {"LIN-02": "fired"}}}
    _, rows = matrix.runs({f"{test}-7.3-4k": said for test in ("dimm-of-a-gibibyte", "two-dimms")})
    assert rows == {
        ("7.3-4k", "off", "off"): {"1 GiB leaves": {"LIN-02"}},
        ("7.3-4k", "off", "default"): {"DIMM": {"LIN-02"}},
    }


def test_every_kind_of_evidence_is_there_or_it_is_said_why():
    for name, damage in DAMAGE.items():
        missing = {kind for kind, files in evidence.evidence(name) if not files}
        assert set(damage.get("absent", {})) == missing, name


def test_short_codes_are_expanded():
    assert matrix.expanded("ATT-01, -02; VMM-13") == ["ATT-01", "ATT-02", "VMM-13"]
    assert matrix.expanded("") == []
    assert matrix.compact(matrix.expanded("ATT-01, -02; VMM-13")) == "ATT-01, -02; VMM-13"
