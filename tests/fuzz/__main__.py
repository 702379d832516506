"""The long search, guided by coverage: ``python -m tests.fuzz --minutes 10 [target…]`` (needs the extra ``fuzz``).

Every target gets the same share of the time, each in processes of its own.  What breaks an invariant is kept once for
each place where it broke, under ``--findings``, and the search goes on; status 1 if there is any.  Inputs that reach new code are
in ``--work`` and are where the next run begins.  ``--keep`` puts those of them that reach lines no seed reaches into
fixtures/fuzz.  ``--replay FILE`` runs one input of one target.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import operator
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEMORY = 8 << 30
LEAKED = 2 << 30
"""Bytes that a process holds when it is restarted: atheris keeps some kilobytes of every input."""
MEGABYTE = 1_000_000
KEPT_BYTES = 24_000
"""The most that ``--keep`` adds for one target."""
OURS = ("parsers", "analyzer", "rules")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="target", help="as in tests/fuzz/targets.py")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together (10)")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "ptaudit-fuzz")
    parser.add_argument("--findings", type=Path, help="where findings go (WORK/findings)")
    parser.add_argument("--keep", action="store_true", help="add to fixtures/fuzz what reaches new lines; no search")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run this input, show what breaks")
    parser.add_argument("--search", action="store_true", help=argparse.SUPPRESS)  # the process of one target
    options = parser.parse_args()
    options.findings = options.findings or options.work / "findings"
    if options.search:  # before anything of ours is imported: it has to be instrumented
        return search(options.targets[0], options.minutes * 60, options.work, options.findings)
    from tests.fuzz.targets import TARGETS

    names = options.targets or list(TARGETS)
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if options.replay:
        from tests.fuzz.invariants import hold

        print(hold(TARGETS[names[0]], options.replay.read_bytes()))
        return 0
    if options.keep:
        for name in names:
            keep(name, options.work / name)
        return 0
    return sum(run(name, options.minutes / len(names), options.work, options.findings) for name in names) and 1


def run(name: str, minutes: float, work: Path, findings: Path) -> int:
    """One target in its own process, begun again where it died; the number of findings."""
    findings.mkdir(parents=True, exist_ok=True)
    before, end, executions = set(findings.glob(f"{name}-*")), time.monotonic() + 60 * minutes, 0
    while (left := end - time.monotonic()) > 1:
        command = [sys.executable, "-m", "tests.fuzz", "--search", "--minutes", str(left / 60), "--work", str(work)]
        done = subprocess.run(
            [*command, "--findings", str(findings), name],
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        inputs = int((re.findall(r"^#(\d+)", done.stderr, re.MULTILINE) or ["0"])[-1])
        executions += inputs
        if done.returncode:
            (findings / f"{name}-process-{int(time.time())}.log").write_text(done.stderr[-20000:])
        if not inputs:
            break
    found = sorted(set(findings.glob(f"{name}-*")) - before)
    print(
        f"{name:18} {executions:9,} executions, {len(found)} findings", *(f"\n    {path}" for path in found), flush=True
    )
    return len(found)


def search(name: str, seconds: float, work: Path, findings: Path) -> int:
    """libFuzzer on one target; never returns, for libFuzzer ends the process."""
    import atheris

    atheris._trace_cmp = _without_arrays(atheris._trace_cmp)
    with atheris.instrument_imports(include=list(OURS)):
        from parsers.errors import PtauditError
        from tests.fuzz.targets import TARGETS

        target = TARGETS[name]
        with contextlib.suppress(PtauditError):
            target.run(target.seeds()[0])  # imports what it needs, instrumented
    from tests.fuzz.invariants import hold, sampled
    from tests.fuzz.mutate import grow, mutate, pile, stretch

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.setrecursionlimit(1000)
    corpus, begin = work / name, work / f"{name}-seeds"
    shutil.rmtree(begin, ignore_errors=True)
    for folder in (corpus, begin, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.inputs()):
        (begin / str(number)).write_bytes(seed)
    words = target.words()
    known: set[str] = set()
    count = itertools.count(1)

    def one(data: bytes) -> None:
        number = next(count)
        if number % 64 == 0 and int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() > LEAKED:
            print(f"#{number}", file=sys.stderr, flush=True)
            os._exit(0)
        try:
            hold(target, data, twice=sampled(data))
        except Exception as error:
            place = _place(error)
            if place not in known:
                known.add(place)
                stem = findings / f"{name}-{zlib.crc32(place.encode()):08x}"
                stem.write_bytes(data)
                stem.with_suffix(".txt").write_text(f"{place}\n\n{''.join(traceback.format_exception(error))[-6000:]}")

    def change(data: bytes, limit: int, seed: int) -> bytes:
        rng = random.Random(seed)
        kind = rng.random()
        if kind < 0.25:
            return atheris.Mutate(data, limit)
        if kind < 0.254 and not target.binary:
            larger = rng.choice((grow, pile, stretch))
            return larger(rng, mutate(rng, data[: target.limit], words, target.limit), MEGABYTE)
        return mutate(rng, data[: target.limit], words, target.limit)

    atheris.Setup(
        [
            f"tests.fuzz-{name}",
            f"-max_total_time={max(int(seconds), 1)}",
            f"-artifact_prefix={findings}/{name}-",
            f"-max_len={MEGABYTE + (1 << 16)}",
            "-timeout=40",  # instrumented, on a busy machine; `hold` measures
            "-report_slow_units=40",
            "-rss_limit_mb=6144",
            "-len_control=0",
            "-reload=0",
            "-print_final_stats=1",
            str(corpus),
            str(begin),
        ],
        one,
        custom_mutator=change,
        internal_libfuzzer=True,
    )
    atheris.Fuzz()
    return 0


def _without_arrays(trace: Callable[..., object]) -> Callable[..., object]:
    """atheris's hook of comparisons, which leaks the result where it is an array."""
    import numpy as np

    operators = (operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge)

    def compare(left: object, right: object, number: int, *rest: object) -> object:
        if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
            return operators[number](left, right)
        return trace(left, right, number, *rest)

    return compare


