r"""Traces of memory hotplug: text, ``trace.dat`` and kernel logs, read into one table of events.

>>> trace = read(b"  sh-58      [001] d....     2.5: mhp_online: (online_pages+0x0/0x368) pfn=0x80000 nr=0x8000\n")
>>> trace.events.column("start_pfn")[0].tolist()
[524288]
>>> trace.quote(0)
'sh-58      [001] d....     2.5: mhp_online: (online_pages+0x0/0x368) pfn=0x80000 nr=0x8000'
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from parsers.errors import Diagnostic, FormatError

if TYPE_CHECKING:
    from parsers.ftrace.events import Trace
    from parsers.ftrace.scan import Progress, Source

__all__ = ["looks_like", "read"]

_MAGIC = b"\x17\x08\x44tracing"
_LINES = 100


def looks_like(prefix: bytes) -> bool:
    """A file that begins with ``prefix`` (a few kilobytes) is a trace.

    A kernel log counts only when a dumped ring buffer is in sight.
    """
    if prefix.startswith((_MAGIC, b"# tracer: ", b"cpus=", b"version = 6")):
        return True
    if b"\0" in prefix:
        return False
    from parsers.ftrace.chrome import looks_like_chrome  # noqa: PLC0415
    from parsers.ftrace.dialects import parse_contexts  # noqa: PLC0415  (imports numpy)
    from parsers.ftrace.foreign import looks_like_other_tracer  # noqa: PLC0415
    from parsers.ftrace.graph import looks_like_graph  # noqa: PLC0415

    if b"Dumping ftrace buffer:" in prefix or looks_like_chrome(prefix):
        return True
    lines = _first_lines(prefix)
    if not lines:
        return False
    known = int(parse_contexts(lines).known.sum())
    return known * 2 > len(lines) or looks_like_graph(prefix) or looks_like_other_tracer(lines)


def _first_lines(prefix: bytes) -> list[bytes]:
    """The first lines of events."""
    lines = prefix.split(b"\n")[:-1]
    return [line for line in lines if line.strip() and not line.startswith((b"#", b" =>", b"=>", b"\t"))][:_LINES]


def read(source: bytes | str | Path, *, path: str = "", progress: Progress | None = None) -> Trace:
    """Read a trace of any format, found out by content.

    ``source`` is the bytes or the path of a file; ``path`` names bytes in messages; ``progress`` is called with (bytes
    done, bytes in all).  Raises InputError for a file that cannot be read, FormatError for a trace that is
    damaged, has too many events, or is of a format that leaves out what is needed.
    """
    from parsers.ftrace.scan import Source  # noqa: PLC0415

    data = source if isinstance(source, bytes) else None
    opened = Source(path or ("" if data is not None else str(source)), data)
    try:
        return _read(opened, source, progress)
    except FormatError as error:
        error.path = error.path or opened.path
        raise


def _read(opened: Source, source: bytes | str | Path, progress: Progress | None) -> Trace:
    from parsers.ftrace.chrome import looks_like_chrome  # noqa: PLC0415
    from parsers.ftrace.foreign import REFUSED, looks_like_other_tracer  # noqa: PLC0415
    from parsers.ftrace.graph import looks_like_graph, read_graph  # noqa: PLC0415
    from parsers.ftrace.health import examine  # noqa: PLC0415
    from parsers.ftrace.log import looks_like_log, read_log  # noqa: PLC0415
    from parsers.ftrace.report_graph import is_reported_graph  # noqa: PLC0415
    from parsers.ftrace.text import HEAD_SIZE, read_text  # noqa: PLC0415

    head = opened.head(HEAD_SIZE)
    if looks_like_chrome(head):
        opened = _of_chrome(opened, source)
        head = opened.head(HEAD_SIZE)
    if head.startswith(_MAGIC[:3]):
        from parsers.ftrace.tracedat import read_tracedat  # noqa: PLC0415

        trace: Trace = read_tracedat(opened, progress)
    elif b"\0" in head[:512]:
        raise FormatError("binary, and not a trace.dat", path=opened.path, offset=head.index(b"\0"))
    elif looks_like_other_tracer(_first_lines(head)):
        raise FormatError(REFUSED, path=opened.path)
    elif looks_like_log(head):
        trace = read_log(opened, progress)
    elif looks_like_graph(head) and not is_reported_graph(head):
        trace = read_graph(opened, progress)
    else:
        trace = read_text(opened, progress)
    if not len(trace) and trace.format != "dmesg":
        nothing = Diagnostic("no event of memory hotplug is in the trace", path=opened.path)
        trace = replace(trace, diagnostics=(*trace.diagnostics, nothing))
    return replace(trace, health=examine(trace))


def _of_chrome(opened: Source, source: bytes | str | Path) -> Source:
    """The text of ftrace in a trace of Chrome or Perfetto."""
    from parsers.ftrace.chrome import MAX_BYTES, REFUSED, system_trace  # noqa: PLC0415
    from parsers.ftrace.scan import Source  # noqa: PLC0415

    if isinstance(source, bytes):
        data = source
    else:
        with Path(source).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    text = system_trace(data) if len(data) <= MAX_BYTES else b""
    if not text:
        raise FormatError(REFUSED, path=opened.path)
    return Source(opened.path, text)
