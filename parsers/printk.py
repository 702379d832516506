"""What stands before a kernel message: priority, time, caller, and what syslog and journald add.

Shapes from kernel/printk/printk.c (4.14 to 6.18), dmesg (-T, -x, --time-format), journalctl (-o short, short-iso,
short-precise, short-monotonic) and syslog.
"""

from __future__ import annotations

__all__ = ["PREFIX", "STAMP"]

_DATE = (
    rb"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,9})?"  # Jan  1 00:00:00
    rb"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[\d.,:Z+-]{0,24}) "  # 2024-01-01T00:00:00+0000
)
_SENDER = rb"(?:[\w.-]{1,64}+ )?kernel: ?"
_PRIORITY = (
    rb"(?:<\d{1,3}>"
    rb"|\d{1,3},\d{1,20},\d{1,20},[^;\n]{1,64};"  # /dev/kmsg
    rb"|[a-z]{4,8}+ {0,4}:[a-z]{3,7}+ {0,4}: )"  # dmesg -x
)
STAMP = rb"\[ {0,7}\d{1,9}\.\d{6}\]"
"""``[    0.000000]``: what only a kernel log has."""
_TIME = (
    rb"(?:\[ {0,7}(?P<time>\d{1,9}\.\d{6})\]"
    rb"|\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\])"  # dmesg -T
)
_CALLER = rb" ?\[ {0,8}[TC]\d{1,8}\]"

PREFIX = rb"(?>(?:%b)?(?:%b)?(?:%b)?(?:%b(?:%b)? ?)?(?:%b)?)" % (_DATE, _SENDER, _PRIORITY, _TIME, _CALLER, _SENDER)
"""Expression for a message's prefix, to stand behind ``^``; the group ``time`` holds the seconds since boot."""
