"""Texts that a kernel keeps in its memory: command line, configuration, the host's name."""

from __future__ import annotations

import zlib

from parsers.errors import FormatError, PtauditError
from parsers.vmcore.dump import Dump

__all__ = ["read_cmdline", "read_config", "read_nodename"]

_MAX_CONFIG = 16 << 20
_CONFIG_START = b"IKCFG_ST"
_NAME_BYTES = 65  # of each member of struct new_utsname: sysname, nodename … (include/uapi/linux/utsname.h)
_GZIP = 31  # zlib's wbits for a gzip member


def read_cmdline(dump: Dump) -> bytes:
    """The kernel command line; LookupError without symbols."""
    address = dump.symbol("saved_command_line")
    if address is None:
        raise LookupError("saved_command_line")
    return dump.string(int.from_bytes(dump.read(address, 8), "little"), 16384)


def read_config(dump: Dump) -> bytes:
    """The kernel's configuration (CONFIG_IKCONFIG, kernel/configs.c); LookupError where it has none."""
    start, end = dump.symbol("kernel_config_data"), dump.symbol("kernel_config_data_end")
    if start is None:
        raise LookupError("kernel_config_data (CONFIG_IKCONFIG)")
    # Up to 5.0 the symbol was an array between two magic strings, without a symbol for its end.
    data = dump.read(start, min(end - start, _MAX_CONFIG) if end is not None and end > start else 1 << 20)
    data = data.removeprefix(_CONFIG_START)
    try:
        text = zlib.decompressobj(_GZIP).decompress(data, _MAX_CONFIG)
    except zlib.error as error:
        raise FormatError(f"the kernel's configuration is damaged: {error}") from error
    return text


def read_nodename(dump: Dump) -> str:
    """The host's name when it crashed (init_uts_ns); empty where the dump does not tell, as small cores do not."""
    names, offset = dump.vmcoreinfo.symbol("init_uts_ns"), dump.vmcoreinfo.offset("uts_namespace.name")
    if names is None or offset is None:
        return ""
    try:
        return dump.string(names + offset + _NAME_BYTES, _NAME_BYTES).decode("utf-8", "replace")
    except PtauditError:
        return ""
