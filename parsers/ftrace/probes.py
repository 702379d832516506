"""The tracing set-up that makes a trace replayable, as a POSIX shell script.

It is printed from `parsers.ftrace.functions`, the table by which the readers understand what the probes record.
Facilities by release (lab runs on 5.10.223, 6.1.192, 6.12.117, 6.18.15 and 7.2.12, arm64): registers and
``$retval`` everywhere; BTF argument names and ``->`` from 6.12 (refused on 6.1); fprobe events from 6.14
(4346ba160409); functions in ``.meminit.text`` are notrace up to 6.10.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import chain

from parsers.expressions import expression
from parsers.ftrace.functions import FUNCTIONS, Function, Release
from parsers.ftrace.naming import column_type
from parsers.records import dataclass

__all__ = ["BTF_ARGUMENTS", "FPROBE_EVENTS", "MEMINIT_TRACEABLE", "Probe", "probe_script", "probes"]

MEMINIT_TRACEABLE: Release = (6, 11)
BTF_ARGUMENTS: Release = (6, 12)
FPROBE_EVENTS: Release = (6, 14)

# Arguments that are only the base of what is fetched through them.
_BASES = frozenset({"-", "params", "res", "arg", "walk", "ms"})
_REGISTER = expression(r"%x(\d)")


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe: its definitions, the best one first, each good only if the kernel takes it."""

    event: str
    symbols: tuple[str, ...]
    definitions: tuple[str, ...]
    since: Release = (0,)
    """First release with this signature."""
    until: Release | None = None
    """First release without it."""


def probes(
    release: Release | None = None,
    symbols: Collection[str] | None = None,
    *,
    btf: bool = True,
    fprobe: bool = True,
    noisy: bool = False,
) -> tuple[Probe, ...]:
    """The probes for a kernel; for an unknown release those of every release, each with the releases it is for.

    ``symbols`` are the names in its kallsyms or System.map.  A function that has only a mangled name there
    (``.isra.0``, ``.constprop.0``) is left out: the compiler may have moved its arguments.
    """
    found: list[Probe] = []
    for function in FUNCTIONS:
        names = _names(function, symbols)
        if names and (noisy or not function.noisy):
            found += _of_function(function, names, release, btf=btf, fprobe=fprobe)
    return tuple(found)


def _names(function: Function, symbols: Collection[str] | None) -> tuple[str, ...]:
    """What the function may be called: one name if the symbols are known."""
    return function.names if symbols is None else tuple(name for name in function.names if name in symbols)[:1]


def _of_function(
    function: Function, names: tuple[str, ...], release: Release | None, *, btf: bool, fprobe: bool
) -> Iterator[Probe]:
    floor = MEMINIT_TRACEABLE if function.meminit else (0,)
    if release is not None:
        words = function.signature(release)
        if words is None or release < floor:
            return
        generations: list[tuple[Release, Release | None, tuple[str, ...]]] = [((0,), None, words)]
    else:
        starts = [since for since, _ in function.signatures]
        ends: list[Release | None] = [*starts[1:], None]
        generations = [
            (max(since, floor), until, tuple(words.split()))
            for (since, words), until in zip(function.signatures, ends, strict=True)
            if until is None or until > floor
        ]
    with_btf = btf and (release is None or release >= BTF_ARGUMENTS)
    with_fprobe = fprobe and (release is None or release >= FPROBE_EVENTS)
    for since, until, words in generations:
        by_name = [_definitions(function, name, words, btf=with_btf, fprobe=with_fprobe) for name in names]
        event = f"mhp_{function.event}"
        entries = tuple(chain.from_iterable(entry for entry, _ in by_name))
        yield Probe(event, names, entries, since, until)
        if function.return_probe:
            returns = tuple(chain.from_iterable(result for _, result in by_name))
            yield Probe(f"{event}_ret", names, returns, since, until)


