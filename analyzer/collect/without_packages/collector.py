"""The command line of the printed script: text sources by the shell script, then the small core."""

import argparse
import glob
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import suppress
from typing import List, Tuple

from analyzer.collect.without_packages.kernel import CannotReadError
from analyzer.collect.without_packages.small_core import take_core

KCORE = "/proc/kcore"
TEXT_SOURCES = ""  # the shell script, where this is printed
ABOUT = """Collects what ptaudit audits from an arm64 Linux host into one archive: reads only, writes nothing else.
Run it as root. The text sources are those of ptaudit's shell script; host.core is an ELF core with the
page tables, section table, memory blocks, zones, resources, symbols and types of the running kernel, from
/proc/kcore: no memory of a process, no page cache, no kernel log. The manifest in it names what
could not be read. Then, where ptaudit is: ptaudit audit OUT.tar.gz"""


def generation() -> bytes:
    """What changes when memory comes or goes: /proc/iomem, states of memory blocks, and the numbers of their files."""
    text = b""
    for path in ["/proc/iomem"] + sorted(glob.glob("/sys/devices/system/memory/memory*/state")):
        try:
            with open(path, "rb") as stream:
                number = b"%d" % os.fstat(stream.fileno()).st_ino  # another one for a block that is added again
                text += path.encode() + b" " + number + b":" + stream.read(1 << 24)
        except OSError:
            continue
    return text


def uptime() -> int:
    """Seconds since the boot; 0 where /proc shows processes only, as in some containers."""
    try:
        with open("/proc/uptime") as stream:
            return int(float(stream.read().split()[0]))
    except OSError:
        return 0


def say(text: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(text + "\n")


def give_way() -> None:
    """Let all other work on this host go first: processor and disk."""
    with suppress(OSError):
        os.nice(max(0, 10 - os.nice(0)))
    ionice = shutil.which("ionice")
    if ionice is not None:
        command = [ionice, "-c", "3", "-p", str(os.getpid())]
        subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 on itself


def add_core(home: str, kcore: str) -> None:
    """Add host.core to a folder, and to its manifest what could not be read."""
    path, began, size = os.path.join(home, "host.core"), uptime(), 0
    losses: List[Tuple[str, str]] = []
    try:
        size, losses = take_core(kcore, path, generation)
        result = "ok"
        say("taken: host.core (%d bytes): page tables and metadata, no user data" % size)
    except (CannotReadError, OSError, MemoryError) as error:
        result = str(error) or "not enough memory"
        if os.path.exists(path):
            os.unlink(path)
        say(f"  host.core: {result}")
    rows = [("host.core", "%d" % began, "%d" % (uptime() - began), "%d" % size, result)]
    for what, why in losses:
        row = ("host.core: " + what, "-", "-", "-", why)
        if row not in rows:
            rows.append(row)
    with open(os.path.join(home, "manifest"), "a") as stream:
        for row in rows:
            stream.write("\t".join(" ".join(field.split()) for field in row) + "\n")


def pack(home: str, output: str) -> int:
    """Make a tar.gz of a folder, which appears whole or not at all; the exit status."""
    bundle = home + ".tar.gz"
    try:
        with tarfile.open(bundle, "w:gz") as archive:
            for name in sorted(os.listdir(home)):
                archive.add(os.path.join(home, name), arcname=name)
        os.rename(bundle, output)
    except OSError as error:
        say(f"collect: {output} cannot be written: {error.strerror}")
        return 2
    say("written: %s (%d bytes)" % (output, os.path.getsize(output)))
    return 0


def main(arguments: List[str]) -> int:
    """Collect; the exit status."""
    parser = argparse.ArgumentParser(description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        *("-o", "--output"),
        metavar="OUT",
        help="OUT.tar.gz, or a new or empty directory if OUT ends in / (ptaudit-HOST-TIME.tar.gz here)",
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what would be read, and read nothing")
    parser.add_argument(
        "-r", "--redact", action="store_true", help="no host name, MAC address or serial number, no core"
    )
    parser.add_argument("-t", "--timeout", metavar="SECONDS", help="give up on one read after this time (60)")
    parser.add_argument("-m", "--max-size", metavar="MIB", help="take no more than this of one file (256)")
    parser.add_argument("--no-kcore", action="store_true", help="leave /proc/kcore alone: text sources only")
    options = parser.parse_args(arguments)
    shell = shutil.which("sh")
    if shell is None:
        say("collect: there is no sh")
        return 2
    os.umask(0o077)
    give_way()
    host = "host" if options.redact else "".join(c if c.isalnum() or c in "._-" else "_" for c in platform.node())
    home = options.output or "ptaudit-{}-{}.tar.gz".format(host, time.strftime("%Y%m%d-%H%M%S"))
    if home.endswith("/"):
        return collect(shell, home, options)
    if not home.endswith((".tar.gz", ".tgz")):
        home += ".tar.gz"
    if os.path.isdir(home):
        say(f"collect: {home} is a folder")
        return 2
    try:
        private = tempfile.mkdtemp(prefix=".ptaudit-", dir=os.path.dirname(home) or ".")
    except OSError as error:
        say(f"collect: {home} cannot be written: {error.strerror}")
        return 2
    try:
        inside = os.path.join(private, "capture")
        return collect(shell, inside, options) or (0 if options.dry_run else pack(inside, home))
    finally:
        shutil.rmtree(private, ignore_errors=True)


def collect(shell: str, home: str, options: argparse.Namespace) -> int:
    """Collect into a folder; the exit status."""
    command = [shell, "-s", "--", "-o", home.rstrip("/") + "/"]
    command += ["-n"] if options.dry_run else []
    command += ["-r"] if options.redact else []
    command += ["-t", options.timeout] if options.timeout else []
    command += ["-m", options.max_size] if options.max_size else []
    reader = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603 our own script
    try:
        reader.communicate(TEXT_SOURCES.encode())
    except BaseException:  # a signal: the script removes what it made
        reader.terminate()
        reader.wait()
        raise
    if reader.returncode == 0 and options.redact and not options.no_kcore:
        say(f"  host.core: left out, for whole pages of {KCORE} cannot be redacted")
    elif reader.returncode == 0 and options.dry_run and not options.no_kcore:
        say(f"  host.core           page tables and metadata             {KCORE}   (root)")
    elif reader.returncode == 0 and not options.no_kcore:
        add_core(home, KCORE)
    return reader.returncode


def end(number: int, _: object) -> None:
    """End by a signal, and remove what is not finished on the way."""
    sys.exit(128 + number)


if __name__ == "__main__":
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(one) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(one, end)
    sys.exit(main(sys.argv[1:]))
