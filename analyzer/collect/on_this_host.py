"""Collecting on a host: the same shell script that hosts without Python run (``collect.sh``)."""

from __future__ import annotations

import gc
import os
import platform
import re
import shlex
import shutil
import subprocess
import tarfile
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from analyzer.sources.crashdump import Symbols, distill_vmcore
from analyzer.sources.running import HOST_CORE, KCORE, kcore_refusal, memory_generation, read_running
from analyzer.temporary import folder
from parsers.errors import InputError, MissingDependencyError, PtauditError
from parsers.expressions import expression
from parsers.image.code import CALLED, FUNCTIONS
from parsers.kinds import KINDS, When

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from analyzer.sources.read import Request
    from parsers.kinds import Kind
    from parsers.vmcore.extract import VmcoreFacts

__all__ = ["collect", "collect_with_memory", "live", "python_script", "script"]

CAPTURE = "capture/"
_NICE = 10
_IDLE = "3"
"""The class of ``ionice`` that is served when nobody else wants the disk."""
_ATTEMPTS = 3
_CLEANING = 5.0
"""Seconds that the script has to remove what it made, when it is told to end."""
_PARTS = ("kernel.py", "exports.py", "crash_image.py", "small_core.py", "collector.py")
_OWN_IMPORT = expression(r"^from analyzer\..*\n", re.MULTILINE)
_SHELL = expression(r"[^\w\s/.,:+=@%-]")
"""What a command holds that the script's plain word splitting does not understand."""


def script() -> str:
    """The collecting script, POSIX sh: ``collect.sh`` with the items of `parsers.kinds`."""
    template = resources.files("analyzer.collect").joinpath("collect.sh").read_text(encoding="utf-8")
    kinds = [kind for kind in KINDS.values() if kind.is_collected]
    private = " ".join(kind.collected_as for kind in kinds if kind.private)
    return template.replace("@PRIVATE@", private).replace("#@ITEMS@", "\n".join(_items(kinds)))


def python_script() -> str:
    """The collecting script for Python 3.6 and later: `analyzer.collect.without_packages` and the shell script.

    It takes the small core, too, which holds what `distill` of /proc/kcore writes.
    """
    home = resources.files("analyzer.collect.without_packages")
    parts = [_OWN_IMPORT.sub("", home.joinpath(name).read_text(encoding="utf-8")) for name in _PARTS]
    shell = script()
    if '"""' in shell or not shell.endswith("\n"):
        raise ValueError("the collecting script cannot be quoted")
    names = f"CALLED = {CALLED!r}\nFUNCTIONS = {FUNCTIONS!r}\n"
    parts[0] = parts[0].replace("from parsers.image.code import CALLED, FUNCTIONS\n", names, 1)
    whole = "\n\n".join(part.strip("\n") for part in parts) + "\n"
    return whole.replace('TEXT_SOURCES = ""', f'TEXT_SOURCES = r"""{shell}"""', 1)


def _items(kinds: Sequence[Kind]) -> Iterator[str]:
    """A variable of the script for each time of collecting, and the functions of commands that need a shell."""
    called = {kind.name: kind.function or kind.command for kind in kinds}
    for kind in kinds:
        if _SHELL.search(called[kind.name]):
            called[kind.name] = f"read_{kind.name}"
            yield f"read_{kind.name}() {{ {kind.command}; }}\n"
    yield "# Name; whether root is needed; what it is; command; condition."
    for when in When:
        items = "\n".join(_item(kind, called[kind.name]) for kind in kinds if kind.when is when)
        yield f"items_{when.name.lower()}={shlex.quote(items)}"


def _item(kind: Kind, command: str) -> str:
    fields = (kind.collected_as, "root" if kind.root else "", kind.what, command, kind.only_if)
    if any(mark in field for field in fields for mark in ";\n"):
        raise ValueError(f"a semicolon or line end in what the collecting script is given of {kind.name}: {fields}")
    return ";".join(fields)


def collect(arguments: Sequence[str]) -> int:
    """Run the script on this host, its notes on standard error; its exit status."""
    shell = shutil.which("sh")
    if shell is None:
        raise MissingDependencyError("collecting needs a shell, and sh was not found")
    reader = subprocess.Popen([shell, "-s", "--", *arguments], stdin=subprocess.PIPE, text=True)  # noqa: S603 our own script
    try:
        reader.communicate(script())
    except BaseException:  # a signal: the script removes what it made
        with suppress(OSError, subprocess.TimeoutExpired):
            reader.terminate()
            reader.wait(_CLEANING)
        raise
    return reader.returncode


