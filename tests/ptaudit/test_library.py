"""The library: tables of known dtypes that say what the command line says, and nothing imported too early."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

import ptaudit
from analyzer.cli import ptaudit as command_line

FIXTURES = Path(__file__).parents[2] / "fixtures"
DAMAGED = FIXTURES / "captures" / "pmem-6.12-vuln" / "02-one-removed"
WIDE_SECTIONS = FIXTURES / "captures" / "pmem-6.12-64k" / "02-one-removed"
CORE = FIXTURES / "vmcore" / "pmem-6.12-vuln-after.core.zst"
TABLES = ("sections", "coverage", "mapping", "timeline", "findings", "evidence")


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def damaged() -> ptaudit.Evidence:
    return ptaudit.open(DAMAGED)


def test_import_loads_nothing_but_the_package_and_typing() -> None:
    code = "import sys; before = set(sys.modules); import ptaudit; print(*sorted(sys.modules.keys() - before))"
    assert {name.split(".")[0].lstrip("_") for name in python(code).split()} <= {"ptaudit", "typing", "collections"}


def test_nothing_heavy_is_imported_before_open_and_pandas_not_before_a_table() -> None:
    code = f"""
import sys, ptaudit
heavy = {{"numpy", "pandas", "drgn", "analyzer", "rules"}}
print(sorted(heavy & sys.modules.keys()))
host = ptaudit.open({str(DAMAGED)!r})
host.audit()
print("pandas" in sys.modules)
host.sections()
print("pandas" in sys.modules)
"""
    assert python(code).split("\n") == ["[]", "False", "True"]


def test_dtypes_depend_on_the_table_and_not_on_the_evidence(damaged: ptaudit.Evidence) -> None:
    others = [ptaudit.open(WIDE_SECTIONS), ptaudit.open(CORE)] if drgn_is_installed() else [ptaudit.open(WIDE_SECTIONS)]
    for name in TABLES:
        here = kinds(getattr(damaged, name)())
        for other in others:
            with contextlib.suppress(ptaudit.PtauditError):  # a crash dump has no trace
                assert kinds(getattr(other, name)()) == here, name


def drgn_is_installed() -> bool:
    try:
        import drgn  # noqa: F401, PLC0415
    except ImportError:
        return False
    return True


def kinds(table: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(dtype) for name, dtype in table.dtypes.items()}


def test_addresses_are_unsigned_and_unknown_numbers_missing(damaged: ptaudit.Evidence) -> None:
    mapping = kinds(damaged.mapping("vmemmap"))
    assert [mapping[name] for name in ("start", "size", "last")] == ["uint64"] * 3
    assert mapping["output"] == "UInt64"
    assert mapping["level"] == mapping["attributes"] == "category"
    assert damaged.mapping("vmemmap").output.isna().all()
    assert kinds(damaged.sections())["self_hosted"] == "boolean"
    assert damaged.timeline().time.dtype == "timedelta64[ns]"


def test_sections_say_what_the_command_says(damaged: ptaudit.Evidence) -> None:
    said = json.loads(CliRunner().invoke(command_line, ["sections", str(DAMAGED), "--format", "json"]).stdout)
    table = damaged.sections().set_index("section")
    for row in said["sections"]:
        for number in range(row["first"], row["last"] + 1):
            mine = table.loc[number]
            assert mine.state == row["state"] or (pd.isna(mine.state) and row["state"] == "-")
            assert row["subsections"].startswith(f"{mine.valid_subsections}/64")
            word = str(mine.struct_level) if mine.struct_pages == "full" else str(mine.struct_pages)
            assert row["struct_pages"].split(" ")[0] in {word, str(mine.struct_level)}
    assert table.index.size == sum(row["last"] - row["first"] + 1 for row in said["sections"])


@pytest.mark.parametrize("capture", [DAMAGED, WIDE_SECTIONS])
def test_subsections_add_up_to_their_section(capture: Path) -> None:
    host = ptaudit.open(capture)
    sections, coverage = host.sections().set_index("section"), host.coverage()
    by_section = coverage.groupby("section")
    assert (by_section.valid_pages.sum() == sections.valid_pages).all()
    valid = coverage[coverage.valid_pages > 0].groupby("section").subsection
    bitmap = valid.apply(lambda numbers: sum(1 << int(number) for number in numbers))
    assert [int(text, 16) for text in sections.subsection_map] == bitmap.tolist()
    assert by_section.size().eq(64 if capture == DAMAGED else 256).all()


def test_lost_struct_pages_show_in_coverage(damaged: ptaudit.Evidence) -> None:
    lost = damaged.coverage().query("valid_pages > 0 and struct_pages == 'none'")
    finding = damaged.findings().query("rule == 'VMM-02'").iloc[0]
    assert set(lost.section) == {16}
    assert lost.start_pfn.min() == finding.start_pfn
    assert lost.end_pfn.max() == finding.end_pfn
    assert finding.pages == (lost.end_pfn - lost.start_pfn).sum()


def test_rows_of_the_page_tables_can_be_checked_in_the_source(damaged: ptaudit.Evidence) -> None:
    lines = (DAMAGED / "kernel_page_tables").read_text().splitlines()
    for region in ("linear", "vmemmap", None):
        mapping = damaged.mapping(region)
        assert mapping.start.is_monotonic_increasing
        assert mapping.line.notna().all()
        inner = mapping.iloc[1:-1]  # the first and last row of a region are clipped to it
        quoted = [int(lines[line - 1].split("-")[0], 16) for line in inner.line]
        assert quoted == inner.start.tolist()
        assert set(mapping.source) == {str(DAMAGED / "kernel_page_tables")}


def test_regions_are_the_same_in_the_whole_mapping(damaged: ptaudit.Evidence) -> None:
    whole, vmemmap = damaged.mapping(), damaged.mapping("vmemmap")
    inside = whole[whole.region == "vmemmap"].reset_index(drop=True)
    inside["attributes"] = inside.attributes.astype(vmemmap.attributes.dtype)  # the words that occur
    pd.testing.assert_frame_equal(inside.iloc[1:-1], vmemmap.iloc[1:-1])


def test_findings_are_those_of_the_audit(damaged: ptaudit.Evidence) -> None:
    table, report = damaged.findings(), damaged.audit()
    assert table.fingerprint.tolist() == [one.fingerprint for one in report.findings]
    assert table.rule.tolist() == [one.rule.code for one in report.findings]
    assert (table.severity >= "critical").sum() == sum(str(one.severity) == "critical" for one in report.findings)
    assert table.line.notna().any()
    assert len(damaged.evidence()) == sum(len(one.hit.evidence) for one in report.findings)
    assert set(damaged.evidence().fingerprint) <= set(table.fingerprint)


def test_audit_takes_the_options_of_the_command(damaged: ptaudit.Evidence) -> None:
    assert {one.rule.code for one in damaged.audit(select=["VMM-02"]).findings} == {"VMM-02"}
    assert "VMM-02" not in {one.rule.code for one in damaged.audit(ignore=["VMM"]).findings}
    assert all(str(one.severity) == "critical" for one in damaged.audit(min_severity="critical").findings)
    with pytest.raises(ptaudit.PtauditError, match="severity"):
        damaged.audit(min_severity="dreadful")


def test_the_timeline_is_the_replay(damaged: ptaudit.Evidence) -> None:
    table = damaged.timeline()
    assert table.line.dropna().is_monotonic_increasing
    free = table[table.damaged_pages > 0]
    assert free.operation.tolist() == ["free"]
    assert free.time.iloc[0] == pd.Timedelta("4.144591s")
    lines = (DAMAGED / "trace").read_text().splitlines()
    assert "vmemmap_free" in lines[int(free.line.iloc[0]) - 1]


def test_where_takes_numbers_and_text(damaged: ptaudit.Evidence) -> None:
    text = damaged.where("pfn:0x80000")
    assert text["section"]["number"] == 16
    address = int(damaged.mapping("vmemmap").start.iloc[0])
    assert damaged.where(address)["region"] == "vmemmap"


def test_missing_evidence_says_what_to_collect(tmp_path: Path) -> None:
    (tmp_path / "uname").write_text("Linux host 6.12.0 #1 SMP aarch64 GNU/Linux\n")
    host = ptaudit.open(tmp_path)
    for name, wanted in (("sections", "iomem"), ("mapping", "kernel_page_tables"), ("timeline", "trace")):
        with pytest.raises(ptaudit.PtauditError, match=wanted):
            getattr(host, name)()
    assert kinds(host.findings()) == kinds(ptaudit.open(DAMAGED).findings())


def test_several_paths_are_one_evidence_set() -> None:
    host = ptaudit.open([DAMAGED / "kernel_page_tables", DAMAGED / "iomem"])
    assert {one.kind for one in host.read.sources} == {"ptdump", "iomem"}
    assert len(host.sections())


def test_what_cannot_be_opened_is_a_usage_error() -> None:
    with pytest.raises(ptaudit.PtauditError, match=r"drgn\.Program"):
        ptaudit.open(7)  # type: ignore[arg-type]
    with pytest.raises(ptaudit.PtauditError, match="nothing to read"):
        ptaudit.open([])
    with pytest.raises(ptaudit.PtauditError, match="region"):
        ptaudit.open(DAMAGED).mapping("heap")


def test_live_collects_and_cleans_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace  # noqa: PLC0415

    from ptaudit import evidence  # noqa: PLC0415

    closed = []

    @contextlib.contextmanager
    def collected(request, keep):  # type: ignore[no-untyped-def]
        yield replace(request, paths=(DAMAGED,))
        closed.append(True)

    monkeypatch.setattr(evidence, "live", collected)
    host = ptaudit.open("live")
    assert len(host.sections())
    assert not closed
    del host
    assert closed


def test_unknown_names_of_the_module_are_attribute_errors() -> None:
    with pytest.raises(AttributeError):
        ptaudit.nothing  # noqa: B018
    assert {"open", "Evidence", "PtauditError"} <= set(dir(ptaudit))
