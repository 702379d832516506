"""What is fuzzed: one row a reader, with its seeds and how much of a run it may take."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import re
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.cases import case

__all__ = ["CORPUS", "TARGETS", "Target"]

FIXTURES = Path(__file__).parents[2] / "fixtures"
CORPUS = FIXTURES / "fuzz"
_WORDS = re.compile(rb"[^\s]{2,40}")


@dataclass(frozen=True)
class Target:
    """A reader of bytes.  It raises PtauditError or returns what was read."""

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], tuple[bytes, ...]]
    short: int = 250
    """Mutations in the short run."""
    limit: int = 1 << 16
    """Longest input of the search; lines are repeated to a megabyte besides."""
    binary: bool = False
    """Lines and offsets of diagnostics are not places in the input."""

    def inputs(self) -> tuple[bytes, ...]:
        """Seeds, and the kept corpus."""
        return (*self.seeds(), *(path.read_bytes() for path in self.kept()))

    def kept(self) -> list[Path]:
        """Inputs that once found something or reach code that no seed reaches."""
        return sorted((CORPUS / self.name).glob("*"))

    def words(self) -> tuple[bytes, ...]:
        """Pieces of the seeds."""
        found: dict[bytes, None] = {}
        for seed in self.seeds():
            for line in seed[: 1 << 16].split(b"\n")[:400]:
                found[line[:200]] = None
                found.update(dict.fromkeys(_WORDS.findall(line[:400])))
        return tuple(found)[:4000]


def files(*patterns: str, size: int = 1 << 15) -> Callable[[], tuple[bytes, ...]]:
    """The beginnings of fixtures as seeds, each content once."""

    @cache
    def read() -> tuple[bytes, ...]:
        found = (path for pattern in patterns for path in sorted(FIXTURES.glob(pattern)) if path.is_file())
        contents = (lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes() for path in found)
        return tuple(dict.fromkeys(content[:size] for content in contents))

    return read


def made(name: str) -> Callable[[], tuple[bytes, ...]]:
    """Seeds of `tests.fuzz.seeds`."""
    return lambda: getattr(import_module("tests.fuzz.seeds"), name)()  # noqa: PLW0108  imported late


def both(*several: Callable[[], tuple[bytes, ...]]) -> Callable[[], tuple[bytes, ...]]:
    return lambda: tuple(dict.fromkeys(seed for seeds in several for seed in seeds()))


def text(module: str, function: str) -> Callable[[bytes], object]:
    """A parser of bytes and a path, imported when it is first used (after atheris has hooked the import)."""
    return lambda data: getattr(import_module(module), function)(data, "input")


@cache
def scratch() -> Path:
    """A directory of this process for readers that want a file."""
    folder = tempfile.TemporaryDirectory(prefix="ptaudit-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    scratch.folder = folder  # type: ignore[attr-defined]  removed with the process
    return Path(folder.name)


def as_file(data: bytes) -> Path:
    path = scratch() / f"input-{os.getpid()}"
    path.write_bytes(data)
    return path


# Texts ----------------------------------------------------------------------------------------------------------------


def ptdump(data: bytes) -> object:
    from parsers import ptdump

    ptdump.looks_like(data[:4096])
    dump = ptdump.parse(data, "input")
    return dump, [dump.quote(row) for row in range(0, len(dump), max(len(dump) // 8, 1))]


def kconfig(data: bytes) -> object:
    from parsers.kconfig import parse_kconfig

    config = parse_kconfig(data, "input")
    return config, config.page_size, config.va_bits


def dmesg(data: bytes) -> object:
    from parsers.dmesg import parse_dmesg

    return parse_dmesg(data, "input")


def oops(data: bytes) -> object:
    from parsers.oops import find_reports

    found = find_reports(data, "input")
    return found, [(report.function, report.esr and (report.esr.fault, report.esr.level)) for report in found.reports]


def sysfs(data: bytes) -> object:
    """A tree of sysfs files: ``path:content`` a line."""
    from parsers.hugepages import parse_hugepages_tree
    from parsers.memory_blocks import parse_memory_blocks_tree

    pairs = (line.partition(b":") for line in data.split(b"\n"))
    tree = {name.decode("utf-8", "surrogateescape"): value + b"\n" for name, _, value in pairs}
    parse = parse_hugepages_tree if b"hugepages-" in data[:200] else parse_memory_blocks_tree
    return parse(tree, "input")


def trace(data: bytes) -> object:
    from parsers import ftrace

    ftrace.looks_like(data[: 1 << 16])
    read = ftrace.read(data, path="input")
    rows = range(0, len(read.events), max(len(read.events) // 8, 1))
    return read, [(read.quote(row), read.describe(row)) for row in rows]


def replay(data: bytes) -> object:
    """A trace through the replay and the rules of traces."""
    from parsers import ftrace
    from rules.model.captured import Captured

    return verdicts(Captured(trace=ftrace.read(data, path="input")))


def baseline(data: bytes) -> object:
    from analyzer.baseline import read_baseline

    return read_baseline(as_file(data)).entries


# Crash dumps ----------------------------------------------------------------------------------------------------------


def vmcore(data: bytes) -> object:
    """A dump, walked and read like any other."""
    from parsers.vmcore.extract import extract

    return extracted(extract(as_file(data)))


def extracted(facts: Any) -> object:
    return facts.walk, facts.printed, facts.sections, facts.blocks, facts.zones, facts.texts.dmesg, facts.diagnostics


def kdump(data: bytes) -> object:
    from tests.fuzz.seeds import expanded

    return vmcore(expanded(data))


def btf(data: bytes) -> object:
    from parsers.vmcore.btf import Btf, BtfKind

    types = Btf(data, "input")
    found: list[object] = []
    for name in ("mem_section", "zone_type", "u64", "bits", "wide"):
        found += [types.find(name, *BtfKind), types.size(name)]
        found += [types.member(name, member) for member in ("usage", "section_mem_map", "low", "a.b")]
    return [*found, *(types.enumerator(name) for name in ("ZONE_DMA", "ZONE_NORMAL", "WIDE_ONE"))]


def in_memory(**vmcoreinfo: object) -> Callable[[bytes], Any]:
    """A dump whose memory holds the input in the kernel image."""

    @cache
    def raw() -> Any:
        from parsers.vmcore.opening import open_dump
        from tests.fuzz.seeds import core, tables

        return open_dump(as_file(core(tables(), **vmcoreinfo)))

    def dump(data: bytes) -> Any:
        from parsers.vmcore.dump import Dump
        from tests.fuzz.seeds import OVERLAY, tables
        from tests.parsers.vmcore.cores import PageMemory

        pages = dict(tables().memory.pages)
        for at in range(0, min(len(data), 1 << 16), 4096):
            pages[(OVERLAY + at) // 4096] = data[at : at + 4096].ljust(4096, b"\0")
        return Dump(raw(), memory=PageMemory(pages))

    return dump


def log_reader(layout: str) -> Callable[[bytes], object]:
    @cache
    def opener() -> Callable[[bytes], Any]:
        return in_memory(**getattr(import_module("tests.fuzz.seeds"), layout))

    def run(data: bytes) -> object:
        from parsers.vmcore.printk import read_dmesg

        dump = opener()(data)
        return dump.attempt("kernel log", lambda: read_dmesg(dump)), dump.diagnostics

    return run


def kallsyms(data: bytes) -> object:
    dump = _kallsyms()(data)
    return [dump.symbol(name) for name in ("_stext", "mem_section", "nothing")], dump.diagnostics


@cache
def _kallsyms() -> Callable[[bytes], Any]:
    from tests.fuzz.seeds import IMAGE, SYMBOLS

    return in_memory(**{name: f"{IMAGE + at:x}" for name, at in SYMBOLS.items()})


def system_map(data: bytes) -> object:
    from parsers.vmcore.kallsyms import system_map
    from parsers.vmcoreinfo import parse_vmcoreinfo

    known = parse_vmcoreinfo(b"OSRELEASE=6\nPAGESIZE=4096\nSYMBOL(_stext)=ffff800080010000\nKERNELOFFSET=0\n", "")
    address = system_map(data, known, "input")
    return [address(name) for name in ("_stext", "_end", "mem_section")]


def system_maps() -> tuple[bytes, ...]:
    rows = ((0xFFFF800080010000, "T _stext"), (0xFFFF800082000000, "D mem_section"), (0xFFFF800083000000, "B _end"))
    return ("".join(f"{address:016x} {name}\n" for address, name in rows).encode(),)


# The whole audit ------------------------------------------------------------------------------------------------------


def verdicts(captured: Any) -> object:
    from rules.engine import Outcome, builtin_rules, run
    from rules.model.captured import build_facts

    said = run(builtin_rules(), build_facts(captured))
    failed = [f"{one.rule.code}: {one.reason}" for one in said if one.outcome is Outcome.ERROR]
    if failed:
        raise AssertionError("rules that fail: " + "; ".join(failed))
    return [(one.rule.code, str(one.outcome), one.reason, [each.fingerprint for each in one.findings]) for one in said]


_SEPARATOR = re.compile(rb"^@@ ([a-z][a-z0-9_./]{0,80})\n", re.MULTILINE)


def capture(data: bytes) -> object:
    """A capture directory, ``@@ name`` before each file, audited and reported in every format."""
    from analyzer.audit import audit
    from analyzer.sources.read import Request
    from rules.engine import Outcome

    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        parts = _SEPARATOR.split(data)
        for name, content in zip(parts[1::2], parts[2::2], strict=True):
            path = Path(folder, *(part for part in name.decode().split("/") if part.strip(".")))
            if not path.exists() and all(not one.is_file() for one in path.parents) and not path.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        (root := scratch() / "capture").unlink(missing_ok=True)
        root.symlink_to(folder)
        report = audit(Request((root,)))
        failed = [f"{one.rule.code}: {one.reason}" for one in report.verdicts if one.outcome is Outcome.ERROR]
        if failed:
            raise AssertionError("rules that fail: " + "; ".join(failed))
        texts = [import_module(f"analyzer.reports.{form}").render(report, verbose=True) for form in ("text", "sarif")]
        for form in ("json", "html", "prometheus"):  # with the time of the audit in them
            import_module(f"analyzer.reports.{form}").render(report, verbose=True).encode("utf-8", "backslashreplace")
    return texts


@cache
def captures() -> tuple[bytes, ...]:
    homes = ("captures/pmem-6.12-vuln/02-one-removed", "captures/vmem-6.12-4k", "captures/hvo-6.1-4k")
    homes += ("captures/dimm-6.12-64k",)
    found = []
    for home in (*(FIXTURES / one for one in homes), case("MOM-14/fires"), case("TRC-06/fires")):
        leaves = sorted({path.parent for path in home.rglob("*") if path.is_file()})[-1:]
        for leaf in leaves:
            contents = [
                (path, path.read_bytes()) for path in sorted(leaf.iterdir()) if path.suffix not in (".xz", ".gz")
            ]
            parts = [b"@@ %b\n" % path.name.encode() + content[:20000] for path, content in contents if path.is_file()]
            found.append(b"".join(parts))
    return tuple(found)


def single(data: bytes) -> object:
    """One file of unknown kind."""
    from analyzer.sources.read import Request, read_sources

    read = read_sources(Request((as_file(data),)))
    return [(one.kind, len(one.diagnostics)) for one in read.sources]


def several(data: bytes) -> object:
    """A text that holds several kinds of evidence: each part has its lines where the text has them."""
    from parsers.parts import parts_of
    from parsers.transport import carried

    lines = carried(data).split(b"\n")
    parts = parts_of(b"\n".join(lines))
    for part in parts:
        own = part.data.split(b"\n")
        if any(line not in (b"", lines[at]) for at, line in enumerate(own)):
            raise AssertionError(f"{part.kind.name} has a line that is not there in the text")
        if part.data.strip() and part.line - 1 != next(at for at, line in enumerate(own) if line.strip()):
            raise AssertionError(f"{part.kind.name} does not begin on line {part.line}")
    return [(part.kind.name, part.line) for part in parts], single(data)


@cache
def mixed() -> tuple[bytes, ...]:
    """Terminal sessions, support files and mails of several kinds of evidence."""
    home = FIXTURES / "captures/pmem-6.12-vuln/02-one-removed"
    names = ("uname", "iomem", "memory_blocks", "zoneinfo", "meminfo", "kernel_page_tables", "dmesg", "cmdline")
    texts = {name: b"".join((home / name).read_bytes()[:1500].splitlines(keepends=True)[:-1]) for name in names}
    texts |= {name: (home / name).read_bytes() for name in ("uname", "cmdline")}
    session = b"".join(b"root@host:~# cat /proc/%b\n%b" % (name.encode(), text) for name, text in texts.items())
    support = b"".join(b"*** /proc/%b\n%b\n" % (name.encode(), text) for name, text in texts.items())
    android = b"".join(b"------ %b (cat /proc/%b) ------\n%b" % (n.encode(), n.encode(), t) for n, t in texts.items())
    mail = b"Subject: oops\n\nHello,\n" + b"\n\nand\n\n".join(texts[name] for name in ("dmesg", "iomem", "zoneinfo"))
    quoted = b"\n".join(b"> " + line for line in mail.split(b"\n"))
    return session, support, android, mail, quoted, b"".join(texts.values())


def archive(data: bytes) -> object:
    """An archive as a source, and all that is in it, whether it has a name that says something or not."""
    from analyzer.sources.archive import read_archive
    from analyzer.sources.read import Request, read_sources
    from tests.fuzz.seeds import packed

    path = as_file(packed(data))
    found = read_archive(path, lambda _: True)
    read = read_sources(Request((path,)))
    return [(one.name, one.data) for one in found.members], found.notes, [(one.kind, one.path) for one in read.sources]


def container(data: bytes) -> object:
    """A compressed dump or vmlinux, before anything in it is read."""
    from analyzer.sources.sniff import is_vmcore
    from parsers.vmcore.container import open_plain

    with open_plain(as_file(data)) as plain:
        return is_vmcore(data), plain.read(1 << 16), plain.seek(0, os.SEEK_END)


def containers() -> tuple[bytes, ...]:
    from tests.fuzz.seeds import PACKERS, cores

    return (*(pack(cores()[0][:20000]) for pack in PACKERS), PACKERS[3](bytes(1 << 20)) + PACKERS[3](b"two frames"))


def vmlinux(data: bytes) -> object:
    from analyzer.sources.crashdump import symbols_of

    return sorted(symbols_of(as_file(data)))


def bundles(data: bytes) -> object:
    """A list of bundles of a fleet; none of them is anywhere else."""
    from analyzer.fleet.find import find_bundles
    from analyzer.fleet.unit import audit_bundle

    path = as_file(data.replace(b"/", b"").replace(b"..", b""))
    with contextlib.chdir(path.parent):
        found = list(find_bundles((f"@{path}",)))
        results = [audit_bundle(one.path, "") for one in found[:8] if one.path != str(path)]
    if any(one["status"] == "crashed" for one in results):
        raise AssertionError(results)
    return found, [one["error"] for one in results]


def addresses(data: bytes) -> object:
    """What a person types where an address is expected."""
    from analyzer.where.address import parse_address

    return parse_address(data.decode("utf-8", "surrogateescape"))


def log(data: bytes) -> object:
    """A kernel log as events of hotplug, and the ring buffer that was dumped into it."""
    from parsers import ftrace

    return ftrace.read(data, path="input")


def kinds() -> tuple[bytes, ...]:
    """The first kilobytes of every kind of file, packed ones too."""
    import zstandard

    some = files(
        "captures/pmem-6.12-vuln/02-one-removed/*", "ftrace/pmem.trace", "host/lsmem/*", "oops/*.txt", size=1500
    )()
    packed = (gzip.compress(some[1]), lzma.compress(some[0]), zstandard.ZstdCompressor().compress(some[2]))
    from tests.fuzz.seeds import cores

    return (*some, *packed, gzip.compress(cores()[0]), zstandard.ZstdCompressor().compress(cores()[0]), cores()[0])


_CORE = FIXTURES / "vmcore" / "pmem-6.12-vuln-after.core.zst"


@cache
def _plain_core() -> Path:
    """The core, unpacked once."""
    import zstandard

    path = scratch() / "plain.core"
    with _CORE.open("rb") as packed, path.open("wb") as plain:
        zstandard.ZstdDecompressor().copy_stream(packed, plain)
    return path


@cache
def _small_core() -> Path:
    """A core of a few pages: page tables and nothing else."""
    from tests.fuzz.seeds import cores

    path = scratch() / "small.core"
    path.write_bytes(cores()[0])
    return path


@cache
def _core() -> Any:
    from parsers.vmcore.opening import open_dump

    return open_dump(_plain_core())


def core(data: bytes) -> object:
    """A small core with words changed: rows of (page, word, value), audited with every rule."""
    from parsers.vmcore.extract import extract_facts
    from rules.model.captured import Captured
    from tests.rules.patched import Patched

    raw = _core()
    starts, ends = raw.memory.extents
    words = {}
    for page, word, value in struct.iter_unpack("<IHQ", data[: len(data) // 14 * 14][: 14 * 64]):
        extent = page % len(starts)
        pages = int(ends[extent] - starts[extent]) // 4096
        words[int(starts[extent]) + (page // len(starts)) % pages * 4096 + word % 512 * 8] = value
    facts = extract_facts(raw, memory=Patched(raw.memory, words, {}, ()))
    return extracted(facts), verdicts(Captured(vmcore=facts))


def core_patches() -> tuple[bytes, ...]:
    return (b"", struct.pack("<IHQ", 3, 5, 2**64 - 1), struct.pack("<IHQIHQ", 40, 1, 0, 900, 77, 0x68000048000701))


_BESIDE = ("captures/pmem-6.12-vuln/02-one-removed", "captures/pmem-6.12-64k-va52/02-one-removed")
"""Captures that VMCOREINFO goes beside: of 4K pages and 48 bits, of 64K pages and 52 bits."""


def beside(data: bytes) -> object:
    """VMCOREINFO beside the other files of a capture, audited."""
    home = FIXTURES / _BESIDE[b"PAGESIZE=65536" in data]
    names = ("kernel_page_tables", "iomem", "memory_blocks", "zoneinfo", "meminfo")
    parts = [b"@@ %b\n" % name.encode() + (home / name).read_bytes() for name in names if (home / name).is_file()]
    return capture(b"".join([*parts, b"@@ vmcoreinfo\n", _SEPARATOR.sub(b"", data)]))


def described(dump: Callable[[], Path]) -> Callable[[bytes], object]:
    """VMCOREINFO of a dump, which is walked by it and audited."""

    def run(data: bytes) -> object:
        from parsers.vmcore.extract import extract_facts
        from parsers.vmcore.opening import open_dump
        from rules.model.captured import Captured

        facts = extract_facts(open_dump(dump(), vmcoreinfo=as_file(data)))
        return extracted(facts), verdicts(Captured(vmcore=facts))

    return run


@cache
def descriptions() -> tuple[bytes, ...]:
    """The VMCOREINFO of the dump that `described` reads, whole and the keys that the layout is made of."""
    text = _core().vmcoreinfo.text
    lines = [f"{key}={value}\n" for key, value in text.items()]
    few = [line for line in lines if line.startswith(("OSRELEASE", "PAGESIZE", "NUMBER", "SYMBOL", "KERNELOFFSET"))]
    return "".join(lines).encode(), "".join(few).encode()


CAPTURED = "captures/*/*/"
_SEEDS = {
    "iomem": files(CAPTURED + "iomem", "rules/*/*/iomem", size=4096),
    "memory_blocks": files(CAPTURED + "memory_blocks", size=4096),
    "memory_nodes": files("**/memory_nodes", size=4096),
    "lsmem": files("host/lsmem/*"),
    "zoneinfo": files(CAPTURED + "zoneinfo", "host/*/*/zoneinfo", size=8192),
    "cmdline": files("**/cmdline"),
    "uname": files("**/uname"),
    "meminfo": files("**/meminfo", size=4096),
    "hugepages": files("**/hugetlb", "**/hugepages*", size=4096),
    "memmap_on_memory": files("**/memmap_on_memory"),
    "vmcoreinfo": both(files("**/vmcoreinfo"), lambda: (_info(),)),
}
"""Fixtures to begin with, beside the sample in the table of evidence."""
_OWN = {"kernel", "ptdump", "config", "dmesg", "trace"}
"""Kinds with a target of their own below."""


def of_kind(kind: Any) -> Target:
    """The parser of a row of the table of evidence."""
    run = (lambda data: kind.read(data, path="input")) if kind.read else (lambda data: kind.parse(data, "input"))
    return Target(kind.name, run, both(lambda: (kind.sample,), _SEEDS.get(kind.name, tuple)))


def of_kinds() -> list[Target]:
    """A target for every kind of evidence that is read."""
    from parsers.kinds import KINDS

    return [of_kind(kind) for kind in KINDS.values() if kind.is_read and kind.name not in _OWN]


def kernel(data: bytes) -> object:
    """The code of a kernel image, in whatever packing."""
    from parsers.image.read import read_kernel

    return read_kernel(data, path="input")


def images() -> tuple[bytes, ...]:
    """Kernel images of a few functions, as they are and packed."""
    from tests.parsers.image.images import deb, rpm, zboot
    from tests.parsers.image.test_read import FUNCTIONS, build

    image = build(FUNCTIONS)
    return (image, gzip.compress(image, mtime=0), zboot(image), deb(image), rpm(image))


def _info() -> bytes:
    from tests.parsers.vmcore.cores import vmcoreinfo

    return vmcoreinfo(KERNELOFFSET="4000000")


def _configs() -> tuple[bytes, ...]:
    plain = files(CAPTURED + "config", size=4096)()
    return (*plain, *(gzip.compress(one, mtime=0) for one in plain[:2]))


def _tree() -> tuple[bytes, ...]:
    huge = b"hugepages-2048kB/nr_hugepages:4\nhugepages-2048kB/free_hugepages:4\n"
    return (b"block_size_bytes:8000000\nmemory8/state:online\nmemory8/valid_zones:Movable\nmemory8/node0/x:\n", huge)


TRACES = files(
    "ftrace/*.txt", "ftrace/*.trace", "ftrace/*.trace.xz", "ftrace/run2*.xz", "rules/TRC-0*/fires/trace", size=9000
)

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("ptdump", ptdump, files("ptdump/*.txt", CAPTURED + "kernel_page_tables", size=9500)),
        *of_kinds(),
        Target("kernel", kernel, images, short=60, limit=1 << 18, binary=True),
        Target("config", kconfig, _configs),
        Target("sysfs", sysfs, _tree),
        Target(
            "dmesg",
            dmesg,
            both(made("logs"), files("oops/*.txt", CAPTURED + "dmesg", "rules/OOP-*/fires/dmesg", size=9000)),
        ),
        Target("oops", oops, both(made("logs"), files("oops/*.txt", "rules/OOP-*/*/dmesg", size=9000))),
        Target("log", log, both(made("logs"), files(CAPTURED + "dmesg", size=9000))),
        Target("trace", trace, both(made("trace_texts"), TRACES)),
        Target("replay", replay, TRACES, short=60),
        Target("tracedat", trace, both(made("traces"), files("ftrace/pmem.dat", size=1 << 16)), binary=True),
        Target("archive", archive, made("archives"), short=120, binary=True),
        Target("container", container, containers, binary=True),
        Target("bundles", bundles, lambda: (b"# hosts\nhost-1\nhost-2.tar.gz\n\n",), short=100),
        Target(
            "addresses",
            addresses,
            lambda: (b"0xffff000040000000", b"pfn:0x40000", b"phys:4096", b"page:0xfffffdffc0000000"),
        ),
        Target("baseline", baseline, lambda: (_BASELINE,)),
        Target("elf", vmcore, made("cores"), short=120, limit=1 << 17, binary=True),
        Target("kdump", kdump, made("kdumps"), short=120, limit=1 << 17, binary=True),
        Target("btf", btf, made("btf"), binary=True),
        Target("kallsyms", kallsyms, made("kallsyms"), binary=True),
        Target("vmlinux", vmlinux, made("vmlinuxes"), binary=True),
        Target("system_map", system_map, system_maps),
        Target("printk", log_reader("RING"), made("ring_of_descriptors"), binary=True),
        Target("printk_records", log_reader("RECORDS"), made("ring_of_records"), binary=True),
        Target("single", single, kinds, short=150, binary=True),
        Target("several", several, mixed, short=80, binary=True),
        Target("capture", capture, captures, short=20, binary=True),
        Target("core", core, core_patches, short=2, limit=14 * 64, binary=True),
        Target("beside", beside, both(files(f"{_BESIDE[1]}/vmcoreinfo"), descriptions), short=10, binary=True),
        Target("described", described(_plain_core), descriptions, short=10, binary=True),
        Target("described_small", described(_small_core), made("descriptions"), short=60, binary=True),
    )
}

_BASELINE = b"""schema = "ptaudit.baseline/1"

[[accept]]
rule = "VMM-07"
fingerprint = "1331399761439fc0"
reason = "checked"
expires = 2027-03-31
"""
