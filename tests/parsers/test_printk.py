"""Whatever a collector puts before a kernel message, the message is found."""

from __future__ import annotations

import pytest

from parsers.dmesg import parse_dmesg
from parsers.log_scan import looks_like_log
from parsers.printk import prefix_at

MESSAGE = b"Boot memory [80000000 88000000] offlining attempted"
PREFIXES = {
    "printk": "[  123.456789] ",
    "caller": "[  123.456789][  T130] ",
    "dmesg -d": "[  123.456789 <    0.000012>] ",
    "dmesg -H": "[Sep12 10:00] ",
    "dmesg -H, later lines": "[  +0.000123] ",
    "dmesg -T": "[Fri Sep 12 10:00:00 2025] ",
    "dmesg -x": "kern  :warn  : [  123.456789] ",
    "netconsole": "4,1234,123456789,-;",
    "Samsung": "[  123.456789] [0:          ndctl:  130] ",
    "Unisoc": "[  123.456789] c0 130 (ndctl) ",
    "MediaTek": "<1>[  123.456789]  (0)[130:ndctl]",
    "RT": "[  123.456789] 000: ",
    "docker compose": "guest-1  | [  123.456789] ",
    "CRI": "2025-09-12T10:00:00.123456789Z stdout F [  123.456789] ",
    "CRI without the kernel's time": "2025-09-12T10:00:00.123456789Z stderr F ",
    "LAVA": "2025-09-12T10:00:00.123456  [  123.456789] ",
    "minicom": "[2025-09-12 10:00:00] ",
    "hypervisor's syslog": "Aug 31 21:37:12 arch cloud-hypervisor[1289783]: [  123.456789] ",
    "Talos": "172.20.0.2: kern:    warning: [2025-09-12T10:00:00.123456789Z]: ",
    "syslog": "Sep 12 10:00:00 ip-10-0-0-1.ec2.internal kernel: [  123.456789] ",
    "syslog with a process number": "Sep 12 10:00:00 host kernel[512]: [  123.456789] ",
    "rsyslog": "2025-09-12T10:00:00.123456+02:00 host kernel: [  123.456789] ",
    "OpenWrt": "Sat Mar 15 01:58:27 2025 kern.alert kernel: [  123.456789] ",
    "journal, day first": "12. Sep 10:00:00 host kernel: ",
    "journal in Russian": "июл 27 14:08:03 host kernel: ",
    "journal in Chinese": "9月 12 10:00:00 host kernel: ",
    "journal, time only": "18:49:56 kernel: ",
    "journalctl -o short-full": "Fri 2025-09-12 10:00:00 CEST host kernel: ",
    "journalctl -o short-unix": "1757671200.123456 host kernel: ",
    "RFC 5424": "<4>1 2025-09-12T10:00:00.123456+02:00 host.example.org kernel - - - ",
    "RFC 5424 with its elements": '<4>1 2025-09-12T10:00:00Z host kernel - - [timeQuality tzKnown="1"] ',
    "netconsole with the release": "6.12.117-amd,4,1234,123456789,-,ncfrag=0/51;",
    "MediaTek with interrupts off": "<4>[  123.456789]-(0)[130:ndctl]",
    "log -T of crash": "[Fri Sep 12 10:00:00 UTC 2025] ",
    "logcat -b kernel": "09-12 10:00:00.123     0     0 W         : ",
    "logcat -b kernel -v uid": "09-12 10:00:00.123  root     0     0 W KERNEL  : ",
    "sender only": "kernel: [  123.456789] ",
    "grep -n": "1002:[  123.456789] ",
    "grep -n of a plain log": "1002:",
    "a code block": "    [  123.456789] ",
    "a code block of a plain log": "    ",
    "a tab": "\t[  123.456789] ",
    "a bar": "| ",
    "nothing": "",
}


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_message_is_found_after_the_prefix(prefix: str) -> None:
    line = prefix.encode() + MESSAGE
    found = prefix_at(line, 0)
    assert line[found.end() :] == MESSAGE
    assert found["time"] == (b"123.456789" if "123.456789" in prefix and "," not in prefix else None)
    (message,) = parse_dmesg(line + b"\n", "log").boot.messages
    assert message.text.encode() == MESSAGE
    assert looks_like_log(line)


@pytest.mark.parametrize(
    "line",
    [
        b"echo Boot memory is fine",
        b"we saw that Offlined Pages are printed up to 5.11",
        b"the kernel said: nothing",
        b"12:00:00.123 myprogram: memory failure",
    ],
)
def test_prose_is_not_a_log(line: bytes) -> None:
    assert not looks_like_log(line)


def test_message_after_an_unknown_prefix_is_counted() -> None:
    log = b"[    1.0] x\n[    1.000000] Offlined Pages 1\nfoo=bar: Offlined Pages 32768\nfoo=bar: Offlined Pages 2\n"
    found = parse_dmesg(log, "log")
    assert [one.text for one in found.boot.messages] == ["Offlined Pages 1"]
    (said,) = [one for one in found.diagnostics if "unknown prefix" in one.message]
    assert (said.line, said.message[:7]) == (3, "2 lines")


def test_wrapped_banner_and_command_line_are_joined() -> None:
    log = (
        b"[    0.000000] Linux version 5.7.0-rc2-00001-gcd0ff1c-dirty\n(user@host) (gcc version 8.4.0, GNU ld\n"
        b"(GNU Binutils) 2.32) #31 SMP PREEMPT Tue Apr 21 11:10:32 PDT 2020\n"
        b"[    0.000000] Kernel command line: console=ttymxc1,115200\nearlycon=ec_imx6q,0x30890000,115200 debug\n"
        b"[    0.000000] x\n"
    )
    boot = parse_dmesg(log, "log").boot
    assert boot.release is not None
    assert (boot.release.raw, boot.release.rc) == ("5.7.0-rc2-00001-gcd0ff1c-dirty", 2)
    assert boot.release.build.endswith("PDT 2020")
    assert boot.command_line is not None
    assert boot.command_line.value("earlycon") == "ec_imx6q,0x30890000,115200"
