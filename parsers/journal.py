"""Kernel messages inside of JSON: what ``journalctl -o json`` and ``dmesg -J`` print, made lines of a log again."""

from __future__ import annotations

import re

from parsers.expressions import POSSESSIVE, expression

__all__ = ["without_json"]

PEEK = 1 << 16
_IS_JOURNAL = expression(rb'^\{[^\n]{0,8192}?"MESSAGE"\s*:', re.MULTILINE)
_IS_DMESG = expression(rb'\A\s*\{\s*"dmesg"\s*:\s*\[')
_STRING = rb'"((?:[^"\\\n]|\\.)*' + POSSESSIVE + rb')"'
_AT = rb'\{(?=[^\n]*?"_SOURCE_MONOTONIC_TIMESTAMP"\s*:\s*"(\d{0,8})(\d{6})")'
_TIMED = expression(rb"^" + _AT + rb'[^\n]*?"MESSAGE"\s*:\s*' + _STRING + rb"[^\n]*$", re.MULTILINE)
_UNTIMED = expression(rb'^\{[^\n]*?"MESSAGE"\s*:\s*' + _STRING + rb"[^\n]*$", re.MULTILINE)
_BYTES = expression(rb'"MESSAGE"\s*:\s*\[([\d, \t\r\f\v]{0,65536})\]')
_BYTE = expression(rb"\d{1,3}")
_DMESG_MESSAGE = expression(rb'"time"\s*:\s*(\d{1,9}\.\d{6}),[^\S\n]*\n\s*"msg"\s*:\s*' + _STRING)
_ESCAPES = {rb"\"": b'"', rb"\/": b"/", rb"\t": b"\t", rb"\u001b": b"\x1b", rb"\u001B": b"\x1b", rb"\\": b"\\"}


def without_json(data: bytes) -> bytes:
    """A journal's JSON as lines ``[seconds] message``; anything else unchanged.  Line numbers stay true.

    >>> without_json(b'{"_SOURCE_MONOTONIC_TIMESTAMP":"8548711","MESSAGE":"Mem abort info:","PRIORITY":"1"}')
    b'[08.548711] Mem abort info:'
    """
    head = data[:PEEK]
    if _IS_JOURNAL.search(head):
        data = _BYTES.sub(_spelled_out, data)
        data = _UNTIMED.sub(rb"\1", _TIMED.sub(rb"[0\1.\2] \3", data))
    elif _IS_DMESG.search(head):
        data = _DMESG_MESSAGE.sub(rb"\n[\1] \2", data)
    else:
        return data
    for escaped, plain in _ESCAPES.items():
        data = data.replace(escaped, plain)
    return data


def _spelled_out(match: re.Match[bytes]) -> bytes:
    """A message that journald wrote as an array of bytes, because it has colours."""
    text = bytes(int(number) & 0xFF for number in _BYTE.findall(match[1]))
    return b'"MESSAGE":"%b"' % text.replace(b"\\", rb"\\").replace(b'"', rb"\"").replace(b"\n", b" ")