def _definitions(
    function: Function, symbol: str, words: tuple[str, ...], *, btf: bool, fprobe: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Definitions of the entry and of the return."""
    registers = {word: f"%x{number}" for number, word in enumerate(words)}
    plain = [f"{word}={registers[word]}:{column_type(word)}" for word in words if word not in _BASES]
    plain += [
        f"{column}={what.format_map(registers)}"
        for column, what in function.fetch.items()
        if all(base in registers for base in re.findall(r"\{(\w+)\}", what))
    ]
    rich = [f"{column}={what}" for column, what in function.btf.items() if what.split("->")[0] in registers]
    result = [f"ret=$retval:{function.returns}"] if function.returns else []
    event = f"mhp/mhp_{function.event}"
    entries, returns = [], []
    if fprobe:
        arguments = [_REGISTER.sub(lambda match: f"$arg{int(match[1]) + 1}", text) for text in plain]
        entries.append(" ".join((f"f:{event} {symbol}", *arguments, *rich)))
        returns.append(" ".join((f"f:{event}_ret {symbol}%return", *result)))
    if btf and rich:
        entries.append(" ".join((f"p:{event} {symbol}", *plain, *rich)))
    entries.append(" ".join((f"p:{event} {symbol}", *plain)))
    returns.append(" ".join((f"r:{event}_ret {symbol}", *result)))
    return tuple(entries), tuple(returns)


_HEAD = """\
#!/bin/sh
# Traces memory hotplug for `ptaudit audit`: kprobe events, their call stacks, the page allocator between them.
# {title}
#
#   sh {name} start [DIR] [SECONDS]   define the probes and begin (DIR: where the notes go, default ./ptaudit-trace)
#   ... the memory is added, onlined, offlined, removed ...
#   sh {name} stop [DIR]              stop, save the trace and the state that belongs to it, remove the probes
#
# As root. Every probe may be refused (a function that was inlined, a kernel without it): DIR/probes.log says which.
# Without a stop it stops by itself after SECONDS (default 86400, a day). When it fails, nothing stays behind.
set -u
umask 077
PATH=/usr/sbin:/usr/bin:/sbin:/bin:${{PATH:-}}
T=/sys/kernel/tracing
[ -d "$T/events" ] || T=/sys/kernel/debug/tracing
OUT=${{2:-ptaudit-trace}}
LIMIT=${{3:-86400}}
I=$T/instances/mhp
EVENTS=$T/dynamic_events
[ -e "$EVENTS" ] || EVENTS=$T/kprobe_events

die() {{ echo "$0: $*" >&2; exit 1; }}

# at_least MAJOR MINOR: this kernel is that release or a later one
at_least() {{
  v=$(uname -r); major=${{v%%.*}}; minor=${{v#*.}}; minor=${{minor%%[!0-9]*}}
  [ "$major" -gt "$1" ] || {{ [ "$major" -eq "$1" ] && [ "$minor" -ge "$2" ]; }}
}}

# add EVENT DEFINITION...: the first definition that the kernel takes
add() {{
  event=$1; shift
  for definition; do
    if echo "$definition" 2>/dev/null >> "$EVENTS"; then
      echo "OK   $definition" >> "$OUT/probes.log"; return
    fi
  done
  echo "FAIL $event: $definition" >> "$OUT/probes.log"
}}

# own_folder: OUT is a folder of ours, and no link to another
own_folder() {{
  [ ! -L "$OUT" ] || die "$OUT is a link: name a folder"
  mkdir -p "$OUT" || die "cannot write to $OUT"
  [ -O "$OUT" ] || die "$OUT belongs to someone else"
}}

# bounded COMMAND...: a read that hangs in the kernel does not hang the script
bounded() {{
  if command -v timeout > /dev/null 2>&1; then timeout 60 "$@"; else "$@"; fi
}}

trigger() {{ [ ! -e "$B/events/$1/trigger" ] || echo "$2" 2>/dev/null >> "$B/events/$1/trigger"; }}

# Only probes of the group mhp are removed: others stay.
remove_probes() {{
  for dir in "$T" "$I"; do
    [ ! -e "$dir/events/mhp/enable" ] || echo 0 > "$dir/events/mhp/enable"
  done
  for event in page_isolation/test_pages_isolated migrate/mm_migrate_pages; do
    [ ! -d "$I" ] || [ ! -e "$I/events/$event/enable" ] || echo 0 > "$I/events/$event/enable"
  done
  [ ! -d "$I" ] || rmdir "$I" 2>/dev/null
  sed -n 's/^[a-z][0-9]*:\\(mhp\\/[^ ]*\\).*/-:\\1/p' "$EVENTS" | while read -r line; do
    echo "$line" 2>/dev/null >> "$EVENTS"
  done
}}

# undo: what a start that failed or was interrupted leaves behind goes
undo() {{
  [ -z "$began" ] || {{
    echo 0 > "$B/tracing_on"
    remove_probes
    [ "$B" != "$T" ] || {{ echo "$was_on" > "$T/tracing_on"; echo "$was_stack" > "$T/options/stacktrace"; }}
  }} 2>/dev/null
}}

start() {{
  case $LIMIT in '' | *[!0-9]*) die "SECONDS is a number" ;; esac
  own_folder
  : > "$OUT/probes.log"
  B=$T began='' was_on=$(cat "$T/tracing_on") was_stack=$(cat "$T/options/stacktrace" 2>/dev/null)
  trap undo EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  remove_probes
  began=1
"""

_START = """\
  # Its own instance keeps other users of tracing out.
  mkdir "$I" 2>/dev/null && B=$I
  echo 0 > "$B/tracing_on"
  echo {buffer_kb} > "$B/buffer_size_kb"
  echo 1 2>/dev/null > "$B/options/stacktrace"
  # What the page allocator does inside the calls says what backs struct pages, and when it is freed.
  trigger mhp/mhp_pg_add enable_event:kmem:mm_page_alloc
  trigger mhp/mhp_pg_add_ret disable_event:kmem:mm_page_alloc
  trigger mhp/mhp_vmm_free enable_event:kmem:mm_page_free
  trigger mhp/mhp_vmm_free_ret disable_event:kmem:mm_page_free
  for event in page_isolation/test_pages_isolated migrate/mm_migrate_pages; do
    [ ! -e "$B/events/$event/enable" ] || echo 1 > "$B/events/$event/enable"
  done
  # After the definitions: records of older probes would be printed with the new formats.
  echo > "$B/trace"
  echo 1 > "$B/events/mhp/enable" || die "no probe was taken, see $OUT/probes.log"
  echo 1 > "$B/tracing_on"
  block=$(cat /sys/devices/system/memory/block_size_bytes 2>/dev/null)
  page=$(getconf PAGESIZE 2>/dev/null || awk '/KernelPageSize/ { print $2 * 1024; exit }' /proc/self/smaps)
  echo "mhp-audit: begin kernel=$(uname -r) page=$page block=0x$block" > "$B/trace_marker"
  save_state "$OUT/before"
  deadline
  began=''
  echo "tracing; $(grep -c ^OK "$OUT/probes.log") probes, $(grep -c ^FAIL "$OUT/probes.log") refused ($OUT/probes.log)"
}

# deadline: in the background, stops if tracing was not stopped; the trace is saved as by stop
deadline() {
  ( trap '' HUP; sleep "$LIMIT"; rm -f "$OUT/deadline"; stop ) < /dev/null > /dev/null 2>&1 &
  echo $! > "$OUT/deadline"
}

# no_deadline: ends what deadline left, if it is still that
no_deadline() {
  read -r pid 2>/dev/null < "$OUT/deadline" || return 0
  case $pid in '' | *[!0-9]*) return 0 ;; esac
  rm -f "$OUT/deadline"
  tr '\\0' ' ' 2>/dev/null < "/proc/$pid/cmdline" | grep -q start || return 0
  for child in $(cat "/proc/$pid/task/$pid/children" 2>/dev/null); do kill "$child" 2>/dev/null; done
  kill "$pid" 2>/dev/null
}

save_state() {
  mkdir -p "$1"
  for file in /proc/iomem /proc/zoneinfo /proc/meminfo /proc/cmdline /sys/kernel/debug/kernel_page_tables; do
    [ ! -r "$file" ] || bounded cat "$file" > "$1/${file##*/}" 2>/dev/null
  done
  uname -a > "$1/uname"
  (
    cd /sys/devices/system/memory 2>/dev/null &&
      grep -H . block_size_bytes auto_online_blocks memory*/state memory*/valid_zones memory*/phys_index 2>/dev/null
  ) > "$1/memory_blocks"
}

stop() {
  own_folder
  no_deadline
  B=$T; [ ! -d "$I" ] || B=$I
  trap remove_probes EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  echo 0 > "$B/tracing_on"
  mkdir -p "$OUT/after" || die "cannot write to $OUT"
  bounded cat "$B/trace" > "$OUT/after/trace"
  cat "$T/kprobe_profile" > "$OUT/after/kprobe_profile" 2>/dev/null
  cat "$EVENTS" > "$OUT/after/dynamic_events"
  dmesg > "$OUT/after/dmesg" 2>/dev/null
  save_state "$OUT/after"
  remove_probes
  echo "saved: ptaudit audit $OUT/after"
}

[ -w "$EVENTS" ] || die "$EVENTS cannot be written: root, and tracefs mounted?"
case ${1:-} in
  start) start ;;
  stop) stop ;;
  *) die "start or stop?" ;;
