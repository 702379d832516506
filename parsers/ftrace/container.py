"""The container of ``trace.dat``: versions 6 and 7, compressed or not.

Layouts: trace-cmd 3.x, Documentation/trace-cmd/trace-cmd.dat.v6.5.txt and .v7.5.txt, lib/trace-cmd/trace-input.c.
Every length in the file is checked against what is left of it before anything is read, and what
compressed parts grow to is bounded by the size of the file.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import field
from io import BytesIO
from typing import Any, BinaryIO, Protocol

import construct

from parsers.errors import Diagnostic, FormatError, MissingDependencyError
from parsers.ftrace.scan import Source
from parsers.records import dataclass

__all__ = ["Container", "CpuData", "Instance", "open_container"]

MAGIC = b"\x17\x08\x44tracing"
_GROWTH = 256
"""How many times larger than the file its decompressed contents may be in all, beyond the first 64 MiB."""
_MAX_PIECE = 1 << 29
_MAX_CPUS = 1 << 14
_MAX_SECTIONS = 4096

# Option ids of lib/trace-cmd/include/private/trace-cmd-private.h
_DONE, _CPUSTAT, _BUFFER, _TRACECLOCK, _UNAME, _OFFSET = 0, 2, 3, 4, 5, 7
_CPUCOUNT, _TIME_SHIFT, _GUEST, _TSC2NSEC = 8, 12, 13, 14
_HEADER_INFO, _FTRACE_EVENTS, _EVENT_FORMATS, _KALLSYMS, _PRINTK, _CMDLINES = range(16, 22)

c: Any = construct  # its declarations are not typed


class _Record(Protocol):
    """What a declaration reads: numbers by name."""

    def __getattr__(self, name: str) -> int: ...


class _Layout(Protocol):
    """A declaration of several numbers."""

    def parse(self, data: bytes) -> _Record: ...
    def sizeof(self) -> int: ...


class _Number(Protocol):
    """A declaration of one number."""

    def parse(self, data: bytes) -> int: ...
    def sizeof(self) -> int: ...


_FIXED_HEAD: _Layout = c.Struct("endian" / c.Int8ul, "long_size" / c.Int8ul)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """The declarations in a file's byte order."""

    u16: _Number
    u32: _Number
    u64: _Number
    section: _Layout
    option: _Layout
    chunk: _Layout
    range: _Layout
    cpu: _Layout


def _numbers(order: str) -> _Numbers:
    """The declarations for ``l``ittle or ``b``ig endian."""
    u16, u32, u64 = (getattr(c, f"Int{bits}u{order}") for bits in (16, 32, 64))
    return _Numbers(
        u16,
        u32,
        u64,
        section=c.Struct("id" / u16, "flags" / u16, "name" / u32, "size" / u64),
        option=c.Struct("id" / u16, "size" / u32),
        chunk=c.Struct("compressed" / u32, "raw" / u32),
        range=c.Struct("offset" / u64, "size" / u64),
        cpu=c.Struct("cpu" / u32, "offset" / u64, "size" / u64),
    )


_NUMBERS = {"little": _numbers("l"), "big": _numbers("b")}


@dataclass(frozen=True, slots=True)
class CpuData:
    """Where the ring-buffer pages of one CPU are in the file."""

    cpu: int
    offset: int
    size: int
    compressed: bool


@dataclass(frozen=True, slots=True)
class Instance:
    """One ring buffer: the top one (name empty) or an instance."""

    name: str
    clock: str
    page_size: int
    cpus: tuple[CpuData, ...]


@dataclass
class Container:
    """What a trace.dat holds, its ring-buffer data not yet read."""

    path: str
    version: int
    byteorder: str
    long_size: int
    page_size: int
    header_page: bytes = b""
    header_event: bytes = b""
    formats: list[tuple[str, bytes]] = field(default_factory=list)
    """(system, format text); ftrace's own events have the system ``ftrace``."""
    kallsyms: bytes = b""
    cmdlines: bytes = b""
    clock: str = ""
    uname: str = ""
    time_offset: int = 0
    cpu_stats: list[str] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    _reader: _Reader | None = field(default=None, repr=False)

    def pages(self, data: CpuData, at_most: int) -> Iterator[tuple[int, bytes]]:
        """The ring-buffer data of a CPU in parts of about ``at_most`` bytes: (offset in the data, bytes).

        A file that was cut short gives what is there and a diagnostic.
        """
        assert self._reader is not None  # noqa: S101  (set by open_container)
        return self._reader.pages(self, data, at_most)


