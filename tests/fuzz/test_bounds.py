"""Inputs that once took too long or too much memory, and lines stretched to find the next one."""

import random
import struct

import pytest
import zstandard

from tests.fuzz.invariants import hold
from tests.fuzz.mutate import grow, pile, stretch
from tests.fuzz.targets import FIXTURES, TARGETS

NEVER_ENDS = b"  10.000002 |   1)   bash-99     |         |  offline_pages() {\n"
GRAPH, TEXT = b"# tracer: function_graph\n", b"# tracer: nop\n#\n"
CONTEXT = b"  sh-58  [001] d....  2.225500: "
VALUE = CONTEXT + b"arch_add_memory: (arch_add_memory+0x0/0x68) start=0x0 size="
ADD = b"  sh-58  [001] d....  2.2255%02d: arch_add_memory: (arch_add_memory+0x0/0x68) start=0x0 size=0x80000000000\n"


def flattened_with_a_hole() -> bytes:
    """A flattened kdump of two pages whose bitmap, of half a gibibyte, no piece of it gives."""
    from tests.fuzz.seeds import expanded, kdumps

    plain = bytearray(expanded(kdumps()[1])[: 3 * 4096])
    place = 8 + 4 + 6 * 65 + 22 + 4 + 4 + 4
    plain[place : place + 4] = struct.pack("<I", 1 << 18)
    pieces = (
        struct.pack(">qq", 0, len(plain)) + plain + struct.pack(">qq", 1 << 40, 1) + b"x" + struct.pack(">qq", -1, -1)
    )
    return b"makedumpfile\0\0\0\0".ljust(4096, b"\0") + bytes(pieces)


def section_table_cut_off() -> bytes:
    """A core that ends before the array of section roots: all that a terabyte could hold is unknown."""
    packed = (FIXTURES / "vmcore/pmem-6.12-64k-namespaces.core.zst").read_bytes()
    return zstandard.ZstdDecompressor().decompress(packed)[:6_888_939]


def as_target(name: str, data: bytes) -> bytes:
    from tests.fuzz.seeds import squeezed

    return squeezed(data) if name == "kdump" else data


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("single", b"\n" * 200_000 + b"x"),
        ("single", b"[    0.000000] Linux version 6.12.117 (a@b)\n" * 20_000),
        ("trace", b"# tracer: function_graph\n" + NEVER_ENDS * 15_000),
        ("trace", GRAPH + b" 0)  a-1 => b-" + b") { 2768" * 125_000),
        ("trace", GRAPH + b" 0) |" + b"|/*" * 330_000),
        ("trace", TEXT + CONTEXT + b" EVENTS" * 140_000),
        ("trace", TEXT + CONTEXT + b"funcgraph_entry: " * 60_000),
        ("trace", TEXT + VALUE + b"f" * 16_000 + b"\n" + (VALUE + b"0x800000 a=1 b=2 c=3 d=4\n") * 8_000),
        ("trace", TEXT + (CONTEXT + b"arch_add_memory: (arch_add_memory+0x0/0x68) " + b"A" * 15_900 + b"\n") * 60),
        ("log", b"[    2.300000] Dumping ftrace buffer:\n[    2.400000] " + b"-" * 200_000),
        ("ptdump", b"0xffff000000000000-0xffff000040000000           1G PUD" * 18_000),
        ("baseline", b"1." * 400_000),
        ("replay", b"# tracer: nop\n" + b"".join(ADD % number for number in range(40))),
        ("kdump", flattened_with_a_hole),
        ("elf", section_table_cut_off),
    ],
    ids=[
        "blank lines",
        "thousands of boots",
        "calls that never end",
        "a switch of tasks without end",
        "columns without end",
        "losses on a line",
        "entries on a line",
        "one long value",
        "names without values",
        "a rule without end",
        "rows without ends",
        "dotted key",
        "8 TiB forty times",
        "bitmap of holes",
        "no section table",
    ],
)
def test_time_and_memory_are_bounded(name, data):
    hold(TARGETS[name], as_target(name, data() if callable(data) else data), twice=False)


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if not target.binary])
def test_stretched_lines(name):
    rng = random.Random(name)
    target = TARGETS[name]
    for larger in (stretch, stretch, pile, pile, grow):
        hold(target, larger(rng, rng.choice(target.seeds()), 200_000), twice=False)


@pytest.mark.parametrize("name", ["container", "archive", "single"])
def test_zeros_in_zstd(name):
    packed = zstandard.ZstdCompressor(level=1).compress(bytes(1 << 28))
    hold(TARGETS[name], (b"\0" if name == "archive" else b"") + packed, twice=False)
