"""Addresses by arithmetic, for each generation of the kernel's memory map."""

import numpy as np
import pytest

from parsers.errors import FormatError, LayoutError
from tests.parsers.vmcore.cores import address_map

CASES = [
    # page size, VA bits, bits in use, image address, PHYS_OFFSET, virtual, physical
    # up to 5.3: the linear map in the upper half
    (4096, 39, 39, 0xFFFFFF8008080000, 0x80000000, 0xFFFFFFC000001000, 0x80001000),
    (4096, 48, 48, 0xFFFF000008080000, 0x40000000, 0xFFFF800000000000, 0x40000000),
    # since 5.4: in the lower half
    (4096, 48, 48, 0xFFFF800080000000, 0x40000000, 0xFFFF000000002000, 0x40002000),
    (4096, 48, 48, 0xFFFF800080000000, 0, 0xFFFF000084000000, 0x84000000),
    (4096, 39, 39, 0xFFFFFFC008000000, 0x80000000, 0xFFFFFF8000000000, 0x80000000),
    # 52 bits, memstart_addr moved below zero on 48-bit hardware since 5.10
    (65536, 52, 48, 0xFFFF800080000000, 0xFFF1000080000000, 0xFFFF000000000000, 0x80000000),
    (65536, 52, 52, 0xFFFF800080000000, 0x80000000, 0xFFF0000000000000, 0x80000000),
    # and not moved in 5.4 to 5.9
    (65536, 52, 48, 0xFFFF800010000000, 0x80000000, 0xFFFF000000010000, 0x80010000),
    # an oops of 6.10, LPA2: fff0000006705000 is 46705000
    (4096, 52, 52, 0xFFFF800080000000, 0x40000000, 0xFFF0000006705000, 0x46705000),
    # a randomised linear map: PHYS_OFFSET below zero
    (4096, 48, 48, 0xFFFF800080000000, -0x3BC0000000 & (1 << 64) - 1, 0xFFFF003C00000000, 0x40000000),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}-{case[5]:x}")
def test_linear_addresses(case):
    page_size, va_bits, va_actual, image, phys_offset, va, pa = case
    addresses = address_map(page_size, va_bits, va_actual, root_va=image, **{"NUMBER(PHYS_OFFSET)": hex(phys_offset)})
    found, known = addresses.physical(np.array([va, image + 0x1000], np.uint64))
    assert (found.tolist(), known.tolist()) == ([pa, 0x40001000], [True, True])


def test_kasan_tags_are_not_part_of_an_address():
    found, known = address_map().physical(np.array([0xF0FF000000002000], np.uint64))
    assert (found.tolist(), known.tolist()) == ([0x40002000], [True])


def test_user_and_vmalloc_addresses_are_not_known():
    _, known = address_map().physical(np.array([0, 0x7FFF00000000, 0xFFFFFDFFC0000000], np.uint64))
    assert not known.any()


@pytest.mark.parametrize(("page_size", "va_bits", "lpa2"), [(4096, 52, True), (16384, 52, True), (65536, 52, False)])
def test_which_kernels_use_lpa2(page_size, va_bits, lpa2):
    assert address_map(page_size, va_bits).lpa2 is lpa2
    assert address_map(page_size, va_bits, 48 if page_size != 16384 else 47).lpa2 is False


def test_64k_tables_keep_the_shape_of_the_configured_bits():
    assert address_map(65536, 52, 48).va_bits == 52
    assert address_map(4096, 52, 48).va_bits == 48


def test_nonsense_is_refused():
    with pytest.raises(FormatError):
        address_map(4096, 64)
    with pytest.raises(LayoutError, match="kimage_voffset"):
        address_map(**{"NUMBER(kimage_voffset)": None})
