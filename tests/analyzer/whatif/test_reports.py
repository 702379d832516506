"""What can leave a host, where many hosts are looked at: metrics and tables of a fleet."""

from __future__ import annotations

import re
from pathlib import Path

from analyzer.audit import audit
from analyzer.fleet.local import Limits
from analyzer.fleet.run import run_fleet
from analyzer.fleet.store import query
from analyzer.sources.read import Request
from analyzer.whatif.outlook import MAX_OPERATIONS
from tests.analyzer.whatif.pairs import FIXTURES

CAPTURES = FIXTURES / "captures"


def test_unsafe_units_are_a_metric(ptaudit) -> None:
    unsafe = ptaudit("audit", CAPTURES / "pmem-6.12-vuln/01-three-namespaces", "--format", "prometheus").out
    assert "\nptaudit_unsafe_units 3\n" in unsafe
    assert '\nptaudit_units{operation="remove",answer="breaks"} 3\n' in unsafe
    safe = ptaudit("audit", CAPTURES / "dimm-6.12/02-dimm-online", "--format", "prometheus").out
    assert "\nptaudit_unsafe_units 0\n" in safe
    assert '\nptaudit_units{operation="offline",answer="safe"} 4\n' in safe


def test_a_fleet_knows_which_hosts_can_unplug_a_node(tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    for host, moment in {"a": "dimm-6.12/02-dimm-online", "b": "pmem-6.12-vuln/01-three-namespaces"}.items():
        (bundles / host).mkdir(parents=True)
        for file in (CAPTURES / moment).iterdir():
            (bundles / host / file.name).write_bytes(file.read_bytes())
    links = "".join(f"memory{number}/node1\n" for number in (16, 17, 18, 19))
    (bundles / "a" / "memory_nodes").write_text("memory8/node0\nmemory9/node0\n" + links)
    run_fleet([str(bundles)], tmp_path / "results", jobs=1, limits=Limits(60.0, 4 << 30))
    ready = (
        "SELECT host FROM units WHERE node = 1 AND operation = 'remove' GROUP BY host HAVING bool_and(answer = 'safe')"
    )
    assert query(tmp_path / "results", ready)[1] == [("a",)]
    assert query(tmp_path / "results", "SELECT host, unsafe_units FROM bundles ORDER BY host")[1] == [
        ("a", 0),
        ("b", 3),
    ]
    rows = query(tmp_path / "results", "SELECT unit, rules FROM units WHERE answer = 'breaks' ORDER BY unit")[1]
    assert rows == [(f"namespace0.{number}", ["VMM-02"]) for number in range(3)]


def test_a_report_answers_a_bounded_number_of_operations() -> None:
    outlook = audit(Request((CAPTURES / "dimm-6.12/02-dimm-online",)), only=["ENV-01"]).outlook
    assert len(outlook.prospects) + outlook.left_out == 5 <= MAX_OPERATIONS


def test_the_page_says_of_each_unit_what_breaks_with_it(ptaudit) -> None:
    page = ptaudit("audit", CAPTURES / "pmem-6.12-vuln/01-three-namespaces", "--format", "html").out
    rows = re.findall(r'<tr id="unit-\d" data-first="(\d+)" data-end="(\d+)" data-says="([^"]+)">', page)
    assert rows == [
        ("524288", "532480", "remove namespace0.0: breaks"),
        ("532480", "540672", "remove namespace0.1: breaks"),
        ("540672", "557056", "remove namespace0.2: breaks"),
    ]
    calm = ptaudit("audit", CAPTURES / "dimm-6.12/02-dimm-online", "--format", "html").out
    assert "5 operations that would break nothing, be refused, or are not known" in calm
