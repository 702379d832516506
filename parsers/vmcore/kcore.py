"""The running kernel's memory, ``/proc/kcore``: an ELF core of which nothing is where a file has it.

fs/proc/kcore.c (4.14 to 7.3).  Offsets are near 2**48 and the size says nothing, so the file is read by pread only.
RAM is listed in runs at linear addresses.  What the kernel will not read (offline, PageOffline, poisoned or faulting
pages) comes back as zeros and not as an error: a page of zeros is *missing* here until :attr:`KcoreMemory.vouch` says
that the kernel could read it.  The linear map may lack the kernel's data and bss (arm64 since 7.2, "Unmap kernel
data/bss entirely from the linear map"), so pages of the image are also read where it is mapped itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from parsers.errors import Diagnostic, FormatError, InputError
from parsers.mapping import U8, U64, Bool
from parsers.vmcore.addresses import MASK, AddressMap
from parsers.vmcore.memory import UNIT, ElfMemory, PhysicalMemory, Segment

__all__ = ["KcoreMemory", "image_segments", "is_kcore", "kcore_segments"]

_NO_PHYSICAL_ADDRESS = np.uint64(MASK)  # of vmalloc, modules and vmemmap, since 4.19 (464920104bf7)
_KERNEL = np.uint64(1 << 63)
_MAX_PA = 1 << 52


def is_kcore(loads: NDArray[np.void]) -> bool:
    """Whether PT_LOAD headers are those of /proc/kcore: kernel addresses, some or all without a physical one."""
    nowhere = loads["paddr"] == _NO_PHYSICAL_ADDRESS
    old = loads.size > 1 and not loads["paddr"].any()
    return bool((loads["vaddr"] >= _KERNEL).all() and (nowhere.any() or old))


def kcore_segments(loads: NDArray[np.void], addresses: AddressMap | None, path: str) -> list[Segment]:
    """The runs of RAM among PT_LOAD headers: those in the linear map, by arithmetic before 4.19, which gave 0.

    Raises InputError where the addresses are needed and not known, FormatError where no run is left.
    """
    if loads["paddr"].any():
        chosen = loads[(loads["paddr"] != _NO_PHYSICAL_ADDRESS) & (loads["paddr"] < _MAX_PA)]
        pa = chosen["paddr"]
    elif addresses is None:
        raise InputError("no physical addresses (before 4.19): give VMCOREINFO with --vmcoreinfo", path=path)
    else:
        va = loads["vaddr"].astype(np.uint64)
        linear = (va >= np.uint64(addresses.page_offset)) & (va <= np.uint64((addresses.linear_end - 1) & MASK))
        chosen = loads[linear]
        pa, _ = addresses.physical(va[linear])
    rows = zip(pa.tolist(), chosen["offset"].tolist(), chosen["filesz"].tolist(), strict=True)
    segments = [Segment(*row) for row in rows]
    if not segments:
        raise FormatError("lists no RAM", path=path)
    return segments


def image_segments(loads: NDArray[np.void], addresses: AddressMap | None) -> list[Segment]:
    """The kernel image among PT_LOAD headers, which lists it where it runs (KCORE_TEXT); none before 4.19."""
    if addresses is None:
        return []
    va, pa = loads["vaddr"].astype(np.uint64), loads["paddr"]
    linear = (va >= np.uint64(addresses.page_offset)) & (va <= np.uint64((addresses.linear_end - 1) & MASK))
    chosen = loads[~linear & (pa != 0) & (pa < _MAX_PA)]
    return [Segment(*row) for row in chosen[["paddr", "offset", "filesz"]].tolist()]


class KcoreMemory(ElfMemory):
    """RAM of the running kernel; pages of zeros are missing unless confirmed."""

    zeros_are_read = True

    def __init__(self, fileno: int, segments: Sequence[Segment], image: Sequence[Segment] = ()) -> None:
        super().__init__(fileno, segments)
        self._mapped_image = ElfMemory(fileno, image)
        self._turn = threading.Lock()
        """Held while the file is read: all readers of one open file share one buffer in the kernel, unlocked, and each
        would get what another has read (``file->private_data`` in read_kcore_iter(), fs/proc/kcore.c, 4.14 to 7.3)."""
        self.image = (0, 0)
        """Physical addresses of the kernel image, exclusive at the end: it is always read."""
        self.vouch: Callable[[U64], Bool] | None = None
        """Says of page frames of 4096 bytes whether the kernel read them; None while nothing is known of them."""

    def _pread(self, view: memoryview, offset: int) -> int:
        with self._turn:
            return super()._pread(view, offset)

    def read_into(self, units: U64, out: U8) -> Bool:
        present = super().read_into(units, out)
        self._distrust(units, out, present)
        return present

    def scan(self, pas: U64, room: U8) -> Iterator[tuple[slice, U8, Bool]]:
        if room.shape[1] != UNIT:
            yield from PhysicalMemory.scan(self, pas, room)
            return
        units = pas // np.uint64(UNIT)
        for piece, pages, present in super().scan(pas, room):
            self._distrust(units[piece], pages, present)
            yield piece, pages, present

    def _distrust(self, units: U64, data: U8, present: Bool) -> None:
        """Take away from ``present`` what is zeros, unless the kernel could read it."""
        blank = np.flatnonzero(present & (data.view("<u8")[:, 0] == 0))
        blank = blank[~data[blank].view("<u8").any(axis=1)]
        if blank.size:
            first, end = (np.uint64(pa // UNIT) for pa in self.image)
            real = (units[blank] >= first) & (units[blank] < end)
            if self.vouch is not None and not real.all():
                real[~real] = self.vouch(units[blank[~real]])
            again = np.empty((int(real.sum()), UNIT), dtype=np.uint8)
            super().read_into(units[blank][real], again)  # still zeros, or it was being filled
            data[blank[real]] = again
            present[blank[~real]] = False
            data[blank], found = self._of_image(units[blank], data[blank])
            present[blank] |= found

    def _of_image(self, units: U64, data: U8) -> tuple[U8, Bool]:
        """Pages, those of zeros as the image's own mapping shows them, and which of them it shows."""
        with self._turn:
            there, found = self._mapped_image.read_units(units)
        found &= there.any(axis=1) & ~data.any(axis=1)
        return np.where(found[:, None], there, data), found

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """None: what the kernel refuses to read is ordinary."""
        return ()

    @property
    def unvouched(self) -> PhysicalMemory:
        """The same memory, in which every page of zeros is missing: for those who vouch."""
        other = KcoreMemory(self._fd, [])
        other.image, other._mapped_image, other._turn = self.image, self._mapped_image, self._turn
        other._segments, other._first, other._count, other._offset = (
            self._segments,
            self._first,
            self._count,
            self._offset,
        )
        return other
