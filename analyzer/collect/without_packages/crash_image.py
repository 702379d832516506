"""The list of memory of the crash kernel that is loaded, by the standard library alone.

As `parsers.vmcore.crash_image` finds it.
"""

import struct

from analyzer.collect.without_packages.exports import Exports
from analyzer.collect.without_packages.kernel import UNIT, CannotReadError

CORE_HEADER = b"\x7fELF\2"
MAX_SEGMENTS = 16  # include/linux/kexec.h


class CrashImage(Exports):
    """A kernel whose loaded crash kernel is looked at."""

    def read_crash_image(self) -> None:
        """Keep struct kimage and, of the segments, the one that is an ELF header."""
        if "kexec_crash_image" not in self.symbols or self.types is None:
            return
        image = self.number(self.symbols["kexec_crash_image"])
        if not image:
            return
        size = self.sizeof("kexec_segment")
        at, length = (self.member("kexec_segment", name)[0] for name in ("mem", "memsz"))
        count = min(self.field(image, "kimage", "nr_segments"), MAX_SEGMENTS)
        rows = self.read(image + self.member("kimage", "segment")[0], count * size)
        for row in range(0, count * size, size):
            pa, room = (struct.unpack_from("<Q", rows, row + place)[0] for place in (at, length))
            try:
                head = self.unit(pa // UNIT, keep=False)[pa % UNIT :][:64]
            except CannotReadError:
                continue
            if head[:5] == CORE_HEADER and struct.unpack_from("<HH", head, 16) == (4, 183):
                first, number = struct.unpack_from("<Q", head, 32)[0], struct.unpack_from("<H", head, 56)[0]
                if 64 <= first <= room - 56 * number:
                    for one in range(pa // UNIT, (pa + first + 56 * number - 1) // UNIT + 1):
                        self.unit(one)
                return
