"""The page docs/reference/bugs-by-code.md: python -m tests.docs.bugs_by_code > docs/reference/bugs-by-code.md"""

from __future__ import annotations

from collections import Counter

from rules.model.bugs import KNOWN_BUGS
from rules.model.code import SIGNATURES, shown_by_code
from tests.recorded_kernels import bug, recorded

HEAD = """# Bugs by code

Release strings do not say what distributors backport; the kernel's code does. Where ptaudit reads a kernel's code (a
crash dump, /proc/kcore, or `ptaudit audit vmlinuz-…`: an Image, gzip or zstd, EFI zboot, a vmlinux, a .deb or .rpm),
it finds the functions by the kernel's own kallsyms and compares what they call and do with what a fix changed.

A signature counts only if it separates kernels that are known to have the fix from kernels that are known to lack it.
The others of the [known bugs](known-bugs.md) are judged by state, trace or release, and code of a shape that none of
these kernels has is judged by nothing: unknown.

Each cell is verdict / truth: **F** fixed, **P** present, **?** unknown. Truth is the fix in the changelogs of the
stable releases that the package contains; **?** where none was available, **·** where the bug does not concern the
kernel (older than the bug, or another page size). The kernels are Debian's binaries for arm64, and one of the lab
with one commit reverted.

"""


def page() -> str:
    keys = list(SIGNATURES)
    names = [f"{number}" for number in range(1, len(keys) + 1)]
    legend = [f"{number}. `{bug(key).name}`: {bug(key).title}" for number, key in enumerate(keys, 1)]
    rows, counts = [], Counter[str]()
    for kernel in recorded():
        cells = []
        for key in keys:
            truth = kernel.truth(bug(key))
            shown = shown_by_code(key, kernel.code)
            verdict = "?" if shown is None else shown.state[0].upper()
            if truth is None:
                cells.append("·")
                continue
            cells.append(f"{verdict}/{truth[0].upper() if truth else '?'}")
            counts["unknown" if shown is None else "unverified" if not truth else "right"] += 1
            counts["wrong"] += bool(shown and truth and shown.state != truth)
        rows.append(f"| {kernel.name} | {kernel.upstream.raw} | {' | '.join(cells)} |")
    without = [f"`{one.name}`" for one in KNOWN_BUGS if one.key not in SIGNATURES]
    table = [f"| kernel | release | {' | '.join(names)} |", f"|---|---|{'---|' * len(keys)}", *rows]
    total = counts["unknown"] + counts["unverified"] + counts["right"]
    tail = (
        f"Of {total} verdicts {counts['right'] - counts['wrong']} agree with the changelogs, {counts['wrong']} do not, "
        f"{counts['unverified']} have no changelog to compare with, and {counts['unknown']} are unknown.\n\n"
        f"No signature: {', '.join(without)}.\n"
    )
    return HEAD + "\n".join(legend) + "\n\n" + "\n".join(table) + "\n\n" + tail


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