@dataclass
class _Reader:
    """Bounded reading from a stream."""

    path: str
    stream: BinaryIO
    size: int
    numbers: _Numbers = _NUMBERS["little"]
    algorithm: str = "none"
    budget: int = 0

    def within(self, data: bytes) -> _Reader:
        """A reader of a part that has been read."""
        return _Reader(self.path, BytesIO(data), len(data), self.numbers)

    def fail(self, message: str, offset: int | None = None) -> FormatError:
        return FormatError(message, path=self.path, offset=self.stream.tell() if offset is None else offset)

    def read(self, count: int, what: str) -> bytes:
        """``count`` bytes of ``what``; FormatError if the file has not that many."""
        at = self.stream.tell()
        if count > self.size - at:
            raise self.fail(f"{what}: {count} bytes are announced, {max(self.size - at, 0)} are left", at)
        return self.stream.read(count)

    def seek(self, offset: int, what: str) -> None:
        if not 0 <= offset <= self.size:
            raise self.fail(f"{what} is said to be at {offset:#x}, beyond the end of the file ({self.size:#x})", 0)
        self.stream.seek(offset)

    def number(self, layout: _Number, what: str) -> int:
        return layout.parse(self.read(layout.sizeof(), what))

    def record(self, layout: _Layout, what: str) -> _Record:
        return layout.parse(self.read(layout.sizeof(), what))

    def string(self, what: str, at_most: int = 4096) -> str:
        """A NUL-terminated string."""
        at = self.stream.tell()
        raw = self.stream.read(min(at_most, self.size - at))
        end = raw.find(b"\0")
        if end < 0:
            raise self.fail(f"{what} does not end", at)
        self.stream.seek(at + end + 1)
        return raw[:end].decode(errors="replace")

    def counted(self, layout: _Number, what: str) -> bytes:
        """Bytes after their number."""
        return self.read(self.number(layout, what), what)

    def section(self, what: str) -> tuple[int, bytes]:
        """(id, contents) of the version 7 section here."""
        head = self.record(self.numbers.section, what)
        if head.flags & 1:
            return head.id, self.chunk(what)
        return head.id, self.read(head.size, what)

    def chunk(self, what: str) -> bytes:
        """A compressed piece: its sizes and its bytes."""
        at = self.stream.tell()
        sizes = self.record(self.numbers.chunk, what)
        self.budget -= sizes.raw
        if self.budget < 0 or sizes.raw > _MAX_PIECE:
            raise self.fail(f"{what} would grow to {sizes.raw} bytes, out of all proportion to the file", at)
        raw = self.decompress(self.read(sizes.compressed, what), sizes.raw, at)
        if len(raw) != sizes.raw:
            raise self.fail(f"{what} has {len(raw)} bytes decompressed, {sizes.raw} are announced", at)
        return raw

    def decompress(self, data: bytes, size: int, at: int) -> bytes:
        try:
            if self.algorithm == "zlib":
                return zlib.decompressobj().decompress(data, max(size, 1))
            if self.algorithm == "zstd":
                return _unzstd(data, max(size, 1))
        except ImportError as error:
            message = "compressed with zstd: install zstandard, or `trace-cmd convert --compression none`"
            raise MissingDependencyError(message, path=self.path) from error
        except Exception as error:
            raise self.fail(f"does not decompress with {self.algorithm}: {error}", at) from error
        raise self.fail(f"compressed with {self.algorithm!r}, which is not known", at)

    def pages(self, container: Container, data: CpuData, at_most: int) -> Iterator[tuple[int, bytes]]:
        what = f"data of CPU {data.cpu}"
        if not data.size:
            return
        if data.compressed:
            yield from self._chunks(data, at_most, what)
            return
        offset, end = data.offset, data.offset + data.size
        if end > self.size:
            message = f"{what} ends at {end:#x}, beyond the end of the file: it was cut short"
            container.diagnostics.append(Diagnostic(message, path=self.path, offset=self.size))
            end = self.size
        while offset < end:
            self.stream.seek(offset)
            part = self.stream.read(min(at_most, end - offset))
            yield offset, part
            offset += len(part)

    def _chunks(self, data: CpuData, at_most: int, what: str) -> Iterator[tuple[int, bytes]]:
        self.seek(data.offset, what)
        count = self.number(self.numbers.u32, what)
        position = self.stream.tell()
        done, held, parts = 0, 0, []
        for _ in range(count):
            self.stream.seek(position)
            part = self.chunk(what)
            position = self.stream.tell()
            parts.append(part)
            held += len(part)
            if held >= at_most:
                yield done, b"".join(parts)
                done, held, parts = done + held, 0, []
        if parts:
            yield done, b"".join(parts)


