"""The kernel command line: /proc/cmdline, or what the boot log says of it.

Quoting from lib/cmdline.c ``next_arg`` and kernel/params.c ``parse_args`` (4.14 to 6.18): blanks
separate, double quotes keep blanks and cannot be escaped, dashes and underscores in a name are the
same, what follows ``--`` is for init.
"""

from __future__ import annotations

import re

from parsers.errors import Diagnostic, FormatError
from parsers.expressions import expression
from parsers.lines import text_of, without_prompts
from parsers.records import dataclass

__all__ = ["MAX_BYTES", "MAX_LINES", "CommandLine", "Parameter", "parse_cmdline"]

MAX_BYTES = 64 << 10
MAX_LINES = 32  # the longest command line, wrapped by mail
_COMMAND_LINE_SIZE = 2048  # arch/arm64/include/uapi/asm/setup.h, its NUL included

_WORD = expression(r'(?:[^\s"]|"[^"]*(?:"|\Z))+', re.ASCII)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; ``value`` is None without ``=``, and empty after a bare one."""

    name: str
    value: str | None


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """The parameters in order.  Later ones usually override earlier ones; some add up (``console``, ``mem``).

    >>> line = parse_cmdline(b'console=ttyS0 rodata=full dyndbg="file mm/* +p" rodata=off quiet -- single\\n', "")
    >>> line.value("rodata"), [each.value for each in line.all("rodata")]
    ('off', ['full', 'off'])
    >>> line.value("dyndbg"), line.get("quiet"), line.get("mem"), line.init_arguments
    ('file mm/* +p', Parameter(name='quiet', value=None), None, ('single',))
    """

    path: str
    line: int
    """1-based line of the first parameter."""
    raw: str
    parameters: tuple[Parameter, ...]
    init_arguments: tuple[str, ...]
    """Words after ``--``."""
    complete: bool = True
    """False where the line has no end: a parameter that it does not name may have been given."""
    diagnostics: tuple[Diagnostic, ...] = ()

    def all(self, name: str) -> tuple[Parameter, ...]:
        """Every occurrence of a parameter, dashes and underscores in its name being the same."""
        wanted = _canonical(name)
        return tuple(each for each in self.parameters if _canonical(each.name) == wanted)

    def get(self, name: str) -> Parameter | None:
        """The last occurrence of a parameter; None if it was not given."""
        return next(iter(self.all(name)[::-1]), None)

    def value(self, name: str) -> str | None:
        """Value of the last occurrence; None if the parameter was not given or has no ``=``."""
        parameter = self.get(name)
        return parameter.value if parameter else None

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None


def parse_cmdline(data: bytes, path: str) -> CommandLine:
    """Read a kernel command line; FormatError if it is empty."""
    text = without_prompts(text_of(data, path, limit=MAX_BYTES, what="kernel command line")).decode("utf-8", "replace")
    if text.strip().count("\n") >= MAX_LINES:
        raise FormatError(f"more than {MAX_LINES} lines, no kernel command line", path=path)
    words = _WORD.findall(text)
    if not words:
        raise FormatError("empty, no kernel command line", path=path)
    if data.lstrip()[:16].lower().startswith((b"<html", b"<!doctype", b"<?xml")):
        raise FormatError("a web page, no kernel command line", path=path)
    end = words.index("--") if "--" in words else len(words)
    line = text.count("\n", 0, text.index(words[0])) + 1
    raw = text.strip(" \t\n\r\v\f")  # what the kernel's isspace() takes; Unicode knows more
    complete = data.endswith((b"\n", b"\0"))
    diagnostics = []
    if text.count('"') % 2:
        diagnostics.append(Diagnostic("a double quote is not closed", path, line))
    if len(raw.encode()) >= _COMMAND_LINE_SIZE - 1:
        diagnostics.append(Diagnostic("as long as the kernel keeps it, so its end may be cut off", path, line))
    return CommandLine(
        path=path,
        line=line,
        raw=raw,
        parameters=tuple(_parameter(word) for word in words[:end]),
        init_arguments=tuple(words[end + 1 :]),
        complete=complete,
        diagnostics=tuple(diagnostics),
    )


def _parameter(word: str) -> Parameter:
    if word.startswith('"'):
        word = word[1:].removesuffix('"')
    name, equals, value = word.partition("=")
    if value.startswith('"'):
        value = value[1:].removesuffix('"')
    return Parameter(name, value if equals else None)


def _canonical(name: str) -> str:
    return name.replace("-", "_")
