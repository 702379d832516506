"""What precedes a kernel message: priority, time, caller, and what the collectors of logs add.

Shapes from kernel/printk/printk.c (4.14 to 6.18), dmesg (-T, -x, -H, --time-format), journalctl (-o short, short-iso,
short-precise, short-monotonic, in any language), syslog, netconsole; Samsung, Unisoc and MediaTek kernels and the RT
patches (task and CPU after the time); serial consoles kept by LAVA, minicom, docker, CRI runtimes, hypervisors and
Talos (their own time, name and stream before it).

``[    0.000000]`` is what only a kernel log has: whatever precedes it on a line is a collector's.  Without it the
line must begin with one of the shapes that are known.
"""

from __future__ import annotations

import re

from parsers.expressions import expression

__all__ = ["STAMP", "Prefix", "prefix_at"]

STAMP = rb"\[ {0,7}\d{1,9}\.\d{6}\]"
"""``[    0.000000]``"""
_TIME = rb"\[ {0,7}(?P<time>\d{1,9}\.\d{6})(?: <[ +\d.]{1,16}>)?\]"
_CALLER = rb" ?\[ {0,8}[TC]\d{1,8}\]"
_VENDOR = (
    rb"(?: ?\[\d{1,3}: {0,20}[^\]\n]{1,24}?: {0,8}\d{1,8}\]"  # Samsung: [0:          ndctl:  130]
    rb"| ?c\d{1,3} \d{1,8} \([^)\n]{1,24}\)"  # Unisoc: c0 130 (ndctl)
    rb"| {0,2}-?\(\d{1,3}\)\[\d{1,8}:[^\]\n]{1,24}\]"  # MediaTek: (0)[130:ndctl]
    rb"| \(CPU:\d{1,3}-pid:\d{1,8}[^)\n]{0,40}\)"
    rb"| \d{3}:)"  # RT: 000:
)
_KERNEL = rb"\bkernel(?:\[\d{1,8}\])?: ?"
_BEHIND_TIME = rb"(?:%b)?(?:%b)? ?(?:(?:[\w.-]{1,64}+ )?%b)?" % (_CALLER, _VENDOR, _KERNEL)

_PRIORITY = (
    rb"(?:<\d{1,3}>"
    rb"|(?:[1-9][\w.+~-]{2,63},)?\d{1,3},\d{1,20},\d{1,20},[^;\n]{1,64};"  # /dev/kmsg, netconsole with the release
    rb"|[a-z]{4,8}+ {0,4}:[a-z]{3,7}+ {0,4}: )"  # dmesg -x
)
_CLOCK = rb"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_DAY = rb"\d{4}-\d\d-\d\d[T ]%b(?:Z|[ ]?[+-]\d\d:?\d\d)?" % _CLOCK
_DATE = rb"(?:[A-Z][a-z]{2} [ \d]\d %b|\[?%b\]?|%b) (?:std(?:out|err) [FP] )?" % (_CLOCK, _DAY, _CLOCK)
_WALL = (
    rb"(?:\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d (?:[A-Z]{2,5} )?\d{4}\]"  # dmesg -T, log -T of crash
    rb"|\[[A-Z][a-z]{2} ?\d{1,2} \d\d:\d\d\]|\[ {0,6}\+\d{1,6}\.\d{6}\]"  # dmesg -H
    rb"|\[%b\])" % _DAY
)
_RFC_5424 = (
    rb"<\d{1,3}>1 %b [\w.:-]{1,64} kernel(?: [\w.-]{1,48}){2} (?:-|(?:\[[^\]\n]{1,200}\]){1,4}) (?:\xef\xbb\xbf)?"
)
_LOGCAT = rb"\d\d-\d\d %b(?: {1,6}[a-z]\w{1,20})? {1,6}\d{1,8} {1,6}\d{1,8} [VDIWEF] [^:\n]{0,24}: "  # -b kernel
_SENDER = rb"(?:%b|%b|[^\n]{0,120}?%b|[^\n]{0,60}?\bkern: {1,6}[a-z]{3,8}: \[[\dTZ:.+-]{10,40}\]: )" % (
    _RFC_5424 % _DAY,
    _LOGCAT % _CLOCK,
    _KERNEL,
)
_LISTED = (  # indented, docker compose or a quote, grep -n
    rb"(?: (?! )|[ \t]{3,40}|\t)?(?:(?:[\w.-]{1,40} {1,20})?\| )?(?:\d{1,9}[:-](?!\d\d(?:[:-]| \d\d:)))?"
)
_QUICK = expression(rb"(?:<\d{1,3}>)?%b%b" % (_TIME, _BEHIND_TIME))
_STAMPED = expression(rb"[^\n]{0,200}?%b%b" % (_TIME, _BEHIND_TIME))
_PLAIN = expression(
    rb"(?P<time>(?!))?%b(?:%b(?:%b)?|(?:%b)?)(?:%b)?(?:%b%b)?"
    % (_LISTED, _SENDER, _PRIORITY, _DATE, _PRIORITY, _WALL, _BEHIND_TIME)
)
"""Every part may be absent: it always matches."""

Prefix = re.Match[bytes]
"""Ends where the message begins; the group ``time``, where there is one, holds the seconds since boot."""


def prefix_at(data: bytes, start: int) -> Prefix:
    """The prefix of the message on the line that begins at ``start``; empty where no known prefix is there.

    >>> line = b"guest-1  | [  123.456789] [0:          ndctl:  130] Offlined Pages 32768"
    >>> found = prefix_at(line, 0)
    >>> found["time"], line[found.end():]
    (b'123.456789', b'Offlined Pages 32768')
    """
    return _QUICK.match(data, start) or _STAMPED.match(data, start) or _PLAIN.match(data, start)  # type: ignore[return-value]
