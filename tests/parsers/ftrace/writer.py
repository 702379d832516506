"""Writes small trace.dat files, so that every variant of the container can be tested."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

import zstandard

PROBE = """name: mhp_online
ID: {id}
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:unsigned long __probe_ip;\toffset:8;\tsize:8;\tsigned:0;
\tfield:u64 start_pfn;\toffset:16;\tsize:8;\tsigned:0;
\tfield:s32 nid;\toffset:24;\tsize:4;\tsigned:1;
\tfield:__data_loc char[] zone_name;\toffset:28;\tsize:4;\tsigned:1;

print fmt: ""
"""
ONLINE_ID, NOISE_ID = 1500, 300
NOISE = PROBE.replace("mhp_online", "sched_switch").replace("__probe_ip", "prev")
FUNCTION = 0xFFFF800080261450
KALLSYMS = b"ffff800080260000 T before\nffff800080261450 T online_pages\nffff800080261800 T after\n"


@dataclass
class Writer:
    """One file; ``cpus`` are lists of (time, event id, payload) or of (time, None, gap) for what is lost."""

    version: int = 7
    order: str = "<"
    long_size: int = 8
    page_size: int = 4096
    compression: str = "none"
    instances: dict[str, list[list[tuple[int, int, bytes]]]] = field(default_factory=dict)
    missed: int | None = None
    cpu_stats: list[str] = field(default_factory=list)

    @property
    def data_offset(self) -> int:
        return 8 + self.long_size

    def online(self, time: int, pid: int, pfn: int, nid: int = 0, zone: bytes = b"Movable") -> tuple[int, int, bytes]:
        name = zone + b"\0"
        body = struct.pack(self.order + "HBBiQQiI", ONLINE_ID, 1, 0, pid, FUNCTION, pfn, nid, len(name) << 16 | 32)
        return time, ONLINE_ID, (body + name).ljust((len(body) + len(name) + 3) & ~3, b"\0")

    def noise(self, time: int) -> tuple[int, int, bytes]:
        return time, NOISE_ID, struct.pack(self.order + "HBBiQQiI", NOISE_ID, 0, 0, 7, 0, 0, 0, 32)

    def pack(self, code: str, *numbers: int) -> bytes:
        return struct.pack(self.order + code, *numbers)

    def record_head(self, code: int, delta: int) -> bytes:
        return self.pack("I", code << 27 | delta if self.order == ">" else delta << 5 | code)

    def pages(self, events: list[tuple[int, int, bytes]]) -> bytes:  # noqa: C901  (a ring buffer has many cases)
        """Ring-buffer pages of one CPU; wide steps of time are extended, some pages begin with a discarded record."""
        out, page, start, now = [], b"", 0, 0
        room = self.page_size - self.data_offset

        def close() -> None:
            flags = 0
            tail = b""
            if self.missed is not None and out:
                flags = 1 << 31 | 1 << 30
                tail = self.pack("Q" if self.long_size == 8 else "I", self.missed)
            commit = self.pack("Q" if self.long_size == 8 else "I", len(page) | flags)
            out.append((self.pack("Q", start) + commit + page + tail).ljust(self.page_size, b"\0")[: self.page_size])

        for time, _, payload in events:
            for _attempt in range(2):
                if not page:
                    start = now = time
                delta = time - now
                record = b""
                if delta >= 1 << 27:
                    record += self.record_head(30, delta & (1 << 27) - 1) + self.pack("I", delta >> 27)
                    delta = 0
                if len(out) % 3 == 2 and not page:
                    record += self.record_head(29, 1) + self.pack("I", 12) + bytes(8)
                if len(payload) <= 112:
                    record += self.record_head(len(payload) // 4, delta) + payload
                else:
                    record += self.record_head(0, delta) + self.pack("I", len(payload) + 4) + payload
                if len(page) + len(record) + 8 <= room:
                    break
                close()
                page = b""
            page += record
            now = time
        if page:
            close()
        return b"".join(out)

    def squeeze(self, data: bytes) -> bytes:
        return {"zlib": zlib.compress, "zstd": zstandard.ZstdCompressor().compress}[self.compression](data)

    def header_info(self) -> bytes:
        word = self.long_size
        page = (
            f"\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
            f"\tfield: local_t commit;\toffset:8;\tsize:{word};\tsigned:1;\n"
            f"\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
            f"\tfield: char data;\toffset:{8 + word};\tsize:{self.page_size - 8 - word};\tsigned:1;\n"
        ).encode()
        event = b"# compressed entry header\n"
        return b"".join(
            (b"header_page\0", self.pack("Q", len(page)), page, b"header_event\0", self.pack("Q", len(event)), event)
        )

    def formats(self) -> bytes:
        texts = [PROBE.format(id=ONLINE_ID).encode(), NOISE.format(id=NOISE_ID).encode()]
        events = b"".join(self.pack("Q", len(text)) + text for text in texts)
        return self.pack("I", 1) + b"mhp\0" + self.pack("I", len(texts)) + events

    def cmdlines(self) -> bytes:
        text = b"58 we ird-1 [00\n"
        return self.pack("Q", len(text)) + text

    def build(self) -> bytes:
        head = b"\x17\x08\x44tracing" + str(self.version).encode() + b"\0"
        head += bytes((self.order == ">", self.long_size)) + self.pack("I", self.page_size)
        return self.v6(head) if self.version == 6 else self.v7(head)

    def v6(self, out: bytes) -> bytes:
        out += self.header_info() + self.pack("I", 0) + self.formats()
        out += self.pack("I", len(KALLSYMS)) + KALLSYMS + self.pack("I", 0) + self.cmdlines()
        (top, *others) = self.instances.items()
        out += self.pack("I", len(top[1])) + b"options  \0"
        options = [(4, b"[mono] local\0")] + [(2, text.encode() + b"\0") for text in self.cpu_stats]
        size = sum(6 + len(data) for _, data in options) + sum(14 + len(name) + 1 for name, _ in others)
        table = len(out) + size + 2
        buffers, blobs, place = [], b"", table + 10 + 16 * len(top[1])
        for name, cpus in others:
            buffers.append((3, self.pack("Q", place) + name.encode() + b"\0"))
            place += 10 + 16 * len(cpus)
        tables = []
        for _, cpus in (top, *others):
            part = b"flyrecord\0"
            for events in cpus:
                pages = self.pages(events)
                part += self.pack("QQ", place + len(blobs), len(pages))
                blobs += pages
            tables.append(part)
        for number, data in options + buffers:
            out += self.pack("HI", number, len(data)) + data
        return out + self.pack("H", 0) + b"".join(tables) + blobs

    def section(self, number: int, data: bytes) -> bytes:
        if self.compression == "none" or number == 0:
            return self.pack("HHIQ", number, 0, 0, len(data)) + data
        body = self.squeeze(data)
        return self.pack("HHIQ", number, 1, 0, len(body) + 8) + self.pack("II", len(body), len(data)) + body

    def v7(self, out: bytes) -> bytes:
        out += self.compression.encode() + b"\x001\0"
        place = len(out) + 8
        body, options = b"", [(4, b"[mono] local\0"), (2**15, b"unknown")]
        options += [(2, text.encode() + b"\0") for text in self.cpu_stats]
        kallsyms = self.pack("I", len(KALLSYMS)) + KALLSYMS
        for number, data in (
            (16, self.header_info()),
            (17, self.pack("I", 0)),
            (18, self.formats()),
            (19, kallsyms),
            (21, self.cmdlines()),
        ):
            options.append((number, self.pack("Q", place + len(body))))
            body += self.section(number, data)
        for name, cpus in self.instances.items():
            at = place + len(body)
            blob, entries = b"", b""
            for cpu, events in enumerate(cpus):
                pages = self.pages(events)
                if self.compression != "none":
                    chunks = [pages[i : i + 3 * self.page_size] for i in range(0, len(pages), 3 * self.page_size)]
                    pages = self.pack("I", len(chunks))
                    for chunk in chunks:
                        small = self.squeeze(chunk)
                        pages += self.pack("II", len(small), len(chunk)) + small
                entries += self.pack("IQQ", cpu, at + 16 + len(blob), len(pages))
                blob += pages
            body += self.pack("HHIQ", 3, self.compression != "none", 0, len(blob)) + blob
            option = (
                self.pack("Q", at) + name.encode() + b"\0mono\0" + self.pack("II", self.page_size, len(cpus)) + entries
            )
            options.append((3, option))
        end = place + len(body)
        texts = b"".join(self.pack("HI", number, len(data)) + data for number, data in options)
        first = self.pack("HI", 0, 8)
        more = end + 16 + len(texts) + 14
        body += self.section(0, texts + first + self.pack("Q", more))
        body += self.section(0, self.pack("HI", 0, 8) + self.pack("Q", 0))
        return out + self.pack("Q", end) + body