def _place(error: BaseException) -> str:
    """Kind of error and the innermost lines of ours: the same defect has the same place."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if any(f"/{one}/" in frame.filename for one in OURS)
    ]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-2:]))
    text = re.sub(r"0x[0-9a-f]+|\d+", "#", str(error))[:100] if not frames or isinstance(error, AssertionError) else ""
    return f"{type(error).__name__} {where} {text}"


def keep(name: str, corpus: Path) -> None:
    """Add the inputs of a search that reach lines no seed and no kept input reaches, the smallest first."""
    from tests.fuzz.targets import CORPUS, TARGETS

    target = TARGETS[name]
    reached: set[tuple[str, int]] = set()
    for data in target.inputs():
        reached |= lines_of(target, data)
    room = KEPT_BYTES
    for path in sorted(corpus.glob("*"), key=lambda one: one.stat().st_size):
        data = path.read_bytes()
        if len(data) > room:
            break
        new = lines_of(target, data) - reached
        if new:
            reached |= new
            room -= len(data)
            home = CORPUS / name
            home.mkdir(parents=True, exist_ok=True)
            (home / f"{zlib.crc32(data):08x}").write_bytes(data)
            print(f"{name}: {len(new)} new lines in {len(data)} bytes")


def lines_of(target: object, data: bytes) -> set[tuple[str, int]]:
    """Lines of ours that one input reaches."""
    from tests.fuzz.invariants import hold

    reached: set[tuple[str, int]] = set()
    mine = tuple(f"{ROOT}/{one}/" for one in OURS)

    def inside(frame, event, _):
        if event == "line":
            reached.add((frame.f_code.co_filename, frame.f_lineno))
        return inside

    sys.settrace(lambda frame, *_: inside if frame.f_code.co_filename.startswith(mine) else None)
    try:
        hold(target, data, twice=False)  # type: ignore[arg-type]
    except Exception:
        return set()
    finally:
        sys.settrace(None)
    return reached


if __name__ == "__main__":
    sys.exit(main())
