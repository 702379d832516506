"""One evidence set is one machine in one boot: what was read must not contradict that.

Only what cannot both be true is refused.  A log may hold several boots, so it agrees with any of them; one that an
earlier boot has left agrees with all.  A host may be given another name while it runs, so names that differ are a doubt
and no contradiction.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from parsers.errors import ArchitectureError, Diagnostic, UsageError
from parsers.expressions import expression
from parsers.kinds import is_of_an_earlier_boot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from parsers.errors import PtauditError

__all__ = ["doubt_of_names", "own_configs", "own_releases", "refuse_other_architectures", "refuse_strangers"]

_ARM64 = ("aarch64", "armv8")
"""As ``uname -m`` says it, in a 32-bit shell too."""


_SERIES = expression(r"\d+\.\d+")
_NAMED_CONFIG = expression(r"(?:^|/)config-(\d+\.\d[^/]*?)(?:\.(?:gz|xz|bz2|zst))?$")


class _Statement(NamedTuple):
    """What one source says: any of ``values`` may be it."""

    kind: str
    source: str
    values: frozenset[object]


def _one(value: object) -> frozenset[object]:
    return frozenset() if value in {None, ""} else frozenset({value})


def _address(value: int | None) -> frozenset[object]:
    return frozenset() if value is None else _one(value % 2**64)


def _release_of_log(log: Any) -> frozenset[object]:  # noqa: ANN401 parsers.dmesg.Dmesg, which is slow to import
    """The releases that the banners name, or the oopses of a log that has lost its banner."""
    named = frozenset(boot.release.raw for boot in log.boots if boot.release is not None)
    printed = (report.release.partition(" ")[0] for report in log.reports.reports)
    return named or frozenset(release for release in printed if release)


def _page_sizes_of_log(log: Any) -> frozenset[object]:  # noqa: ANN401
    return frozenset(report.page_size for report in log.reports.reports if report.page_size)


def _whole(log: Any) -> bool:  # noqa: ANN401
    """Every boot of the log says which kernel it is."""
    return all(boot.release is not None for boot in log.boots)


def _series(release: Any) -> frozenset[object]:  # noqa: ANN401 parsers.uname.KernelRelease
    return _one(f"{release.series[0]}.{release.series[1]}")


def _series_of_config(config: Any) -> frozenset[object]:  # noqa: ANN401
    """Distributions name the release after its first version, the configuration after the one it was made for."""
    found = _SERIES.match(config.release)
    return _one(found[0] if found else None)


_SAID: Mapping[str, tuple[tuple[str, Callable[[Any], frozenset[object]]], ...]] = {
    "boot id": (("boot_id", lambda one: _one(one.value)),),
    "kernel release": (
        ("uname", lambda one: _one(one.raw)),
        ("vmcoreinfo", lambda one: _one(one.osrelease)),
        ("vmcore", lambda one: _one(one.release)),
        ("trace", lambda one: _one(one.release)),
        ("dmesg", lambda one: _release_of_log(one) if _whole(one) or len(one.boots) == 1 else frozenset()),
    ),
    "kernel series": (
        ("uname", _series),
        ("config", _series_of_config),
        ("dmesg", lambda one: frozenset[object]().union(*(_series(boot.release) for boot in one.boots if _whole(one)))),
    ),
    "page size": (
        ("config", lambda one: _one(one.page_size)),
        ("vmcoreinfo", lambda one: _one(one.page_size)),
        ("vmcore", lambda one: _one(one.vmcoreinfo.page_size)),
        ("dmesg", _page_sizes_of_log),
    ),
    "kimage_voffset": (
        ("vmcoreinfo", lambda one: _address(one.number("kimage_voffset"))),
        ("vmcore", lambda one: _one(one.addresses.kimage_voffset)),
    ),
    "PHYS_OFFSET": (
        ("vmcoreinfo", lambda one: _address(one.number("PHYS_OFFSET"))),
        ("vmcore", lambda one: _one(one.addresses.phys_offset)),
        (
            "dmesg",
            lambda one: frozenset(said.phys_offset for said in one.reports.panics if said.phys_offset is not None),
        ),
    ),
}


def _names(*names: str) -> frozenset[object]:
    """Host names without their domain; the name of a host that has none yet is ignored."""
    short = {name.strip().partition(".")[0].lower() for name in names}
    return frozenset(short - {"", "(none)", "localhost"})


_CALLED: tuple[tuple[str, Callable[[Any], frozenset[object]]], ...] = (
    ("uname", lambda one: _names(one.nodename)),
    ("dmesg", lambda one: _names(*(name for boot in one.boots for name in boot.host_names))),
    ("vmcore", lambda one: _names(one.nodename)),
)


def own_configs(parsed: Mapping[str, Sequence[Any]]) -> list[Any]:
    """The configurations without those of other kernels installed: /boot/config-RELEASE names its kernel."""
    running = {one.raw for one in parsed.get("uname", ())}
    named = ((config, _NAMED_CONFIG.search(config.path)) for config in parsed.get("config", ()))
    return [config for config, name in named if not running or name is None or name[1] in running]


_ATTRIBUTED = {"uname", "dmesg"}
"""A mail may quote a log besides: each oops is decoded by the release that it prints."""


def own_releases(parsed: Mapping[str, Sequence[Any]]) -> list[Any]:
    """The releases without those of another architecture: ``uname`` of the wrong host."""
    return [one for one in parsed.get("uname", ()) if not _is_foreign(one)]


def _is_foreign(release: Any) -> bool:  # noqa: ANN401 parsers.uname.KernelRelease
    return bool(release.arch) and not release.arch.startswith(_ARM64)


_SHOWS_ARM64: Mapping[str, Callable[[Any], bool]] = {
    "ptdump": lambda _: True,
    "vmcore": lambda _: True,
    "kernel": lambda _: True,
    "cpuinfo": lambda _: True,
    "config": lambda one: one.is_enabled("ARM64") is True,
    "vmcoreinfo": lambda one: one.number("kimage_voffset") is not None,
    "uname": lambda one: one.arch.startswith(_ARM64),
    "dmesg": lambda one: (
        bool(one.reports.reports)
        or any(boot.release is not None and boot.release.arch.startswith(_ARM64) for boot in one.boots)
    ),
}
"""Whether evidence of a kind can only be of arm64; parsers of most refuse other architectures."""


def refuse_other_architectures(parsed: Mapping[str, Sequence[Any]], failures: Sequence[PtauditError]) -> None:
    """ArchitectureError where evidence is of another architecture, and none that was read is of arm64."""
    if any(shows(one) for kind, shows in _SHOWS_ARM64.items() for one in parsed.get(kind, ())):
        return
    for error in failures:
        if isinstance(error, ArchitectureError):
            raise error
    for one in filter(_is_foreign, parsed.get("uname", ())):
        raise ArchitectureError(f"the release of a kernel for {one.arch}, not for arm64", path=one.path, line=one.line)


def refuse_strangers(parsed: Mapping[str, Sequence[Any]]) -> None:
    """UsageError where two sources, by kind, say what cannot both be true of one machine in one boot."""
    for what, readers in _SAID.items():
        for first, second in _contradictions(parsed, readers):
            if first.source == second.source and {first.kind, second.kind} <= _ATTRIBUTED:
                continue
            raise UsageError(
                f"two machines or two boots: the {what} is {_words(first)} and {_words(second)}; "
                "audit them one by one, or compare them with diff"
            )


def doubt_of_names(parsed: Mapping[str, Sequence[Any]]) -> Diagnostic | None:
    """What is odd if two sources call the host by different names, with the path of the second."""
    for first, second in _contradictions(parsed, _CALLED):
        return Diagnostic(f"two machines? The host is called {_words(first)} and {_words(second)}", second.source)
    return None


def _contradictions(
    parsed: Mapping[str, Sequence[Any]], readers: Sequence[tuple[str, Callable[[Any], frozenset[object]]]]
) -> Iterator[tuple[_Statement, _Statement]]:
    statements = _statements(parsed, readers)
    return ((one, other) for one, other in combinations(statements, 2) if not one.values & other.values)


def _statements(
    parsed: Mapping[str, Sequence[Any]], readers: Sequence[tuple[str, Callable[[Any], frozenset[object]]]]
) -> Iterator[_Statement]:
    for kind, read in readers:
        for source in parsed.get(kind, ()):
            values = read(source)
            if values and not (kind == "dmesg" and is_of_an_earlier_boot(source.path)):
                yield _Statement(kind, str(getattr(source, "path", "") or getattr(source, "source", kind)), values)


def _words(statement: _Statement) -> str:
    values = sorted(f"{value:#x}" if isinstance(value, int) else str(value) for value in statement.values)
    return f"{' or '.join(values)} in {statement.source}"