esac
"""


def probe_script(
    release: Release | None = None,
    symbols: Collection[str] | None = None,
    btf: bool = True,
    *,
    fprobe: bool = True,
    noisy: bool = False,
    buffer_kb: int = 16384,
    name: str = "probes.sh",
) -> str:
    """A POSIX sh script that sets up tracing, stops it and saves everything that belongs to the trace.

    ``release`` as (6, 12); None asks ``uname -r`` where the script runs.  ``btf`` and ``fprobe`` allow richer
    definitions where the release has them; the plain one with registers follows as a fallback.
    ``buffer_kb`` is the ring buffer of each CPU.
    """
    found = probes(release, symbols, btf=btf, fprobe=fprobe, noisy=noisy)
    title = "For any arm64 kernel: it asks `uname -r`." if release is None else f"For arm64 Linux {_dotted(release)}."
    lines = [_HEAD.format(title=title, name=name)]
    lines += [f"  # {left_out}\n" for left_out in _left_out(release, symbols, noisy=noisy)]
    lines += [f"  {_guard(probe)}add {probe.event} {_quoted(probe.definitions)}\n" for probe in found]
    return "".join(lines) + _START.replace("{buffer_kb}", str(buffer_kb))


def _dotted(release: Release) -> str:
    return ".".join(map(str, release))


def _quoted(definitions: tuple[str, ...]) -> str:
    return " \\\n    ".join(f"'{definition}'" for definition in definitions)


def _guard(probe: Probe) -> str:
    """The shell condition under which a probe's registers mean what it says."""
    parts = []
    if probe.since > (0,):
        parts.append("at_least {} {} && ".format(*probe.since[:2]))
    if probe.until:
        parts.append("! at_least {} {} && ".format(*probe.until[:2]))
    return "".join(parts)


def _left_out(release: Release | None, symbols: Collection[str] | None, *, noisy: bool) -> Iterator[str]:
    for function in FUNCTIONS:
        name = function.names[0]
        if release is not None and function.meminit and release < MEMINIT_TRACEABLE and function.signature(release):
            yield f"{name}: __meminit, notrace before {_dotted(MEMINIT_TRACEABLE)}; the page allocator stands in"
        elif symbols is not None and not _names(function, symbols):
            yield f"{name}: not in this kernel, or under a mangled name only"
        elif function.noisy and not noisy:
            yield f"{name}: left out, it fires without hotplug too"
