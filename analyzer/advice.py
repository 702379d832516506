"""How to get what is missing, for this reader: a live host, a dump of a dead one, a log, a customer's bundle.

What the kernel cannot give is not asked for (its configuration says so), nor is a dump of someone who audits one.
Configuration symbols were read in v4.19, v5.10, v6.1 and v6.12 (mm/Kconfig.debug, arch/arm64/Kconfig.debug,
fs/proc/Kconfig).
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from parsers.cmdline import CommandLine
from parsers.dmesg import Dmesg
from parsers.expressions import expression
from parsers.kconfig import Kconfig
from parsers.kinds import KINDS
from parsers.manifest import Manifest
from parsers.mapping import Mapping
from rules.facts import AUDIT_AGAIN
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.resources import Resources
from rules.model.memory.sections import SectionTable

if TYPE_CHECKING:
    from analyzer.audit import Report
    from rules.engine import Verdict
    from rules.facts import Facts
    from rules.rule import Rule

__all__ = [
    "CRASH_DUMP",
    "ONE_MOMENT",
    "RUNNING_MEMORY",
    "STEP_OF_RUNNING",
    "Reader",
    "advice_for",
    "how_to_get",
    "memory_of",
    "reader_of",
    "steps_for",
]

ONE_MOMENT = "memory of one moment"
"""What the evidence lacks where memory changed while it was read."""
CRASH_DUMP = "a crash dump"
RUNNING_MEMORY = "/proc/kcore (ptaudit audit --live)"
"""What shows of a running host what a crash dump shows of a dead one."""
_STATE_KINDS = frozenset({"ptdump", "iomem", "memory_blocks", "lsmem", "zoneinfo", "meminfo", "hugepages"})
"""Kinds of evidence that only a kernel that runs gives."""
_PTDUMP_SYMBOLS = ("PTDUMP_DEBUGFS", "ARM64_PTDUMP_DEBUGFS")
_ABSENT = expression(r"does not exist|lockdown")
"""What the collector says of a kernel that shows /proc/kcore to nobody."""
_NOT_HERE = expression(r"CAP_SYS_RAWIO|masked|container")
"""What it says where another process of the same kernel could read it."""
_TAKE_DUMP = expression(r"\b[Tt]ake a crash dump\b")
_TO_PROVE = expression(r" ?To prove it: [^.]*\.")
_FROM_KCORE = (
    "as root on the host, ptaudit audit --live reads them from /proc/kcore; ptaudit collect, or the script of "
    "ptaudit collect --print-script=python, saves them as host.core"
)
STEP_OF_RUNNING = (
    "as root on the host: ptaudit audit --live, which reads /proc/kcore, or ptaudit collect, whose bundle has host.core"
)
_FROM_THE_HOST = "run ptaudit audit --live, or ptaudit collect, as root on the host itself"
_FROM_DUMP = "take a crash dump (kdump, or dump-guest-memory from the hypervisor)"


class Reader(Enum):
    """Whom a report is for, by what it was made of."""

    LIVE = "this host, now"
    DUMP = "a crash dump"
    LOG = "a kernel log"
    TRACE = "a trace"
    CAPTURE = "a capture"


def reader_of(report: Report) -> Reader:
    """Whom a report is for."""
    if report.live:
        return Reader.LIVE
    kinds = {source.kind for source in report.sources.sources} - {"archive"}
    if "vmcore" in kinds:
        return Reader.DUMP
    if kinds <= {"dmesg"}:
        return Reader.LOG
    return Reader.TRACE if kinds <= {"trace"} else Reader.CAPTURE


def advice_for(rule: Rule, report: Report) -> str:
    """What a rule advises, without asking someone who audits a crash dump for one."""
    if reader_of(report) is not Reader.DUMP:
        return rule.advice
    kept = _TAKE_DUMP.sub(lambda match: f"{'K' if match[0][0] == 'T' else 'k'}eep this crash dump", rule.advice)
    return _TO_PROVE.sub("", kept)


def memory_of(report: Report) -> str:
    """What to read kernel structures from: of a host that runs its /proc/kcore, unless that is known to be closed."""
    facts, runs = report.facts, reader_of(report) in {Reader.LIVE, Reader.CAPTURE}
    if not runs or not any(source.kind in _STATE_KINDS for source in report.sources.sources):
        return CRASH_DUMP
    if "vmcore" in {source.kind for source in report.sources.sources} or _has_kcore(facts) is False:
        return CRASH_DUMP
    return CRASH_DUMP if _is_confidential(facts) else RUNNING_MEMORY


def _has_kcore(facts: Facts) -> bool | None:
    """Whether a kernel has /proc/kcore, by its configuration or by what the collector found; None if not known."""
    config, manifest = facts.get(Kconfig), facts.get(Manifest)
    if manifest is not None and _ABSENT.search(manifest.why_not("host.core")):
        return False
    return None if config is None else config.is_enabled("PROC_KCORE")


def steps_for(verdict: Verdict, report: Report) -> tuple[str, ...]:
    """What to do to decide a rule; a host that runs is asked for /proc/kcore first, not for a crash dump."""
    if memory_of(report) != RUNNING_MEMORY or KINDS["vmcore"].step not in verdict.collect:
        return verdict.collect
    others = (step for step in verdict.collect if step != KINDS["vmcore"].step)
    return (STEP_OF_RUNNING, *others)


def how_to_get(piece: str, report: Report) -> str:
    """How the reader of a report gets a piece of evidence that `analyzer.verdict` names; one or two sentences."""
    facts, reader = report.facts, reader_of(report)
    if piece == ONE_MOMENT:
        return _sentence(AUDIT_AGAIN)
    if piece == "page tables":
        return _page_tables(report, reader)
    if piece == "/proc/iomem":
        return _iomem(facts, reader)
    if piece == "memory blocks":
        return _sentence("collect /sys/devices/system/memory: sh collect.sh reads it")
    if piece == "kernel layout":
        return _sentence("collect the kernel's VMCOREINFO: sh collect.sh reads it, and a crash dump has it")
    return ""


def _page_tables(report: Report, reader: Reader) -> str:
    facts = report.facts
    why = next((facts.missing[kind] for kind in (Mapping, Vmemmap, LinearMap) if kind in facts.missing), "")
    if reader is Reader.DUMP:
        said = why or "the dump does not hold all of them"
        return (
            _sentence(said) + " makedumpfile keeps page tables at every dump level: the file may be cut, copy it again."
        )
    if any(source.kind == "ptdump" for source in report.sources.sources):
        return _sentence(f"kernel_page_tables was read and cannot be used: {why}" if why else "the dump is not whole")
    if reader in {Reader.LOG, Reader.TRACE}:
        return _sentence(
            f"{reader.value} shows what happened, not the state of memory: ask for the crash dump of that moment if "
            "there is one (/var/crash), else for a capture of the host (ptaudit collect --print-script)"
        )
    return _from_kernel(facts)


def _from_kernel(facts: Facts) -> str:
    """How a kernel that runs gives its page tables."""
    config, manifest = facts.get(Kconfig), facts.get(Manifest)
    failed = manifest.why_not("kernel_page_tables") if manifest is not None else ""
    said = f" (the collector: {failed})" if failed else ""
    offers = _has_text_dump(config)
    if offers:
        mount = "mount -t debugfs debugfs /sys/kernel/debug; " if "No such file" in failed else ""
        return _sentence(f"this kernel has them: as root, {mount}cat /sys/kernel/debug/kernel_page_tables{said}")
    closed = manifest.why_not("host.core") if manifest is not None else ""
    if _is_confidential(facts):
        instead = f"lockdown (confidentiality) closes /proc/kcore: {_FROM_DUMP}"
    elif _NOT_HERE.search(closed) and (config is None or config.is_enabled("PROC_KCORE")):
        instead = f"{closed}: {_FROM_THE_HOST}"
    else:
        instead = _FROM_DUMP if _has_kcore(facts) is False else _FROM_KCORE
    if offers is None:
        text = f"cat /sys/kernel/debug/kernel_page_tables{said}"
        known = "CONFIG_PTDUMP_DEBUGFS, which most lack; this one's configuration was not collected"
        if instead == _FROM_KCORE:
            return _sentence(f"{instead}. A kernel with {known}, also prints them: as root, {text}")
        return _sentence(f"on a kernel with {known}: as root, {text}. On others {instead}")
    return _sentence(f"this kernel cannot print them (CONFIG_PTDUMP_DEBUGFS is not set): {instead}")


def _has_text_dump(config: Kconfig | None) -> bool | None:
    """Whether a kernel can have kernel_page_tables; None where its configuration is not known."""
    if config is None:
        return None
    return any(config.is_enabled(symbol) for symbol in _PTDUMP_SYMBOLS)


def _is_confidential(facts: Facts) -> bool:
    """Whether the kernel was locked down so far that /proc/kcore is closed."""
    line, log, manifest = facts.get(CommandLine), facts.get(Dmesg), facts.get(Manifest)
    if manifest is not None and "lockdown" in manifest.why_not("host.core"):
        return True
    if line is None and log is not None:
        line = log.boot.command_line
    return line is not None and line.value("lockdown") == "confidentiality"


def _iomem(facts: Facts, reader: Reader) -> str:
    why = facts.missing.get(Resources) or facts.missing.get(SectionTable) or ""
    if reader is Reader.DUMP:
        return _sentence(why or "give the dump's kernel with debug info (--vmlinux): mem_section is read with it")
    reason = f"{why}: " if why else ""
    return _sentence(f"{reason}as root, cat /proc/iomem, and collect /sys/devices/system/memory")


def _sentence(text: str) -> str:
    """``text`` as a sentence; the name of a file stays as it is."""
    first = text if "_" in text.partition(" ")[0] else text[:1].upper() + text[1:]
    return f"{first}."
