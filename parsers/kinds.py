"""The table of evidence: one row for each kind of file that ptaudit knows, and everything that is known of it.

Everything else derives from this table: how a file is recognised, the ``--kind`` option, the fact that rules see, what
a report asks for when it is missing, the script that collects it, the documentation and the fuzz targets.  A new kind
of evidence is a parser and a row here.

Kernel configuration symbols and versions were read in v4.19, v5.10, v6.1 and v6.12.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from parsers import ftrace, ptdump
from parsers.boot_id import BootId, parse_boot_id
from parsers.cmdline import CommandLine, parse_cmdline
from parsers.cpuinfo import looks_like_cpuinfo, parse_cpuinfo
from parsers.dmesg import Dmesg, parse_dmesg
from parsers.evidence import Kind, Row, Tree, When
from parsers.expressions import expression
from parsers.ftrace.events import Trace
from parsers.hugepages import HugePages, parse_hugepages, parse_hugepages_tree
from parsers.image.code import KernelCode
from parsers.image.read import read_kernel
from parsers.image.unpack import is_kernel
from parsers.iomem import Iomem, parse_iomem
from parsers.kconfig import Kconfig, parse_kconfig
from parsers.kexec import KexecCrash, parse_kexec_crash_loaded
from parsers.log_scan import looks_like_log
from parsers.lsmem import parse_lsmem
from parsers.manifest import Manifest, parse_manifest
from parsers.meminfo import Meminfo, parse_meminfo
from parsers.memmap_on_memory import MemmapOnMemory, parse_memmap_on_memory
from parsers.memory_blocks import MemoryBlocks, parse_memory_blocks, parse_memory_blocks_tree, parse_memory_nodes
from parsers.uname import KernelRelease, parse_uname
from parsers.vmcoreinfo import VmcoreInfo, parse_vmcoreinfo
from parsers.zoneinfo import Zoneinfo, parse_zoneinfo

if TYPE_CHECKING:
    from parsers.evidence import Configuration

__all__ = [
    "KINDS",
    "SNIFF_BYTES",
    "Kind",
    "Row",
    "Tree",
    "When",
    "in_order",
    "is_of_an_earlier_boot",
    "kind_of_content",
    "kind_of_path",
    "kinds_of_fact",
    "steps",
]

SNIFF_BYTES = 1 << 18
"""Enough for the first block of a zstd frame, which is at most 128 KiB."""


def _paths(*names: str) -> re.Pattern[str]:
    return expression(rf"(?:^|/)(?:{'|'.join(names)})$")


def _has(pattern: bytes) -> Callable[[bytes], bool]:
    compiled = expression(pattern, re.MULTILINE)
    return lambda head: compiled.search(head) is not None


def _is_trace(head: bytes) -> bool:
    """A log that holds a dumped ring buffer is a log first, and read as both."""
    return ftrace.looks_like(head) and b"Dumping ftrace buffer:" not in head


_SYMBOL = expression(rb"^CONFIG_\w+=", re.MULTILINE)


def _is_config(head: bytes) -> bool:
    """A mail with an oops may quote one line of it."""
    found = sum(1 for _ in islice(_SYMBOL.finditer(head), 2))
    return found > 1 or (found == 1 and not looks_like_log(head))


_MEMORY = "/sys/devices/system/memory"

_ROWS: tuple[Kind, ...] = (
    Kind(
        name="kernel",
        what="a kernel image",
        fact=KernelCode,
        paths=expression(r"(?!)"),  # a host has several kernels: named by the user only
        sniff=is_kernel,
        read=read_kernel,
        sample=b"MZ\0\x91\xff\xff\x49\x14" + bytes(16) + b"\x0a" + bytes(31) + b"ARMd@\0\0\0",
        how="the kernel that runs, or is to be installed: /boot/vmlinuz-$(uname -r), or its package",
    ),
    Kind(
        name="lsmem",
        what="lsmem",
        paths=_paths(r"lsmem(?:\.txt|\.json)?", r"lsmem_-\S*"),
        sniff=_has(rb"^RANGE +|\"memory\"\s*:\s*\["),
        row=Row(
            rb"RANGE +\w|0x[0-9a-f]{8,16}-0x[0-9a-f]{8,16} +\S+ +(?:online|offline)\b",
            b"RANGE ",
            b" online",
            b" offline",
        ),
        parse=parse_lsmem,
        sample=b"RANGE                                  SIZE  STATE REMOVABLE BLOCK\n"
        b"0x0000000040000000-0x000000007fffffff    1G online       yes  8-15\n",
        command="lsmem -a -o RANGE,SIZE,STATE,REMOVABLE,BLOCK,NODE,ZONES",
        only_if="command -v lsmem >/dev/null",
    ),
    Kind(
        name="ptdump",
        what="a page-table dump",
        fact=ptdump.PageTableDump,
        paths=_paths(r"kernel_page_tables(?:\.txt)?"),
        sniff=ptdump.looks_like,
        row=Row(
            rb"(?:0x)?[0-9a-f]{16}-(?:0x)?[0-9a-f]{16}\s{1,16}\d+[KMGTPE]\s{1,4}(?!on|off)"
            rb"|---\[ (?!end |cut here )[^\n]{1,60} \]---",
            b"K ",
            b"M ",
            b"G ",
            b"---[ ",
        ),
        parse=ptdump.parse,
        parse_file=ptdump.parse_file,
        sample=b"---[ vmemmap start ]---\n"
        b"0xfffffdffc0000000-0xfffffdffc1000000          16M PMD       RW NX SHD AF        BLK UXN    MEM/NORMAL\n",
        file="kernel_page_tables",
        command="cat /sys/kernel/debug/kernel_page_tables",
        how="as root: cat /sys/kernel/debug/kernel_page_tables (CONFIG_PTDUMP_DEBUGFS=y; mount -t debugfs if needed)",
        when=When.TABLES,
        root=True,
        config=("PTDUMP_DEBUGFS", "ARM64_PTDUMP_DEBUGFS", "ARM64_PTDUMP"),  # since v5.7, v4.12, v3.19
        instead="vmcore",
    ),
    Kind(
        name="memory_blocks",
        what="the memory blocks",
        fact=MemoryBlocks,
        paths=_paths(r"memory_blocks(?:\.txt)?"),
        sniff=_has(rb"^(?:> ?)*(?:\S*/)?(?:memory\d+/state: *(?:online|offline|going)|block_size_bytes:)"),
        row=Row(
            rb"(?:\S{0,80}/)?(?:memory\d+/\w+|block_size_bytes|auto_online_blocks): ?\w",
            b"/state:",
            b"block_size_bytes",
        ),
        parse=parse_memory_blocks,
        tree=Tree(_MEMORY[1:], r"(?:memory\d+/)?\w+", parse_memory_blocks_tree),
        sample=b"block_size_bytes:8000000\nmemory8/state:online\nmemory8/valid_zones:Normal\n",
        command=rf"find {_MEMORY} \( -name block_size_bytes -o -name state -o -name valid_zones \) "
        "-exec grep -H . {} +",
        function="blocks",
        how=f"grep -H . {_MEMORY}/block_size_bytes {_MEMORY}/memory*/{{state,valid_zones}}",
        when=When.STATE,
        config=("MEMORY_HOTPLUG",),
        since=(5, 0),  # the first arm64 kernel with memory hotplug
    ),
    Kind(
        name="iomem",
        what="/proc/iomem",
        fact=Iomem,
        paths=_paths(r"(?:proc_)?iomem(?:\.txt)?"),
        sniff=_has(rb"^[^\S\n]*[0-9a-f]{8,16}-[0-9a-f]{8,16} : \S"),
        row=Row(rb"[^\S\n]*[0-9a-f]{8,16}-[0-9a-f]{8,16} : \S", b" : ", least=2),
        parse=parse_iomem,
        sample=b"40000000-7fffffff : System RAM\n  40210000-4186ffff : Kernel code\n",
        command="cat /proc/iomem",
        when=When.STATE,
        root=True,
    ),
    Kind(
        name="memory_nodes",
        what="the nodes of the memory blocks",
        paths=_paths("memory_nodes"),
        sniff=_has(rb"\bnode\d+ -> \S*node\d+"),
        row=Row(rb"[^\n]{0,200}\bnode\d+ -> \S*node\d+", b" -> ", least=2),
        parse=parse_memory_nodes,
        sample=b"lrwxrwxrwx 1 root root 0 Jan  1 00:00 memory8/node0 -> ../../node/node0\n",
        function="nodes",
        config=("MEMORY_HOTPLUG",),
    ),
    Kind(
        name="zoneinfo",
        what="/proc/zoneinfo",
        fact=Zoneinfo,
        paths=_paths(r"(?:proc_)?zoneinfo(?:\.txt)?"),
        sniff=_has(rb"^Node \d+, zone +\w+"),
        row=Row(
            rb"Node \d+, zone +\w|  per-node stats$|  pages free |  pagesets$|  start_pfn: |  node_unreclaimable:"
            rb"|  vm stats threshold:|    cpu: \d|      ?[a-z]\w+ +\d+$|              (?:count|high|batch): "
            rb"|  start_pfn:|        protection: \(",
            b", zone ",
            least=3,
        ),
        parse=parse_zoneinfo,
        sample=b"Node 0, zone   Normal\n  pages free     3840\n        spanned  4096\n        present  4096\n"
        b"        managed  4000\n  start_pfn:           262144\n",
        command="cat /proc/zoneinfo",
    ),
    Kind(
        name="config",
        what="the kernel configuration",
        fact=Kconfig,
        paths=_paths(r"config(?:\.gz)?", r"config-[\w.+~-]+", r"kernel_config"),
        sniff=lambda head: head.startswith(b"\x1f\x8b") or _is_config(head),
        row=Row(rb"CONFIG_\w+=|# CONFIG_\w+ is not set$|# Linux/\S+ \S+ Kernel Configuration$", b"CONFIG_", least=40),
        parse=parse_kconfig,
        sample=b"# Linux/arm64 6.12.117 Kernel Configuration\nCONFIG_ARM64_4K_PAGES=y\n# CONFIG_KASAN is not set\n"
        b"#\n# Kernel hacking\n#\n# end of Kernel hacking\n",
        command='zcat /proc/config.gz 2>/dev/null || cat "/boot/config-$(uname -r)"',
        function="config",
        how="zcat /proc/config.gz, or /boot/config-$(uname -r)",
        when=When.BEFORE,
    ),
    Kind(
        name="vmcoreinfo",
        what="VMCOREINFO",
        fact=VmcoreInfo,
        paths=_paths(r"vmcoreinfo(?:\.txt)?"),
        sniff=_has(rb"^OSRELEASE=|VMCOREINFO"),
        row=Row(
            rb"(?:OSRELEASE|BUILD-ID|PAGESIZE|KERNELOFFSET|CRASHTIME)=|(?:SYMBOL|SIZE|OFFSET|LENGTH|NUMBER)\(\w[\w.]*\)=",
            b"OSRELEASE=",
            least=4,
        ),
        parse=parse_vmcoreinfo,
        sample=b"OSRELEASE=6.12.117\nPAGESIZE=4096\nSYMBOL(_stext)=ffff800080010000\nNUMBER(VA_BITS)=48\n",
        function="vmcoreinfo",
        how="a crash dump's VMCOREINFO, or --layout phys_offset=0x…; as root: cat /proc/iomem",
        note="the VMCOREINFO note of the kernel: sh collect.sh reads it, and a crash dump has it",
        when=When.BEFORE,
        root=True,
        config=("PROC_KCORE",),
        since=(4, 19),  # 23c85094fe18, the note of /proc/kcore
    ),
    Kind(
        name="meminfo",
        what="/proc/meminfo",
        fact=Meminfo,
        paths=_paths(r"(?:proc_)?meminfo(?:\.txt)?"),
        sniff=_has(rb"^MemTotal: +\d+ kB"),
        row=Row(rb"[A-Z][\w()]{2,24}: +\d+ kB$|HugePages_\w+: +\d+$", b"MemTotal:", least=4),
        parse=parse_meminfo,
        sample=b"MemTotal:        4005372 kB\nMemFree:         3717580 kB\nHugePages_Total:       0\n",
        command="cat /proc/meminfo",
    ),
    Kind(
        name="hugepages",
        what="the huge page pools",
        fact=HugePages,
        paths=_paths(r"hugetlb", r"hugepages(?:\.txt)?"),
        sniff=_has(rb"hugepages-\d+kB/\w+: ?\d"),  # the boot log names pools, too
        row=Row(rb"\S{0,80}hugepages-\d+kB/\w+: ?\d", b"hugepages-", least=2),
        parse=parse_hugepages,
        tree=Tree("sys/kernel/mm/hugepages", r"hugepages-\d+kB/\w+", parse_hugepages_tree),
        sample=b"/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages:4\n",
        command="grep -H . /sys/kernel/mm/hugepages/*/* /proc/sys/vm/hugetlb_optimize_vmemmap",
        function="hugepages",
        how="grep -H . /sys/kernel/mm/hugepages/*/*",
        config=("HUGETLB_PAGE", "HUGETLBFS"),
    ),
    Kind(
        name="trace",
        what="a trace of hotplug operations",
        fact=Trace,
        paths=_paths(r"trace(?:\.txt)?", r"trace\.dat"),
        sniff=_is_trace,
        row=Row(
            rb"# tracer: \w| {0,16}\S[^\n]{0,24}-\d+ +(?:\( *[\d-]+\) +)?\[\d{3}\] +(?:[\w.#]{4,6} +)?\d+\.\d{6}: ",
            b"# tracer: ",
            b" [0",
            b" [1",
            least=2,
        ),
        read=ftrace.read,
        sample=b"# tracer: nop\n#\n"
        b"  sh-58      [001] d....     2.5: mhp_online: (online_pages+0x0/0x368) pfn=0x80000 nr=0x8000\n",
        function="hotplug_trace",
        how="a trace of hotplug operations: ptaudit probes prints the set-up",
        root=True,
        only_if="is_tracing",
        config=("KPROBE_EVENTS",),
    ),
    Kind(
        name="dmesg",
        what="the boot log",
        fact=Dmesg,
        paths=_paths(
            r"dmesg(?:\.txt|\.log)?",
            r"dmesg_-\S*",
            r"dmesg\.\d{8,14}",  # /var/crash of Debian and Ubuntu
            r"vmcore-dmesg(?:-incomplete)?(?:\.txt)?",  # /var/crash of Red Hat and SUSE
            r"(?:dmesg|console)-(?:ramoops|efi|efi_pstore|erst|nvram|pstore_blk)-\d+",  # /sys/fs/pstore
            r"(?:proc/)?last_kmsg",
            r"serial\.log",
            r"console\.log",
            r"journal(?:\.txt|\.json)?",
            r"journalctl_-\S*",
            r"(?:kern\.log|messages|syslog)(?:\.\d{1,4}|-\d{8}(?:-\d+)?)?",  # and rotated by logrotate
        ),
        sniff=looks_like_log,
        row=Row(
            rb"(?:<\d+>)?\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? |\w{3} [ \d]\d \d\d:\d\d:\d\d \S+ kernel: "
            rb"|\d{4}-\d\d-\d\dT\S+ \S+ kernel: |Linux version \d|Unable to handle kernel |Internal error: "
            rb"|Call trace:$|Mem abort info:|Data abort info:|  (?:ESR = 0x|EC = 0x|FSC = 0x|SET = |EA = |ISV = |CM = )"
            rb"|swapper pgtable: |\[[0-9a-f]{16}\] pgd=|(?:pc|lr|sp) : |x\d{1,2} *: [0-9a-f]{16}"
            rb"| \w[\w.]*\+0x[0-9a-f]+/0x[0-9a-f]+|CPU: \d+ |Code: [0-9a-f]{8} |pstate: [0-9a-f]{8} ",
            b"] ",
            b" kernel",
            b"Linux version ",
            b"Call trace:",
        ),
        parse=parse_dmesg,
        sample=b"[    0.000000] Linux version 6.12.117 (root@vm) (gcc 12.2.0) #2 SMP\n",
        command="journalctl -k -b -o short-monotonic 2>/dev/null || dmesg",
        function="kernel_log",
        how="dmesg from the start of the boot (journalctl -k -b)",
        private=True,
    ),
    Kind(
        name="uname",
        what="the kernel release",
        fact=KernelRelease,
        paths=_paths(r"uname(?:\.txt)?", r"uname_-a", r"osrelease", r"proc/version"),
        sniff=_has(rb"\ALinux \S+ \d+\.\d+"),
        row=Row(rb"(?:(?:Kernel|uname): ?)?Linux (?!version )\S+ \d+\.\d+\S* #\d", b"Linux "),
        parse=parse_uname,
        sample=b"Linux vm 6.12.117 #2 SMP PREEMPT Fri Nov 20 10:00:00 UTC 2026 aarch64 GNU/Linux\n",
        command="uname -a",
        when=When.BEFORE,
        private=True,
    ),
    Kind(
        name="cmdline",
        what="the kernel command line",
        fact=CommandLine,
        paths=_paths(r"(?:proc_)?cmdline(?:\.txt)?"),
        parse=parse_cmdline,
        sample=b"BOOT_IMAGE=/boot/vmlinuz-6.12.117 root=/dev/vda1 ro memory_hotplug.memmap_on_memory=on\n",
        command="cat /proc/cmdline",
        when=When.BEFORE,
        private=True,
    ),
    Kind(
        name="memmap_on_memory",
        what="the memmap_on_memory parameter",
        fact=MemmapOnMemory,
        paths=_paths(r"memmap_on_memory", r"sys/module/memory_hotplug/parameters/memmap_on_memory"),
        parse=parse_memmap_on_memory,
        sample=b"Y\n",
        command="cat /sys/module/memory_hotplug/parameters/memmap_on_memory",
        config=("MHP_MEMMAP_ON_MEMORY",),
        since=(5, 13),
    ),
    Kind(
        name="kexec_crash_loaded",
        what="whether a crash kernel is loaded",
        fact=KexecCrash,
        paths=_paths("kexec_crash_loaded"),
        parse=parse_kexec_crash_loaded,
        sample=b"1\n",
        command="cat /sys/kernel/kexec_crash_loaded",
        only_if="[ -e /sys/kernel/kexec_crash_loaded ]",
        config=("KEXEC_CORE",),
    ),
    Kind(
        name="boot_id",
        what="the boot ID",
        fact=BootId,
        paths=_paths("boot_id"),
        parse=parse_boot_id,
        sample=b"5c0ef2d4-6a0e-4d0f-8d3a-0f3a4b5c6d7e\n",
        command="cat /proc/sys/kernel/random/boot_id",
        when=When.BEFORE,
    ),
    # Crash dumps need symbols and come in several files: analyzer/sources/crashdump.py recognises and reads them.
    Kind(
        name="vmcore",
        what="a crash dump",
        paths=expression(r"(?!)"),
        how="a crash dump (/proc/vmcore, or dump-guest-memory from the hypervisor)",
        note="a crash dump: /proc/vmcore, or dump-guest-memory from the hypervisor",
    ),
    Kind(
        name="cpuinfo",
        what="CPU models and features",
        paths=_paths(r"(?:proc_)?cpuinfo(?:\.txt)?"),
        sniff=looks_like_cpuinfo,
        parse=parse_cpuinfo,
        sample=b"processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd0c\n",
        function="cpu",
        when=When.BEFORE,
    ),
    # What is collected for people, and not audited.
    Kind(
        name="modules",
        what="the loaded modules",
        paths=_paths("modules"),
        command="cat /proc/modules",
        only_if="[ -e /proc/modules ]",
    ),
    Kind(
        name="ndctl",
        what="persistent-memory namespaces",
        paths=_paths(r"ndctl\.json"),
        file="ndctl.json",
        command="ndctl list -NRDi",
        only_if="command -v ndctl >/dev/null",
        private=True,
    ),
    Kind(
        name="daxctl",
        what="dax devices",
        paths=_paths(r"daxctl\.json"),
        file="daxctl.json",
        command="daxctl list -Di",
        only_if="command -v daxctl >/dev/null",
    ),
    Kind(
        name="manifest",
        what="the collecting script's own record",
        fact=Manifest,
        paths=_paths("manifest"),
        sniff=_has(rb"\Aname\tuptime\tseconds\tbytes\tresult$"),
        parse=parse_manifest,
        sample=b"name\tuptime\tseconds\tbytes\tresult\nuname\t9\t0\t80\tok\niomem\t9\t0\t0\tPermission denied\n",
    ),
    Kind(
        name="vmcoreinfo_addr",
        what="the address of VMCOREINFO",
        paths=_paths("vmcoreinfo_addr"),
    ),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ROWS}
"""By name; by content the first that recognises a file wins."""


def kind_of_path(path: str) -> Kind | None:
    """The kind that a file of this name in a capture has."""
    return next((kind for kind in KINDS.values() if kind.paths.search(path)), None)


_EARLIER_BOOT = expression(
    r"(?:^|/)(?:last_kmsg|vmcore-dmesg[^/]*|(?:dmesg|console)-\w+-\d+|dmesg\.\d{8,}|[^/]+(?:\.\d{1,4}|-\d{8})(?:\.\w+)?)$"
    r"|(?:^|/)(?:pstore|var/crash)/"
)


def is_of_an_earlier_boot(path: str) -> bool:
    """Whether a log of this name was left by a boot that has ended: a crash, a pstore record, a rotated file.

    >>> is_of_an_earlier_boot("var/log/messages-20261127.xz"), is_of_an_earlier_boot("var/log/messages")
    (True, False)
    """
    return _EARLIER_BOOT.search(path) is not None


def kind_of_content(head: bytes) -> Kind | None:
    """The kind that the first bytes of a file show."""
    return next((kind for kind in KINDS.values() if kind.sniff(head[:SNIFF_BYTES])), None)


def kinds_of_fact(fact: type) -> Iterator[Kind]:
    """The kinds of evidence that are read into a fact of this type."""
    return (kind for kind in KINDS.values() if kind.fact is fact)


def in_order() -> list[Kind]:
    """The kinds in the order in which they are best collected."""
    return sorted(KINDS.values(), key=lambda kind: kind.when)


def steps(kind: Kind, config: Configuration | None, series: tuple[int, int] | None = None) -> tuple[str, ...]:
    """How to get a kind of evidence from a kernel of this configuration and version, or what to get instead."""
    if not kind.why_not(config, series):
        return (kind.step,)
    return steps(KINDS[kind.instead], config, series) if kind.instead else ()