def collect_with_memory(arguments: Sequence[str], output: str | None, *, redact: bool) -> int:
    """Run the script, and add the small core of this kernel's memory to what it takes; its exit status.

    Where the memory cannot be read, one line says so and the script's own bundle is the result.  So it is with
    ``redact``: pages are kept whole, and the host's name may lie beside what is read.  Raises InputError when the
    bundle cannot be written.
    """
    _give_way()
    refusal = f"whole pages of {KCORE} cannot be redacted" if redact else kcore_refusal()
    if output is not None and output.endswith("/"):
        status = collect([*arguments, "-o", output])
        return status or _add_core(Path(output), refusal)
    host = "host" if redact else re.sub(r"[^A-Za-z0-9._-]", "_", platform.node())
    target = Path(output or f"ptaudit-{host}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")
    if not target.name.endswith((".tar.gz", ".tgz")):
        target = target.with_name(f"{target.name}.tar.gz")
    try:
        with folder(beside=target.parent) as temporary:
            home = temporary / "capture"
            status = collect([*arguments, "-o", f"{home}/"]) or _add_core(home, refusal)
            if status == 0:
                _pack(home, temporary / "bundle", target)
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror or error}", path=str(target)) from error
    return status


def _add_core(home: Path, refusal: str | None) -> int:
    """Add the small core to a capture, or to its manifest why there is none."""
    try:
        if refusal is not None:
            raise InputError(refusal)
        kept = distill_vmcore((KCORE,), home / HOST_CORE, Symbols(), with_dmesg=False)
        click.echo(f"taken: {HOST_CORE}, {kept.pages} pages of page tables and metadata, no user data", err=True)
    except PtauditError as error:
        click.echo(f"collect: {error.message}: the bundle has no {HOST_CORE}", err=True)
        _note_missing_core(home, error.message)
    return 0


def _note_missing_core(home: Path, why: str) -> None:
    """Say in the manifest why there is no small core, so that an audit asks for nothing that cannot be had."""
    with suppress(OSError), (home / KINDS["manifest"].collected_as).open("a", encoding="utf-8") as manifest:
        manifest.write(f"{HOST_CORE}\t-\t-\t0\t{' '.join(why.split())}\n")


def _pack(home: Path, bundle: Path, target: Path) -> None:
    """A tar.gz of a capture that only its owner can read; it appears whole or not at all."""
    bundle.touch(0o600, exist_ok=False)
    with tarfile.open(bundle, mode="w:gz") as archive:
        for path in sorted(home.iterdir()):
            archive.add(path, arcname=path.name)
    bundle.replace(target)
    click.echo(f"written: {target} ({target.stat().st_size} bytes)", err=True)


def _give_way() -> None:
    """Let all other work on this host go first: processor and disk."""
    with suppress(OSError):  # a service may be forbidden to, and has its own priority
        os.nice(max(0, _NICE - os.nice(0)))
    ionice = shutil.which("ionice")
    if ionice is not None:
        command = [ionice, "-c", _IDLE, "-p", str(os.getpid())]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)  # noqa: S603 on itself


def _is_settled(memory: VmcoreFacts | str, before: tuple[bytes, ...]) -> bool:
    """Whether no memory came or went since the reading of this kernel's memory began, or that was not read."""
    if isinstance(memory, str):
        return True
    in_flux = memory.flux is not None and memory.flux.matters
    return not in_flux and memory_generation() == before and (memory.settled is None or memory.settled())


@contextmanager
def live(request: Request, keep: Path | None) -> Iterator[Request]:
    """The request with a capture of this host beside its paths, and what its kernel's memory shows if it can be read.

    Both are of one moment, or are taken again, a bounded number of times; lists of memory are then left out.  ``keep``,
    if given, is where the capture stays.
    """
    with folder() as temporary:
        home = Path(f"{keep or temporary}/{CAPTURE}")
        _give_way()
        for attempt in range(_ATTEMPTS):
            if attempt:
                shutil.rmtree(home)
            before = memory_generation()
            memory = read_running(request.symbols)
            if collect(["-o", f"{home}/"]) != 0:
                raise InputError("this host could not be captured", path=str(home))
            settled = _is_settled(memory, before)
            if settled or (not isinstance(memory, str) and memory.flux is not None and memory.flux.matters):
                break  # what is in flux was read several times already
            if attempt < _ATTEMPTS - 1:
                del memory
                gc.collect()  # it is full of cycles, and as large as the next one
        if isinstance(memory, str):
            click.echo(f"ptaudit: {memory}: only text sources are audited", err=True)
            _note_missing_core(home, memory)
        elif not settled:
            click.echo("ptaudit: memory came and went meanwhile: lists of it are left out", err=True)
            for kind in KINDS.values():
                if kind.when is When.STATE:
                    (home / kind.collected_as).unlink(missing_ok=True)
        running = None if isinstance(memory, str) else memory
        yield replace(request, paths=(*request.paths, home), running=running)
