"""Kernel messages inside of JSON or of a journal's fields, made lines of a log again.

``journalctl -o json``, ``json-pretty``, ``json-sse``, ``json-seq``, ``verbose`` and ``export``, ``dmesg -J``, what
container runtimes and log shippers write (an object a line, the message in ``log``, ``message`` or ``msg``), and
documents that hold a whole log in one string, as ``aws ec2 get-console-output`` prints it.
"""

from __future__ import annotations

import re

from parsers.expressions import POSSESSIVE, expression

__all__ = ["without_json"]

PEEK = 1 << 16
_IS_JOURNAL = expression(rb'^(?:data: |\x1e)?\{[^\n]{0,8192}?"MESSAGE"\s*:', re.MULTILINE)
_IS_PRETTY = expression(rb'^[ \t]+"MESSAGE"\s*:', re.MULTILINE)
_IS_FIELDS = expression(rb"^[ \t]*(?:_BOOT_ID|_TRANSPORT|SYSLOG_IDENTIFIER)=", re.MULTILINE)
_IS_DMESG = expression(rb'\A\s*\{\s*"dmesg"\s*:\s*\[')
_STRING = rb'"((?:[^"\\\n]|\\.)*' + POSSESSIVE + rb')"'
_BEFORE = expression(rb"^(?:data: |\x1e)(?=\{)", re.MULTILINE)
_AT = rb'\{(?=[^\n]*?"_SOURCE_MONOTONIC_TIMESTAMP"\s*:\s*"(\d{0,8})(\d{6})")'
_TIMED = expression(rb"^" + _AT + rb'[^\n]*?"MESSAGE"\s*:\s*' + _STRING + rb"[^\n]*$", re.MULTILINE)
_UNTIMED = expression(rb'^\{[^\n]*?"MESSAGE"\s*:\s*' + _STRING + rb"[^\n]*$", re.MULTILINE)
_PRETTY = expression(rb'^[ \t]+"MESSAGE"\s*:\s*' + _STRING + rb",?[ \t]*$", re.MULTILINE)
_FIELD = expression(rb"^[ \t]*MESSAGE=", re.MULTILINE)
_BYTES = expression(rb'"MESSAGE"\s*:\s*\[([\d, \t\r\f\v]{0,65536})\]')
_BYTE = expression(rb"\d{1,3}")
_DMESG_MESSAGE = expression(
    rb'"time"\s*:\s*(\d{1,9})(?:\.(\d{1,6})\d*)?,\s*(?:"caller"\s*:\s*"[^"\n]{0,32}",\s*)?"msg"\s*:\s*'
    + _STRING
    + rb'(?:[^"\n]*"pri"[^"\n]*(?="time")|[^"\n]*"fac"[^\n]{0,80}?(?="time")|[}\]\s]{3,64}\Z)?'  # without line ends
)
_SHIPPED = expression(
    rb'^[^\n{]{0,160}\{[^\n]*?"(?:log|message|msg|Message|textPayload|line)"\s*:\s*' + _STRING + rb"[^\n]*$",
    re.MULTILINE,
)
_SHIPPED_ENOUGH = 0.8
_LINE_ENDS = expression(rb"(?<!\\r)(?:(?:\\r)*\\n|(?:\\r)+)$", re.MULTILINE)
_IS_DOCUMENT = expression(rb"\A\s*[\[{]")
_IN_STRING = expression(rb"\\n\[ {0,7}\d{1,9}\.\d{6}\]")
_BROKEN = expression(rb"(?<!\\r)(?:\\r)*\\n")
_FEW = 3
_ESCAPES = {
    rb"\"": b'"',
    rb"\/": b"/",
    rb"\t": b"\t",
    rb"\u001b": b"\x1b",
    rb"\u001B": b"\x1b",
    rb"\u003c": b"<",
    rb"\u003e": b">",
    rb"\u0026": b"&",
    rb"\u0027": b"'",
    rb"\\": b"\\",
}


def without_json(data: bytes) -> bytes:
    """A journal's JSON as lines ``[seconds] message``; anything else unchanged.

    Line numbers stay true; of a log that is one string of a document they count its lines.

    >>> without_json(b'{"_SOURCE_MONOTONIC_TIMESTAMP":"8548711","MESSAGE":"Mem abort info:","PRIORITY":"1"}')
    b'[08.548711] Mem abort info:'
    >>> without_json(b'{"log":"[    8.548711] Mem abort info:\\\\n","stream":"stdout"}')
    b'[    8.548711] Mem abort info:'
    """
    head = data[:PEEK]
    if _IS_JOURNAL.search(head):
        data = _BYTES.sub(_spelled_out, _BEFORE.sub(b"", data))
        data = _UNTIMED.sub(rb"\1", _TIMED.sub(rb"[0\1.\2] \3", data))
    elif _IS_DMESG.search(head):
        data = _DMESG_MESSAGE.sub(_of_dmesg, data)
    elif _IS_PRETTY.search(head):
        data = _PRETTY.sub(rb"\1", data)
    elif _IS_FIELDS.search(head) and _FIELD.search(head):
        return _FIELD.sub(b"", data)
    elif b"{" not in head:
        return data
    elif _is_shipped(head):
        data = _LINE_ENDS.sub(b"", _SHIPPED.sub(rb"\1", data))
    elif _IS_DOCUMENT.match(head) and len(_IN_STRING.findall(head)) > max(head.count(b"\n"), _FEW):
        data = _BROKEN.sub(b"\n", data)
    else:
        return data
    for escaped, plain in _ESCAPES.items():
        data = data.replace(escaped, plain)
    return data


def _is_shipped(head: bytes) -> bool:
    """Whether nearly every line is an object that holds a message."""
    whole = head[: head.rfind(b"\n")] if len(head) == PEEK else head
    lines = sum(1 for line in whole.split(b"\n") if line.strip())
    return lines > 0 and len(_SHIPPED.findall(whole)) >= lines * _SHIPPED_ENOUGH


def _of_dmesg(match: re.Match[bytes]) -> bytes:
    """One message; dmesg writes six digits after the point, programs that rewrite JSON fewer."""
    return b"\n[%5d.%b] %b" % (int(match[1]), (match[2] or b"").ljust(6, b"0"), match[3])


def _spelled_out(match: re.Match[bytes]) -> bytes:
    """A message that journald wrote as an array of bytes, because it has colours."""
    text = bytes(int(number) & 0xFF for number in _BYTE.findall(match[1]))
    return b'"MESSAGE":"%b"' % text.replace(b"\\", rb"\\").replace(b'"', rb"\"").replace(b"\n", b" ")
