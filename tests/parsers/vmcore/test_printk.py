"""The log of kernels before 5.10: records one after another in a buffer that wraps."""

import struct

import pytest

from parsers.errors import FormatError
from parsers.vmcore.distilled import write_core
from parsers.vmcore.dump import Dump
from parsers.vmcore.opening import open_dump
from parsers.vmcore.printk import read_dmesg
from tests.parsers.vmcore.cores import Tables, vmcoreinfo

LINEAR = 0xFFFF000000000000
IMAGE = 0xFFFF800080000000
KEYS = {
    "SYMBOL(log_buf)": f"{IMAGE + 0x1000:x}",
    "SYMBOL(log_buf_len)": f"{IMAGE + 0x1008:x}",
    "SYMBOL(log_first_idx)": f"{IMAGE + 0x100C:x}",
    "SYMBOL(log_next_idx)": f"{IMAGE + 0x1010:x}",
    "SIZE(printk_log)": 16,
    "OFFSET(printk_log.ts_nsec)": 0,
    "OFFSET(printk_log.len)": 8,
    "OFFSET(printk_log.text_len)": 10,
    "OFFSET(printk_log.dict_len)": 12,
}


def record(time, text, fill=0):
    size = 16 + len(text) + fill
    return struct.pack("<QHHHBB", time, size, len(text), 0, 0, 0) + text + bytes(fill)


def log_of(tmp_path, buffer, first, following, length=4096):
    tables = Tables()
    memory = tables.memory
    head = struct.pack("<QIII", LINEAR + 0x5000000, length, first, following)
    memory.pages[0x40001] = head.ljust(4096, b"\0")
    memory.pages[0x45000] = buffer.ljust(4096, b"\0")
    path = tmp_path / "vmcore"
    write_core(path, memory, memory.units, vmcoreinfo(**KEYS))
    return read_dmesg(Dump(open_dump(path)))


def test_records_in_order(tmp_path):
    buffer = record(1_234_567_890, b"Booting Linux") + record(2_000_000_000, b"Memory: 1K", 6)
    assert log_of(tmp_path, buffer, 0, len(buffer)) == b"[    1.234567] Booting Linux\n[    2.000000] Memory: 1K\n"


def test_a_buffer_that_wrapped(tmp_path):
    new, old = record(3_000_000_000, b"new"), record(2_000_000_000, b"old")
    buffer = new + bytes(100) + old
    first = len(new) + 100
    assert log_of(tmp_path, buffer, first, len(new)) == b"[    2.000000] old\n[    3.000000] new\n"


@pytest.mark.parametrize("damage", [bytes(4000), struct.pack("<QHHHBB", 0, 4, 9999, 0, 0, 0), b"\xff" * 4000])
def test_damaged_records_end_the_log(tmp_path, damage):
    buffer = record(1_000_000_000, b"good") + damage
    assert log_of(tmp_path, buffer, 0, 4090).startswith(b"[    1.000000] good\n")


def test_an_impossible_buffer_is_refused(tmp_path):
    with pytest.raises(FormatError, match="log buffer"):
        log_of(tmp_path, b"", 0, 1, length=0)
