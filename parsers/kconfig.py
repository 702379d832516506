"""The kernel's configuration: /proc/config.gz, /boot/config-*, plain or gzip.

Grammar from scripts/kconfig/confdata.c: ``CONFIG_X=value`` and ``# CONFIG_X is not set``.  The second is a known
``n``; a symbol without either line was not offered when the kernel was configured, or the file is not
complete: unknown.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from types import MappingProxyType

from parsers.errors import ArchitectureError, Diagnostic, FormatError
from parsers.expressions import expression
from parsers.lines import at_lines, numbered, text_of
from parsers.records import dataclass

__all__ = ["MAX_BYTES", "Kconfig", "Option", "parse_kconfig"]

MAX_BYTES = 8 << 20  # uncompressed; an arm64 allmodconfig has 0.5 MiB

_IKCONFIG_MAGIC = b"IKCFG_ST"  # kernel/configs.c puts it before the gzip data in the image
_GZIP_MAGIC = b"\x1f\x8b"
_OPTION = expression(rb"^(?:CONFIG_(\w+)=([^\n]*)|# CONFIG_(\w+) is not set)", re.MULTILINE)
_HEADER = expression(rb"^# Linux/(\w+) (\S+) Kernel Configuration", re.MULTILINE)
_MENU_END = expression(rb"^# end of (.*)$", re.MULTILINE)  # not in old kernels; the last menu is:
_MENU_START = expression(rb"^#\n# (.*)\n#$", re.MULTILINE)
_LAST_MENU = b"Kernel hacking"
_ESCAPED = expression(r"\\(.)")
_PAGE_SIZES = {"ARM64_4K_PAGES": 4096, "ARM64_16K_PAGES": 16384, "ARM64_64K_PAGES": 65536}


@dataclass(frozen=True, slots=True)
class Option:
    """One symbol's value without quotes (``n`` if it is not set) and its 1-based line."""

    value: str
    line: int


@dataclass(frozen=True, kw_only=True)
class Kconfig:
    """Configuration symbols, named with or without ``CONFIG_``.

    >>> text = b'''# Linux/arm64 6.12.117 Kernel Configuration
    ... CONFIG_ARM64_4K_PAGES=y
    ... CONFIG_ARM64_VA_BITS=48
    ... # CONFIG_DEBUG_WX is not set
    ... '''
    >>> config = parse_kconfig(text, "config")
    >>> config.page_size, config.va_bits, config.arch, config.release
    (4096, 48, 'arm64', '6.12.117')
    >>> config.is_enabled("DEBUG_WX"), config.line("DEBUG_WX"), config.is_enabled("KASAN")
    (False, 4, None)
    """

    path: str
    options: Mapping[str, Option]
    """By name without ``CONFIG_``."""
    arch: str
    """``arm64`` …, from the header comment; empty if there is none."""
    release: str
    """Kernel version of the header comment; empty if there is none."""
    complete: bool = True
    """False where the file has lost its head or its end: a symbol that it does not name may be set."""
    diagnostics: tuple[Diagnostic, ...] = ()

    def get(self, name: str) -> str | None:
        """Value of a symbol; ``n`` if it is not set, None if the file does not name it."""
        option = self.options.get(name.removeprefix("CONFIG_"))
        return option.value if option else None

    def is_enabled(self, name: str) -> bool | None:
        """Whether a symbol is ``y`` or ``m``; None if the file does not name it."""
        value = self.get(name)
        return None if value is None else value in {"y", "m"}

    def integer(self, name: str) -> int | None:
        """Value of a decimal or ``0x`` symbol; None if the file does not name it or it is not a number."""
        try:
            return int(self.get(name) or "", 0)
        except ValueError:
            return None

    def line(self, name: str) -> int | None:
        """1-based line of a symbol."""
        option = self.options.get(name.removeprefix("CONFIG_"))
        return option.line if option else None

    @property
    def page_size(self) -> int | None:
        """Bytes of a page."""
        return next((size for name, size in _PAGE_SIZES.items() if self.is_enabled(name)), None)

    @property
    def va_bits(self) -> int | None:
        """CONFIG_ARM64_VA_BITS: what the kernel is built for; hardware may give it fewer."""
        return self.integer("ARM64_VA_BITS")


def parse_kconfig(data: bytes, path: str) -> Kconfig:
    """Read a kernel configuration, gzip or plain.

    FormatError if no symbol is in it, ArchitectureError where its header names another architecture.
    """
    text, diagnostics = _decompressed(data.removeprefix(_IKCONFIG_MAGIC), path)
    text = text_of(text, path, limit=MAX_BYTES, what="kernel configuration")
    options: dict[str, Option] = {}
    changed = []
    for line, match in numbered(_OPTION, text):
        name = (match[1] or match[3]).decode()
        option = Option("n" if match[2] is None else _value(match[2]), line)
        if options.get(name, option).value != option.value:
            changed.append(line)
        options[name] = option
    if not options:
        raise FormatError("no CONFIG_ symbol", path=path)
    header = _HEADER.search(text)
    menus = [menu.strip() for menu in _MENU_END.findall(text)]
    cut = []
    begun = {menu.strip() for menu in _MENU_START.findall(text)}
    ends = menus or begun  # the ends of menus are written since 5.2
    torn = header is None or _LAST_MENU not in ends or not begun.issuperset(menus)
    if (header is not None or ends) and torn:
        cut = [Diagnostic("a part of it is missing: symbols it does not name are unknown", path)]
    arch = header[1].decode() if header else ""
    if header and arch != "arm64":
        line = text.count(b"\n", 0, header.start(1)) + 1
        raise ArchitectureError(f"the configuration of a kernel for {arch}, not for arm64", path=path, line=line)
    return Kconfig(
        path=path,
        options=MappingProxyType(options),
        arch=arch,
        release=header[2].decode("utf-8", "replace") if header else "",
        complete=not diagnostics and not cut,
        diagnostics=(
            *diagnostics,
            *cut,
            *at_lines("set again to another value; the last one counts", changed, path),
        ),
    )


def _decompressed(data: bytes, path: str) -> tuple[bytes, tuple[Diagnostic, ...]]:
    """Contents of gzip ``data``, as far as they go and fit; other data as it is."""
    if not data.startswith(_GZIP_MAGIC):
        return data, ()
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        text = stream.decompress(data, MAX_BYTES + 1)
    except zlib.error as error:
        raise FormatError(f"damaged gzip: {error}", path=path) from error
    if len(text) <= MAX_BYTES and not stream.eof:
        return text, (Diagnostic("the gzip data is cut short: symbols at the end are unknown", path),)
    return text, ()


def _value(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace").strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return _ESCAPED.sub(r"\1", text[1:-1])
    return text
