"""Captures with a moment before and a moment after, and the operations between them: the proof of the forward model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FIXTURES = Path(__file__).parents[3] / "fixtures"
FOLDERS = (FIXTURES / "captures", FIXTURES / "whatif", FIXTURES)


@dataclass(frozen=True)
class Pair:
    """Two moments of one boot: directories in `FIXTURES`, or files of ``vmcore``."""

    boot: str
    before: str
    operations: tuple[str, ...]
    after: str
    answers: tuple[str, ...] = ()
    """What each operation comes to; all safe if empty."""
    release: str = ""
    """The release that the kernel behaves like, where its release string lies: a fix that was reverted."""

    @property
    def moments(self) -> tuple[Path, Path]:
        """Where the two were captured."""
        folder = next(one for one in FOLDERS if (one / self.boot / self.before).exists())
        return folder / self.boot / self.before, folder / self.boot / self.after

    def __str__(self) -> str:
        return f"{self.boot}:{self.before}>{self.after}"


def _offline(*numbers: int) -> tuple[str, ...]:
    return tuple(f"offline:memory{number}" for number in numbers)


def _online(*numbers: int) -> tuple[str, ...]:
    return tuple(f"online:memory{number}" for number in numbers)


def _add(*ranges: str) -> tuple[str, ...]:
    return tuple(f"add:{one}" for one in ranges)


DIMM = "0x80000000-0xa0000000"
THREE = ("0x80000000-0x82000000", "0x82000000-0x84000000", "0x84000000-0x88000000")
THREE_16K = ("0x80000000-0x81200000", "0x81200000-0x82400000", "0x82400000-0x83600000")
THREE_64K = ("0x80000000-0x81000000", "0x81000000-0x82000000", "0x82000000-0x84000000")
PAIRS: list[Pair] = [
    *(
        Pair(boot, *steps)
        for boot in ("dimm-6.12", "dimm-6.12-memmap-on-memory")
        for steps in (
            ("00-boot", (f"add:{DIMM}",), "01-dimm-added-offline"),
            ("01-dimm-added-offline", _online(16, 17, 18, 19), "02-dimm-online"),
            ("02-dimm-online", _offline(16, 17), "03-two-blocks-offline"),
            ("03-two-blocks-offline", (f"remove:{DIMM}",), "04-dimm-removed"),
            ("00-boot", (f"add:{DIMM}", f"remove:{DIMM}"), "04-dimm-removed"),
            ("02-dimm-online", (f"remove:{DIMM}",), "04-dimm-removed"),
            ("00-boot", (f"add:{DIMM}", *_online(16, 17, 18, 19), *_offline(16, 17)), "03-two-blocks-offline"),
        )
    ),
    Pair("dimm-6.1-4k-kaslr-blocks", "02-dimm-online", (f"remove:{DIMM}",), "04-dimm-removed"),
    Pair("kaslr-dimm-6.12-4k-rodatafull", "02-dimm-online", (f"remove:{DIMM}",), "04-dimm-removed"),
    Pair("dimm-6.12-16k", "02-dimm-online", ("remove:0xc0000000-0x100000000",), "04-dimm-removed"),
    Pair("fallback-6.12-4k", "02-dimm-online", ("remove:0x80000000-0xc0000000",), "04-dimm-removed"),
    Pair("dimm-7.3-4k-mom", "02-dimm-online", _offline(16, 17), "03-half-offline", ("refused", "refused")),
    Pair("dimm-7.3-4k-mom", "02-dimm-online", (f"remove:{DIMM}",), "03-half-offline", ("refused",)),
    Pair(
        "two-dimms-one-offline-6.12-4k-80",
        "01-both-there",
        ("remove:0x80000000-0x88000000",),
        "03-one-removed",
        ("breaks",),
    ),
    Pair("two-dimms-7.3-4k-80", "02-plug", ("remove:0x100000000-0x108000000",), "03-unplug", ("breaks",)),
    Pair("vmem-6.12-4k", "02-part-unplugged", tuple(f"remove:memory{n}" for n in (18, 17, 16)), "03-all-unplugged"),
    *(
        Pair(boot, *steps)
        for boot in ("kaslr-pmem-6.12-4k-a72", "pmem-6.12-fixed")
        for steps in (
            ("00-boot", _add(*THREE), "01-namespaces" if boot.startswith("kaslr") else "01-three-namespaces"),
            (
                "01-namespaces" if boot.startswith("kaslr") else "01-three-namespaces",
                ("remove:namespace0.1",),
                "02-one-removed",
            ),
            ("02-one-removed", ("remove:namespace0.2",), "03-second-removed"),
            ("00-boot", (*_add(*THREE), f"remove:{THREE[1]}", f"remove:{THREE[2]}"), "03-second-removed"),
        )
    ),
    *(
        Pair(boot, *steps)
        for boot, there in (("pmem-6.12-vuln", "01-three-namespaces"), ("pmem-5.10-4k", "01-namespaces"))
        for steps in (
            (
                "00-boot",
                _add(*THREE),
                there,
                ("safe", "breaks", "breaks"),
                "6.12.19" if boot == "pmem-6.12-vuln" else "",
            ),
            (there, ("remove:namespace0.1",), "02-one-removed", ("breaks",)),
        )
    ),
    Pair("pmem-5.10-4k", "02-one-removed", ("remove:namespace0.2",), "03-second-removed", ("breaks",)),
    Pair(
        "vmcore",
        "pmem-6.12-vuln-before.core.zst",
        ("remove:namespace0.1",),
        "pmem-6.12-vuln-after.core.zst",
        ("breaks",),
    ),
    Pair(
        "vmcore",
        "half-added-7.3-created.core.zst",
        ("remove:namespace0.0",),
        "half-added-7.3-destroyed.core.zst",
        ("breaks",),
    ),
    Pair(
        "vmcore",
        "half-added-7.3-destroyed.core.zst",
        ("add:0x80200000-0x88000000",),
        "half-added-7.3-destroyed.core.zst",
        ("refused",),
    ),
    Pair("selfhosted-7.3-4k", "02-online", ("offline:memory33",), "03-offline", ("refused",)),
    Pair("selfhosted-7.3-4k", "02-online", ("remove:0x108000000-0x110000000",), "03-offline", ("refused",)),
    Pair("pmem-6.12-16k", "00-boot", _add(*THREE_16K), "01-namespaces", ("safe", "breaks", "safe")),
    Pair("pmem-6.12-16k", "01-namespaces", ("remove:namespace0.0",), "02-one-removed", ("breaks",)),
    Pair("pmem-6.12-64k", "00-boot", _add(*THREE_64K), "01-namespaces", ("safe", "breaks", "breaks")),
    *(
        Pair(boot, "01-namespaces", ("remove:namespace0.1",), "02-one-removed", ("breaks",))
        for boot in ("pmem-6.12-64k", "pmem-6.12-64k-va52", "pmem-7.3-64k")
    ),
]
