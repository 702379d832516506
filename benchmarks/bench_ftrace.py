"""Reading of traces: text beside `grep -c`, trace.dat beside `trace-cmd report`, in one run, by CPU time.

    python benchmarks/bench_ftrace.py [SIZE_MB]

Text: one line in ten thousand is an event of hotplug, the rest is sched_switch; and a trace of nothing but hotplug.
trace.dat: the pages of a recorded file again and again.
"""

from __future__ import annotations

import lzma
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from parsers import ftrace  # noqa: E402
from parsers.ftrace.container import open_container  # noqa: E402
from parsers.ftrace.scan import Source  # noqa: E402

FIXTURES = ROOT / "fixtures" / "ftrace"
NOISE = (
    b"          <idle>-0       [001] d..2.  %4d.%06d: sched_switch: prev_comm=swapper/1 prev_pid=0 prev_prio=120"
    b" prev_state=R ==> next_comm=rcu_sched next_pid=17 next_prio=120\n"
)


def hotplug_lines() -> list[bytes]:
    return (FIXTURES / "run4-final_cycle.txt").read_bytes().splitlines(keepends=True)[12:]


def sparse_text(path: Path, size: int) -> None:
    events = hotplug_lines()
    with path.open("wb") as stream:
        written = block = 0
        while written < size:
            lines = [NOISE % (block, n) for n in range(9_999)]
            written += stream.write(b"".join(lines) + events[block % len(events)])
            block += 1


def dense_text(path: Path, count: int) -> None:
    events = hotplug_lines()
    path.write_bytes(b"# tracer: nop\n#\n" + b"".join(events) * (count // len(events)))


def binary(path: Path, size: int) -> None:
    """A recorded file whose pages are repeated, each time two seconds later."""
    data = lzma.decompress((FIXTURES / "run3-v6.dat.xz").read_bytes())
    source = Source("", data)
    with source.open() as stream:
        cpus = open_container(source, stream).instances[0].cpus
    first = min(cpu.offset for cpu in cpus if cpu.size)
    head, place = bytearray(data[:first]), first
    with path.open("wb") as stream:
        stream.seek(first)
        for cpu in cpus:
            pages = [bytearray(data[at : at + 4096]) for at in range(cpu.offset, cpu.offset + cpu.size, 4096)]
            repeats = size // len(cpus) // cpu.size
            for _ in range(repeats):
                for page in pages:
                    struct.pack_into("<Q", page, 0, struct.unpack_from("<Q", page)[0] + 2_000_000_000)
                    stream.write(page)
            where = head.rfind(struct.pack("<QQ", cpu.offset, cpu.size))
            struct.pack_into("<QQ", head, where, place, repeats * cpu.size)
            place += repeats * cpu.size
        stream.seek(0)
        stream.write(head)


def timed(what: Callable[[], object]) -> tuple[float, object]:
    """Seconds of CPU: the machine may be busy with other things."""
    begin = time.process_time()
    result = what()
    return time.process_time() - begin, result


def run(*command: str) -> float:
    """Seconds of CPU of a command; its output is read, for to /dev/null grep would stop at the first match."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while process.stdout and process.stdout.read(1 << 20):
            pass
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main() -> None:
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        ftrace.read(hotplug_lines()[0])  # compiles the expressions
        path = Path(folder) / "sparse"
        sparse_text(path, megabytes << 20)
        size = path.stat().st_size / 1e6
        run("cat", str(path))
        seconds, trace = timed(lambda: ftrace.read(path))
        print(f"text, 1 line in 10000   {size / seconds:8.0f} MB/s   {len(trace)} events, peak {peak_mb()} MB")
        print(f"  grep -c, one literal  {size / run('grep', '-c', 'online_pages', str(path)):8.0f} MB/s")
        path.unlink()
        dense_text(path, 200_000)
        seconds, trace = timed(lambda: ftrace.read(path))
        print(f"text, hotplug only      {len(trace) / seconds / 1e6:8.2f} M events/s")
        path.unlink()
        path = Path(folder) / "trace.dat"
        binary(path, megabytes << 18)
        seconds, trace = timed(lambda: ftrace.read(path))
        print(f"trace.dat               {trace.nr_scanned / seconds / 1e6:8.2f} M events/s   {trace.nr_scanned} events")
        if shutil.which("trace-cmd"):
            seconds = run("trace-cmd", "report", str(path))
            print(f"  trace-cmd report      {trace.nr_scanned / seconds / 1e6:8.2f} M events/s")
        else:
            print("  trace-cmd is not installed")


if __name__ == "__main__":
    main()
