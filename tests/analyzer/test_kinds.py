"""A single file is recognised by what it is, not by a word in it."""

import pytest

from parsers.kinds import kind_of_content

LOG = b"[    0.000000] Linux version 6.12.117 (root@vm) (gcc 12.2.0) #2 SMP\n"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (LOG + b"sh: can't create /sys/devices/system/memory/memory4/state: nonexistent directory\n", "dmesg"),
        (LOG + b"-bash: echo: /sys/devices/system/memory/memory4/state: Device or resource busy\n", "dmesg"),
        (b"memory4/state:online\n", "memory_blocks"),
        (b"memory4/valid_zones:none\nmemory4/state:going-offline\n", "memory_blocks"),
        (b"/sys/devices/system/memory/memory4/state:offline\n", "memory_blocks"),
        (b"> block_size_bytes:8000000\n", "memory_blocks"),
    ],
)
def test_a_log_that_names_a_memory_block_is_a_log(content, kind):
    assert kind_of_content(content).name == kind
