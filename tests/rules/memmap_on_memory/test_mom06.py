"""MOM-06: A failed hot-add gives self-hosted struct pages to the page allocator."""

import re

import pytest

from tests.rules.changed_traces import PASSED, UNDECIDED, replaced, without


def test_blocks_whose_return_was_not_traced(case_verdict):
    assert case_verdict("MOM-06", "quiet", without("create_memory_block_devices_ret: ")).outcome is UNDECIDED


@pytest.mark.parametrize(
    "change",
    [
        replaced(r"u8:0-12 (.*arch_remove_memory: |.*sparse_remove|.*vmemmap_free)", r"u8:0-13 \1"),
        replaced(r"(create_memory_block_devices: .*) start=0x80000000", r"\1 start=0x90000000"),
        replaced("ret=-17", "ret=0"),
    ],
    ids=["another task", "another range", "not refused"],
)
def test_a_removal_without_altmap_that_undoes_no_add(case_verdict, change):
    assert case_verdict("MOM-06", "fires", change).outcome is PASSED


def test_blocks_that_were_refused_after_the_removal(case_verdict):
    def change(lines):
        create = [line for line in lines if "create_memory_block_devices" in line]
        rest = [line for line in lines if line not in create]
        return rest + [re.sub(r"2\.619", "2.620", line) for line in create]

    assert case_verdict("MOM-06", "fires", change).outcome is PASSED
