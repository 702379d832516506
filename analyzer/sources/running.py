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
from parsers.errors import PtauditError

if TYPE_CHECKING:
    from parsers.vmcore.extract import VmcoreFacts

__all__ = ["HOST_CORE", "KCORE", "is_host_core", "is_proc_kcore", "kcore_refusal", "memory_generation", "read_running"]

KCORE = Path("/proc/kcore")
HOST_CORE = "host.core"
"""The small core in a bundle."""
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
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
        if error.errno == errno.ENOENT:
            return f"{path} does not exist (CONFIG_PROC_KCORE)"
        lockdown = ""
        with suppress(OSError):
            lockdown = _LOCKDOWN.read_text(encoding="ascii", errors="replace")
        if "[confidentiality]" in lockdown:
            return f"{path} is closed by kernel lockdown (confidentiality)"
        return f"{path} needs root with CAP_SYS_RAWIO, which containers lack ({error.strerror})"
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not os.pread(descriptor, 4, 0):
            return f"{path} is masked, as in a container"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    finally:
        os.close(descriptor)
    return None


def memory_generation() -> tuple[bytes, ...]:
    """What changes when memory comes or goes: /proc/iomem, the states of memory blocks and the numbers of their files.

    A block that is added again has other files.
    """
    texts = []
    for path in (_IOMEM, *sorted(_BLOCKS.glob("memory*/state"))):
        with suppress(OSError):
            texts.append(f"{path} {path.stat().st_ino}:".encode() + path.read_bytes())
    return tuple(texts)


def read_running(symbols: Symbols, path: Path = KCORE) -> VmcoreFacts | str:
    """The facts of the running kernel's memory, or why there are none, in one line."""
    if (why := kcore_refusal(path)) is not None:
        return why
    try:
        facts = read_vmcore((path,), symbols)
    except PtauditError as error:
        return f"{path}: {error.message}"
    if not facts.has_symbols and symbols.system_map is None:  # before 6.0 VMCOREINFO does not name kallsyms
        with suppress(PtauditError):
            return read_vmcore((path,), replace(symbols, system_map=_KALLSYMS))
    return facts
