"""``ptaudit whatif``: the contract of its answers, and the cases that no pair of captures shows."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import ptaudit as ptaudit_library
from analyzer.audit import audit
from analyzer.sources.read import Request
from analyzer.whatif.answer import Kind
from analyzer.whatif.foresight import every_operation, what_if
from parsers.errors import UsageError
from parsers.image.code import KernelCode
from parsers.uname import KernelRelease, parse_uname
from rules.facts import Facts
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.resources import Resources
from rules.model.replay.timeline import Timeline
from tests.analyzer.whatif.pairs import FIXTURES
from tests.recorded_kernels import recorded

CAPTURES = FIXTURES / "captures"
NAMESPACES = CAPTURES / "pmem-6.12-vuln" / "01-three-namespaces"
DIMM = CAPTURES / "dimm-6.12" / "02-dimm-online"
FIELDS = {"operation", "answer", "claim", "breaks", "why", "instead"}


def facts_of(path: Path, *without: type, release: str = "") -> Facts:
    facts = audit(Request((path,)), only=["ENV-01"]).facts
    known = {kind: fact for kind, fact in facts.known.items() if kind not in without}
    if release:
        known[KernelRelease] = parse_uname(release.encode(), "uname")
    return replace(facts, known=known)


def test_the_document_has_what_it_promises(ptaudit) -> None:
    done = ptaudit("whatif", NAMESPACES, "remove:namespace0.1", "--format", "json")
    document = json.loads(done.out)
    assert done.status == 1
    assert document["schema"] == "ptaudit.whatif/1"
    (answer,) = document["answers"]
    assert answer.keys() >= FIELDS
    assert (answer["answer"], answer["claim"]) == ("breaks", "probable")
    (broken,) = answer["breaks"]
    assert (broken["rule"], broken["severity"]) == ("VMM-02", "critical")
    assert broken["owners"] == ["namespace0.0", "namespace0.2"]
    assert broken["pfn_ranges"] == [{"start": "0x80000", "end": "0x82000"}, {"start": "0x84000", "end": "0x88000"}]
    assert "kernel_page_tables:108" in broken["why"]
    assert broken["evidence"][0]["line"] == 108


@pytest.mark.parametrize(
    ("moment", "operation", "status"),
    [
        ("dimm-6.12/02-dimm-online", "remove:0x80000000-0xa0000000", 0),
        ("dimm-7.3-4k-mom/02-dimm-online", "offline:memory16", 0),
        ("pmem-6.12-vuln/01-three-namespaces", "remove:namespace0.0", 1),
        ("pmem-6.12-vuln/01-three-namespaces/kernel_page_tables", "remove:0x80000000-0x82000000", 3),
    ],
)
def test_the_exit_status_is_that_of_the_answer(ptaudit, moment: str, operation: str, status: int) -> None:
    assert ptaudit("whatif", CAPTURES / moment, operation).status == status


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["remove:namespace7.7"], "no such unit; there are: namespace0.0"),
        (["remove:"], "what to remove is missing"),
        (["offline:namespace0.0"], "memory goes offline by blocks"),
        (["add:namespace0.0"], "add takes a range"),
        (["add:0x2000-0x1000"], "the range is empty"),
        (["add:0x0-0xffffffffffffffff"], "52 bits at most"),
        (["remove:System RAM"], "4 resources have that name; name a range: 0x40000000-"),
        ([], "no operation"),
    ],
)
def test_unknown_operations_are_usage_errors(ptaudit, words: list[str], message: str) -> None:
    done = ptaudit("whatif", NAMESPACES, *words)
    assert (done.status, done.out) == (2, "")
    assert message in done.err


def test_all_lists_every_unit_and_ends_with_the_worst(ptaudit) -> None:
    done = ptaudit("whatif", NAMESPACES, "--all")
    assert done.status == 1
    assert [line.split()[:2] for line in done.out.splitlines()[:3]] == [
        [f"remove:namespace0.{number}", "breaks"] for number in range(3)
    ]
    assert done.out.splitlines()[-1] == "3 breaks"


def test_everything_about_an_unknown_host_is_unknown(ptaudit) -> None:
    done = ptaudit("whatif", NAMESPACES / "kernel_page_tables", "--all")
    assert done.status == 3
    assert "/proc/iomem" in done.out


def test_a_walk_proves_it_in_a_dump() -> None:
    pytest.importorskip("drgn")
    facts = facts_of(FIXTURES / "vmcore" / "pmem-6.12-vuln-before.core.zst")
    (answer,) = what_if(facts, ["remove:namespace0.1"])
    assert answer.claim == "proven"
    assert any("block at 0x42000000" in one.text for one in answer.breaks[0].evidence)


def test_boot_memory_is_refused_and_memory_of_unknown_origin_unknown() -> None:
    (refused,) = what_if(facts_of(DIMM), ["offline:memory8"])
    assert refused.kind is Kind.REFUSED
    assert "boot" in refused.why


def test_a_dimm_of_unknown_origin_is_unknown(tmp_path: Path) -> None:
    for name in ("kernel_page_tables", "iomem", "memory_blocks", "uname"):
        (tmp_path / name).write_bytes((DIMM / name).read_bytes())
    (answer,) = what_if(facts_of(tmp_path), ["offline:memory16"])
    assert answer.kind is Kind.UNKNOWN
    assert "dmesg" in (answer.collect or "")


def test_the_guard_of_an_unknown_release_is_unknown() -> None:
    facts = facts_of(CAPTURES / "dimm-7.3-4k-mom" / "02-dimm-online", KernelRelease)
    (answer,) = what_if(facts, ["offline:memory16"])
    assert (answer.kind, answer.collect) == (Kind.UNKNOWN, "uname -a")


@pytest.mark.parametrize(("release", "kind"), [("7.0.4", "safe"), ("7.1.2", "refused"), ("7.3.4", "refused")])
def test_the_guard_came_with_7_1(release: str, kind: str) -> None:
    facts = facts_of(CAPTURES / "dimm-7.3-4k-mom" / "02-dimm-online", release=release)
    (answer,) = what_if(facts, ["offline:memory16"])
    assert answer.kind == kind


def test_the_guard_of_7_1_looks_after_the_range() -> None:
    facts = facts_of(CAPTURES / "dimm-7.3-4k-mom" / "02-dimm-online", release="7.1.2")
    (answer,) = what_if(facts, ["offline:memory16"])
    assert "[88200000 90000000] splits" in answer.why


def test_arm64_removes_nothing_before_5_7() -> None:
    (answer,) = what_if(facts_of(DIMM, release="5.4.3"), ["remove:0x80000000-0xa0000000"])
    assert answer.kind is Kind.REFUSED


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        ("add:0xa0100000-0xa8000000", "-EINVAL: the range does not begin and end on memory blocks of 128 MiB"),
        ("add:0x98000000-0xa8000000", "-EEXIST: 0x98000000-0xa0000000"),
        ("add:0x7000000000000-0x7000008000000", "-E2BIG"),
    ],
)
def test_adds_that_the_kernel_refuses(operation: str, said: str) -> None:
    (answer,) = what_if(facts_of(DIMM), [operation])
    assert answer.kind is Kind.REFUSED
    assert answer.why.startswith(said)
    assert not answer.harmful


def test_what_a_failed_add_left_refuses_the_next_and_may_leave_more() -> None:
    pytest.importorskip("drgn")
    facts = facts_of(FIXTURES / "vmcore" / "half-added-7.3-destroyed.core.zst")
    clean, harm = what_if(facts, ["add:0x80000000-0x88000000", "add:0x78000000-0x88000000"])
    assert (clean.kind, clean.harmful) == (Kind.REFUSED, False)
    assert "VMM-14" in clean.why
    assert (harm.kind, [one.rule for one in harm.breaks]) == (Kind.REFUSED, ["VMM-14"])
    assert harm.breaks[0].pfns.tuples() == [(0x78000, 0x80000)]


def test_without_page_tables_the_release_decides_and_says_so() -> None:
    unfixed = facts_of(NAMESPACES, LinearMap, Vmemmap, release="6.12.19")
    fixed = facts_of(NAMESPACES, LinearMap, Vmemmap, release="6.12.20")
    nobody = facts_of(NAMESPACES, LinearMap, Vmemmap, KernelRelease)
    answers = [what_if(facts, ["remove:namespace0.1"])[0] for facts in (unfixed, fixed, nobody)]
    assert [str(one.kind) for one in answers] == ["breaks", "safe", "unknown"]
    assert all(one.claim == "suspected" for one in answers)
    assert "page tables" in (answers[2].collect or "")


def test_what_lost_its_struct_pages_before_is_not_safe_without_page_tables() -> None:
    """The real host oopsed when the second of three namespaces went."""
    before, after = (
        facts_of(FIXTURES / "whatif" / "stock-7.3-16k" / name) for name in ("01-namespaces", "02-one-removed")
    )
    first = what_if(before, ["remove:namespace0.0"])[0]
    assert (first.kind, first.breaks[0].pfns.tuples()) == (Kind.BREAKS, [(0x20480, 0x20500)])
    assert what_if(after, ["remove:namespace0.1"])[0].kind is Kind.UNKNOWN


def test_a_block_whose_struct_pages_went_cannot_go_online() -> None:
    facts = facts_of(CAPTURES / "two-dimms-one-offline-6.12-4k-80" / "03-one-removed")
    (answer,) = what_if(facts, ["online:memory17"])
    assert answer.kind is Kind.BREAKS
    assert answer.breaks[0].rule == "VMM-02"


def test_instead_offers_an_order_or_a_larger_unit() -> None:
    (dimms,) = what_if(
        facts_of(CAPTURES / "two-dimms-one-offline-6.12-4k-80" / "01-both-there"), ["remove:0x80000000-0x88000000"]
    )
    assert (dimms.instead or "").startswith("take 0x80000000-0x88000000 and 0x88000000-0x90000000 offline first")
    (leaf,) = what_if(facts_of(CAPTURES / "pud-6.12-4k" / "02-dimm-online"), ["remove:memory17"])
    assert "remove:0x80000000-0x100000000" in (leaf.instead or "")


def test_an_add_that_only_the_release_decides_is_suspected() -> None:
    boot, later = (CAPTURES / "pmem-6.12-fixed" / name for name in ("00-boot", "03-second-removed"))
    part, whole = what_if(facts_of(boot), ["add:0x80000000-0x82000000", "add:0x80000000-0x88000000"])
    assert (part.claim, whole.claim) == ("suspected", "probable")
    (seen,) = what_if(facts_of(later), ["add:0x82000000-0x84000000"])
    assert seen.claim == "probable", "the namespace that is left shows the fix"


def test_the_library_answers_the_same() -> None:
    (answer,) = ptaudit_library.open(NAMESPACES).whatif("remove:namespace0.1")
    assert answer.as_dict() == what_if(facts_of(NAMESPACES), ["remove:namespace0.1"])[0].as_dict()


def test_nothing_follows_an_oops() -> None:
    facts = facts_of(CAPTURES / "pmem-5.10-4k" / "02-one-removed")
    first, second = what_if(facts, ["remove:namespace0.2", "remove:namespace0.0"], in_sequence=True)
    assert first.oops
    assert second.kind is Kind.UNKNOWN
    assert "hotplug lock" in second.why


def test_what_the_sequence_removed_can_be_added_again_and_what_it_added_is_claimed() -> None:
    dimm, again = "0x80000000-0xa0000000", "add:0x80000000-0xa0000000"
    assert what_if(facts_of(DIMM), [again])[0].kind is Kind.REFUSED
    removed, added, twice, gone, last = what_if(
        facts_of(DIMM), [f"remove:{dimm}", again, again, f"remove:{dimm}", again], in_sequence=True
    )
    assert [one.kind for one in (removed, added, gone, last)] == [Kind.SAFE] * 4
    assert twice.kind is Kind.REFUSED
    assert "is claimed already" in twice.why


def test_a_device_that_left_claims_nothing_and_its_neighbour_does() -> None:
    facts = facts_of(CAPTURES / "kmem-6.12-4k-mom" / "02-system-ram")
    (dax,) = (one for one in facts.known[Resources].devices if one.name.startswith("dax"))
    add = f"add:{facts.known[Resources].ram.tuples()[-1][0]:#x}-{facts.known[Resources].ram.tuples()[-1][1]:#x}"
    _, added = what_if(facts, [f"remove:{dax.name}", add], in_sequence=True)
    assert "claimed already" not in added.why
    removed, own, other = what_if(
        facts_of(CAPTURES / "pmem-6.12-fixed" / "01-three-namespaces"),
        ["remove:namespace0.1", "add:0x82000000-0x84000000", "add:0x80000000-0x82000000"],
        in_sequence=True,
    )
    assert removed.kind is Kind.SAFE
    assert "claimed already" not in own.why
    assert (other.kind, "claimed already" in other.why) == (Kind.REFUSED, True)


def test_a_namespace_that_was_system_ram_becomes_a_device_again() -> None:
    facts = facts_of(CAPTURES / "kmem-6.12-4k-mom" / "02-system-ram")
    whole, ram = "0x80000000-0xa8000000", "0x88000000-0xa8000000"
    _, again, ram_again = what_if(facts, [f"remove:{ram}", f"add:{whole}", f"add:{ram}"], in_sequence=True)
    assert again.kind is Kind.SAFE, again.why
    assert "claimed already" in ram_again.why
    _, elsewhere = what_if(facts, [f"remove:{ram}", "add:0x80000000-0x80200000"], in_sequence=True)
    assert "claimed already" in elsewhere.why, "the header alone is a range that somebody else claims"


@pytest.mark.parametrize(
    ("release", "pfn", "kind"),
    [
        ("", 0x80010, Kind.UNKNOWN),
        ("", 0x98000, Kind.SAFE),
        ("Linux h 6.1.176 #1 SMP aarch64 GNU/Linux", 0x80010, Kind.SAFE),
    ],
)
def test_a_block_with_a_poisoned_page_may_not_come_online(tmp_path, release: str, pfn: int, kind: Kind) -> None:
    copy = tmp_path / "capture"
    shutil.copytree(CAPTURES / "dimm-6.12" / "03-two-blocks-offline", copy)
    with (copy / "dmesg").open("a") as log:
        log.write(f"[  159.835364] Memory failure: {pfn:#x}: recovery action for free buddy page: Recovered\n")
    (answer,) = what_if(facts_of(copy, release=release), ["online:memory16"])
    assert answer.kind is kind
    assert ("-EHWPOISON" in answer.why) == (kind is Kind.UNKNOWN)


def test_units_are_asked_by_any_of_their_names() -> None:
    facts = facts_of(NAMESPACES)
    by_name, by_dax, by_range = what_if(facts, ["remove:namespace0.1", "remove:dax0.1", "remove:0x82000000-0x84000000"])
    assert by_name.breaks[0].pfns == by_dax.breaks[0].pfns == by_range.breaks[0].pfns


def test_a_unit_that_does_not_exist_is_an_error_of_the_function_too() -> None:
    with pytest.raises(UsageError, match="no such unit"):
        what_if(facts_of(DIMM), ["offline:memory99"])


def test_every_operation_leaves_boot_memory_out() -> None:
    assert [str(one) for one in every_operation(facts_of(DIMM))] == [
        "remove:0x80000000-0xa0000000",
        *(f"offline:memory{number}" for number in (16, 17, 18, 19)),
    ]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("6.12.117-lab-without-d4234d131b0a", Kind.BREAKS), ("6.12.113+deb13-arm64", Kind.SAFE), ("", Kind.UNKNOWN)],
)
def test_the_kernels_code_decides_where_nothing_else_does(name: str, kind: Kind) -> None:
    facts = facts_of(NAMESPACES, LinearMap, Vmemmap, KernelRelease, Timeline)
    code = [(KernelCode, kernel.code) for kernel in recorded() if kernel.name == name]
    (answer,) = what_if(replace(facts, known={**facts.known, **dict(code)}), ["remove:namespace0.1"])
    assert answer.kind is kind