def _unzstd(data: bytes, size: int) -> bytes:
    import zstandard  # noqa: PLC0415  (only for files that need it)

    with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data) as stream:
        return stream.read(size)


def open_container(source: Source, stream: BinaryIO) -> Container:
    """Read everything of a trace.dat but the ring buffers; FormatError if it is damaged."""
    reader = _Reader(source.path, stream, source.size())
    reader.budget = (64 << 20) + _GROWTH * reader.size
    if reader.read(len(MAGIC), "head") != MAGIC:
        raise reader.fail("no trace.dat: it does not begin with 17 08 44 'tracing'", 0)
    version = reader.string("version", 16)
    if version not in ("6", "7"):
        raise reader.fail(f"trace.dat version {version!r}; 6 and 7 are known", len(MAGIC))
    head = reader.record(_FIXED_HEAD, "head")
    if head.endian > 1 or head.long_size not in (4, 8):
        raise reader.fail(f"byte order {head.endian}, long of {head.long_size} bytes: no such machine", len(MAGIC) + 2)
    byteorder = "big" if head.endian else "little"
    reader.numbers = _NUMBERS[byteorder]
    page_size = reader.number(reader.numbers.u32, "page size")
    container = Container(source.path, int(version), byteorder, head.long_size, page_size, _reader=reader)
    (_read_v7 if version == "7" else _read_v6)(reader, container)
    return container


def _read_v6(reader: _Reader, container: Container) -> None:
    numbers = reader.numbers
    _read_header_info(reader, container)
    _read_ftrace_formats(reader, container)
    _read_event_formats(reader, container)
    container.kallsyms = reader.counted(numbers.u32, "kallsyms")
    reader.counted(numbers.u32, "printk formats")
    container.cmdlines = reader.counted(numbers.u64, "command lines")
    cpus = reader.number(numbers.u32, "number of CPUs")
    options: list[tuple[int, bytes]] = []
    _read_v6_buffer(reader, container, cpus, "", options)
    for number, data in options:
        _take_option(reader, container, number, data)
    for number, data in options:
        if number == _BUFFER and len(data) > 8:
            reader.seek(numbers.u64.parse(data), "instance")
            name = data[8:].split(b"\0", 1)[0].decode(errors="replace")
            _read_v6_buffer(reader, container, cpus, name, [])


def _read_v6_buffer(
    reader: _Reader, container: Container, cpus: int, name: str, options: list[tuple[int, bytes]]
) -> None:
    """The options and where the CPUs' data are; ``options`` is filled."""
    if cpus > _MAX_CPUS:
        raise reader.fail(f"{cpus} CPUs")
    tag = reader.read(10, "options")
    if tag == b"options  \0":
        while number := reader.number(reader.numbers.u16, "option"):
            options.append((number, reader.counted(reader.numbers.u32, f"option {number}")))
        tag = reader.read(10, "data")
    if tag == b"latency  \0":
        raise reader.fail("a latency trace, whose data is text: save it with `trace-cmd report`")
    if tag != b"flyrecord\0":
        raise reader.fail(f"{tag!r} found where 'flyrecord' is expected")
    ranges = [reader.record(reader.numbers.range, f"data of CPU {cpu}") for cpu in range(cpus)]
    data = tuple(CpuData(cpu, part.offset, part.size, compressed=False) for cpu, part in enumerate(ranges))
    container.instances.append(Instance(name, "", container.page_size, data))


