"""MOM-11: Blocks that hold their own struct pages, and huge pages that give struct pages away, are both switched on."""

from dataclasses import replace

import pytest

from parsers.cmdline import parse_cmdline
from parsers.memmap_on_memory import parse_memmap_on_memory
from parsers.vmcore.rows import HugetlbRows
from rules.engine import Outcome
from tests.rules.dumps import facts_of, verdict_about


@pytest.mark.parametrize(("switch", "outcome"), [(True, Outcome.FIRED), (False, Outcome.PASSED), (None, Outcome.FIRED)])
def test_the_switch_in_the_dump_comes_before_the_command_line(hvo, switch, outcome):
    """The command line switches it on."""
    parameter = parse_memmap_on_memory(b"Y\n", "memmap_on_memory")
    line = parse_cmdline(b"hugetlb_free_vmemmap=on\n", "cmdline")
    pools = facts_of(hvo).get(HugetlbRows)
    facts = facts_of(hvo, replace(pools, vmemmap_optimized=switch), memmap_on_memory=parameter, command_line=line)
    assert verdict_about("MOM-11", facts).outcome is outcome
