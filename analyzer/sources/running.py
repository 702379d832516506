"""The memory of the kernel that runs here, as a source: whether it can be read, and what it shows."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from analyzer.sources.crashdump import Symbols, read_vmcore
from parsers.errors import InputError, PtauditError

if TYPE_CHECKING:
    from parsers.vmcore.extract import VmcoreFacts

__all__ = [
    "HOST_CORE",
    "KCORE",
    "is_host_core",
    "is_proc_kcore",
    "kcore_refusal",
    "memory_generation",
    "read_kcore",
    "read_running",
]

KCORE = Path("/proc/kcore")
HOST_CORE = "host.core"
"""The small core in a bundle."""
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_STATUS = Path("/proc/self/status")
_CAP_SYS_RAWIO = 17  # include/uapi/linux/capability.h
_KALLSYMS = Path("/proc/kallsyms")
_IOMEM = Path("/proc/iomem")
_BLOCKS = Path("/sys/devices/system/memory")


def is_proc_kcore(path: Path) -> bool:
    """Whether a path names the kernel's memory, which has no end and no content to sniff."""
    return os.path.realpath(path) == str(KCORE)


def is_host_core(relative: str) -> bool:
    """Whether a path in a capture is that of the small core that collecting left there."""
    return PurePosixPath(relative).name == HOST_CORE


def kcore_refusal(path: Path = KCORE) -> str | None:
    """Why the kernel's memory cannot be read here, in one line; None if it can."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        return f"{path} {_why_closed(error)}"
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not os.pread(descriptor, 4, 0):
            return f"{path} is masked, as in a container"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    finally:
        os.close(descriptor)
    return None


def _why_closed(error: OSError) -> str:
    """What it means that /proc/kcore cannot be opened."""
    if error.errno == errno.ENOENT:
        return "does not exist (CONFIG_PROC_KCORE=n, or the /proc of a container)"
    lockdown = _text(_LOCKDOWN)
    if "[confidentiality]" in lockdown:
        return "is closed by kernel lockdown (confidentiality)"
    if _may_read() and not lockdown:  # securityfs, which would say it, is not mounted
        return "is closed to root with CAP_SYS_RAWIO, as kernel lockdown (confidentiality) does"
    return f"needs root with CAP_SYS_RAWIO, which containers lack ({error.strerror})"


def _text(path: Path) -> str:
    """What a small file says; empty where it cannot be read."""
    with suppress(OSError):
        return path.read_text(encoding="ascii", errors="replace")
    return ""


def _may_read() -> bool:
    """Whether this process has the capability that the kernel asks for when /proc/kcore is opened (fs/proc/kcore.c)."""
    effective = next((row.split()[1] for row in _text(_STATUS).splitlines() if row.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_SYS_RAWIO & 1)


def memory_generation() -> tuple[bytes, ...]:
    """What changes when memory comes or goes: /proc/iomem, the states of memory blocks and the numbers of their files.

    A block that is added again has other files.
    """
    texts = []
    for path in (_IOMEM, *sorted(_BLOCKS.glob("memory*/state"))):
        with suppress(OSError):
            texts.append(f"{path} {path.stat().st_ino}:".encode() + path.read_bytes())
    return tuple(texts)


def read_kcore(symbols: Symbols, path: Path = KCORE) -> VmcoreFacts:
    """The facts of the running kernel's memory; InputError where it cannot be read, and why, in one line."""
    if (why := kcore_refusal(path)) is not None:
        raise InputError(why)
    facts = read_vmcore((path,), symbols)
    if not facts.has_symbols and symbols.system_map is None:  # before 6.0 VMCOREINFO does not name kallsyms
        with suppress(PtauditError):
            return read_vmcore((path,), replace(symbols, system_map=_KALLSYMS))
    return facts


def read_running(symbols: Symbols, path: Path = KCORE) -> VmcoreFacts | str:
    """As `read_kcore`, or why it cannot be read."""
    try:
        return read_kcore(symbols, path)
    except PtauditError as error:
        return error.message if error.message.startswith(str(path)) else f"{path}: {error.message}"
