"""The files of a capture directory: what may be read of them, which are dumps, which are several captures.

Nothing here follows a link out of the directory, or opens a device or a pipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from analyzer.sources.archive_format import HEAD_BYTES, archive_format, inner_format, plain_name
from analyzer.sources.crashdump import whole_dumps
from analyzer.sources.folder import MAX_DEPTH, below
from analyzer.sources.found import UNENDED, digest, head_of
from analyzer.sources.unread import Unread
from parsers.compressed import first_bytes
from parsers.errors import InputError, UsageError
from parsers.expressions import expression
from parsers.kinds import KINDS, kind_of_path
from parsers.lines import at_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from parsers.errors import Diagnostic
    from parsers.evidence import Kind

__all__ = [
    "NOT_LISTED",
    "Attribute",
    "attribute_of",
    "digest_of_tree",
    "is_archive",
    "is_wanted",
    "other_captures",
    "refuse_several_dumps",
    "unended_files",
    "walk",
]

NOT_LISTED = "the directory cannot be listed"
TOO_DEEP = f"directories are nested more than {MAX_DEPTH} deep"
LEADS_OUT = "a link that leads out of the directory, not followed: name its target"
_TEXT_BYTES = 4096
_DUMP_HOME = expression(r"(?:^|/)sys/kernel/debug$")


class Attribute(NamedTuple):
    """A file of sysfs: the kind of evidence whose tree it belongs to, and its path in the tree."""

    kind: Kind
    path: str


def attribute_of(relative: str) -> Attribute | None:
    """What attribute of sysfs a path in a capture is."""
    trees = ((kind, kind.tree.attribute(relative)) for kind in KINDS.values() if kind.tree is not None)
    return next((Attribute(kind, path) for kind, path in trees if path is not None), None)


def is_wanted(relative: str) -> bool:
    """Whether a path in a capture says that the file is understood."""
    return kind_of_path(relative) is not None or attribute_of(relative) is not None


def walk(root: Path, unread: list[Unread]) -> Iterator[tuple[str, Path]]:
    """Regular files below ``root``, by relative path; anything else, and links that leave it, go to ``unread``."""
    base = root.resolve()
    for relative, path in below(root):
        try:
            if path.is_dir() and not path.is_symlink():
                too_deep = relative.count("/") >= MAX_DEPTH
                unread.append(Unread(str(path), TOO_DEEP if too_deep else NOT_LISTED))
            elif path.is_symlink() and base not in path.resolve().parents:
                unread.append(Unread(str(path), LEADS_OUT))
            elif path.is_file():
                yield relative, path
            elif not path.is_dir():
                unread.append(Unread(str(path), "not a regular file" if path.exists() else "a link to nothing"))
        except (OSError, RuntimeError) as error:  # a loop of links
            unread.append(Unread(str(path), getattr(error, "strerror", None) or str(error)))


def is_archive(path: Path, relative: str) -> bool:
    """Whether a file of a capture is an archive, or text or evidence that is compressed."""
    try:
        head = head_of(path, HEAD_BYTES)
    except InputError:
        return False
    if inner_format(head) in {"tar", "zip"}:
        return True
    if not archive_format(head) or is_wanted(relative):
        return False
    return is_wanted(plain_name(relative)) or b"\0" not in first_bytes(head, _TEXT_BYTES)


def other_captures(root: str, names: Mapping[str, object]) -> list[str]:
    """Directories, relative to the root, that are separate captures beside the one in the root itself.

    Raises `UsageError` where there are several and none lies in the root: they are several machines or moments.
    """
    dump = KINDS["ptdump"].paths
    homes = sorted({_DUMP_HOME.sub("", str(Path(name).parent)) for name in names if dump.search(name)})
    if len(homes) < 2:
        return []
    if homes[0] not in {".", ""}:
        raise UsageError(f"holds several captures, name one: {', '.join(homes)}", path=root)
    return homes[1:]


def refuse_several_dumps(root: Path, dumps: list[Path]) -> None:
    """Refuse several dumps: only the user knows which is the state, and which came before; parts of one are one."""
    several = [paths[0] for paths in whole_dumps(dumps)] if len(dumps) > 1 else []
    if len(several) > 1:
        names = ", ".join(str(path.relative_to(root)) for path in several)
        raise UsageError(f"holds several crash dumps, name one, or the earlier and the later: {names}", path=str(root))


def unended_files(files: Mapping[str, bytes], path: str) -> tuple[Diagnostic, ...]:
    """Warn of files of sysfs that lack the newline at their end."""
    names = sorted(name for name, data in files.items() if data and not data.endswith(b"\n"))
    return at_lines(f"{names[0]}: {UNENDED}", [0] * len(names), path) if names else ()


def digest_of_tree(files: Mapping[str, bytes]) -> str:
    """SHA-256 of the files of a tree of sysfs, by path."""
    return digest(b"".join(name.encode() + b"\0" + files[name] for name in sorted(files)))