def _read_v7(reader: _Reader, container: Container) -> None:
    reader.algorithm = reader.string("compression", 64)
    reader.string("version of the compression", 64)
    offset = reader.number(reader.numbers.u64, "options")
    options: list[tuple[int, bytes]] = []
    seen: set[int] = set()
    while offset:
        if offset in seen or len(seen) > _MAX_SECTIONS:
            raise reader.fail("the option sections form a circle", offset)
        seen.add(offset)
        reader.seek(offset, "options")
        _, data = reader.section("options")
        offset = _split_options(reader, data, options)
    for number, data in options:
        _take_option(reader, container, number, data)
    sections = {
        _HEADER_INFO: _read_header_info,
        _FTRACE_EVENTS: _read_ftrace_formats,
        _EVENT_FORMATS: _read_event_formats,
    }
    for number, data in options:
        if _HEADER_INFO <= number <= _CMDLINES and len(data) >= 8:
            reader.seek(reader.numbers.u64.parse(data), f"section {number}")
            _, body = reader.section(f"section {number}")
            part = reader.within(body)
            if number in sections:
                sections[number](part, container)
            elif number == _KALLSYMS:
                container.kallsyms = part.counted(reader.numbers.u32, "kallsyms")
            elif number == _CMDLINES:
                container.cmdlines = part.counted(reader.numbers.u64, "command lines")
        elif number == _BUFFER:
            container.instances.append(_read_v7_buffer(reader, data))


def _split_options(reader: _Reader, data: bytes, options: list[tuple[int, bytes]]) -> int:
    """Append the options of a section; where the next section is, 0 at the end."""
    position, layout = 0, reader.numbers.option
    while position + layout.sizeof() <= len(data):
        head = layout.parse(data[position : position + layout.sizeof()])
        position += layout.sizeof()
        value = data[position : position + head.size]
        if len(value) < head.size:
            raise reader.fail(f"option {head.id} of {head.size} bytes does not fit into its section")
        position += head.size
        if head.id == _DONE:
            return int(reader.numbers.u64.parse(value)) if len(value) >= 8 else 0
        options.append((head.id, value))
    return 0


def _read_v7_buffer(reader: _Reader, data: bytes) -> Instance:
    part = reader.within(data)
    numbers = reader.numbers
    offset = part.number(numbers.u64, "buffer")
    name, clock = part.string("name of a buffer"), part.string("clock of a buffer")
    page_size, cpus = part.number(numbers.u32, "buffer"), part.number(numbers.u32, "buffer")
    if cpus > _MAX_CPUS:
        raise reader.fail(f"{cpus} CPUs", offset)
    where = [part.record(numbers.cpu, "data of a CPU") for _ in range(cpus)]
    reader.seek(offset, f"buffer {name!r}")
    compressed = bool(reader.record(numbers.section, "buffer").flags & 1)
    return Instance(name, clock, page_size, tuple(CpuData(w.cpu, w.offset, w.size, compressed) for w in where))


def _take_option(reader: _Reader, container: Container, number: int, data: bytes) -> None:
    text = data.split(b"\0", 1)[0].decode(errors="replace")
    if number == _CPUSTAT:
        container.cpu_stats.append(text)
    elif number == _UNAME:
        container.uname = text
    elif number == _TRACECLOCK:
        container.clock = text.partition("[")[2].partition("]")[0]
    elif number == _OFFSET:
        container.time_offset = int(text, 0) if text.lstrip("-").isdigit() or text.startswith("0x") else 0
    elif number in (_TIME_SHIFT, _TSC2NSEC):
        message = "times of a guest and its host are not brought together: they stay as they were recorded"
        container.diagnostics.append(Diagnostic(message, path=reader.path))


def _read_header_info(reader: _Reader, container: Container) -> None:
    for name in ("header_page", "header_event"):
        if reader.string(name, 32) != name:
            raise reader.fail(f"{name} is missing")
        setattr(container, name, reader.counted(reader.numbers.u64, name))


def _read_ftrace_formats(reader: _Reader, container: Container) -> None:
    for _ in range(reader.number(reader.numbers.u32, "number of ftrace events")):
        container.formats.append(("ftrace", reader.counted(reader.numbers.u64, "format of an ftrace event")))


def _read_event_formats(reader: _Reader, container: Container) -> None:
    for _ in range(reader.number(reader.numbers.u32, "number of event systems")):
        system = reader.string("name of an event system")
        for _ in range(reader.number(reader.numbers.u32, f"number of events of {system}")):
            container.formats.append((system, reader.counted(reader.numbers.u64, f"format of an event of {system}")))
