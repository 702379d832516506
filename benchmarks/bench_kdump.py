"""The page-table walk of kdumps in each compression, beside decompressing the same pages with all processors.

    python benchmarks/bench_kdump.py [--gib 1024] [--directory /dev/shm] [CODEC...]

The tables map a linear map of pages.  The yardstick is a process for each processor; each reads its share of the file
and calls the library for one page after the other.  Prints times, CPU times, and the peak resident size of the walk,
which is timed in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import cramjam
import lzallright
import numpy as np
import zstandard
from linear_map import PACKERS, UNIT, LinearMap, figures_of, peak_mib, write_kdump

from parsers.vmcore.addresses import AddressMap
from parsers.vmcore.opening import open_dump
from parsers.vmcore.pagetable import walk_page_tables


def unpacker(codec: str) -> Callable[[bytes], object]:
    """What unpacks a page."""
    if codec == "zlib":
        return zlib.decompress
    if codec == "lzo":
        return lambda page: lzallright.LZOCompressor.decompress(page, output_size_hint=UNIT)
    if codec == "snappy":
        room = bytearray(UNIT)
        return lambda page: cramjam.snappy.decompress_raw_into(page, room)
    return zstandard.ZstdDecompressor().decompress


def unpack_share(path: Path, codec: str, share: list[tuple[int, int]], begin: multiprocessing.Barrier) -> None:
    unpack = unpacker(codec)
    with path.open("rb") as file:
        begin.wait()
        for number in range(0, len(share), 256):
            some = share[number : number + 256]
            first = some[0][0]
            data = os.pread(file.fileno(), some[-1][0] + some[-1][1] - first, first)
            for offset, size in some:
                unpack(data[offset - first : offset - first + size])


def unpack_all(path: Path, codec: str, places: np.ndarray) -> float:
    """Seconds to unpack all pages with all processors."""
    fork, number = multiprocessing.get_context("fork"), len(os.sched_getaffinity(0))
    begin = fork.Barrier(number + 1)
    shares = [[tuple(row) for row in part.tolist()] for part in np.array_split(places, number)]
    processes = [fork.Process(target=unpack_share, args=(path, codec, share, begin)) for share in shares]
    for process in processes:
        process.start()
    begin.wait()
    start = time.perf_counter()
    for process in processes:
        process.join()
    return time.perf_counter() - start


def walk_only(dump: Path) -> None:
    raw = open_dump(dump)
    addresses = AddressMap.from_vmcoreinfo(raw.vmcoreinfo)
    start, processor = time.perf_counter(), time.process_time()
    walk = walk_page_tables(raw.memory, addresses, source="kdump")
    times = time.perf_counter() - start, time.process_time() - processor
    print(f"{times[0]:.3f} {times[1]:.3f} {peak_mib()} {len(walk.mapping)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("codecs", nargs="*", choices=[[], *PACKERS])
    parser.add_argument("--gib", type=int, default=1024)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--walk-only", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.walk_only:
        walk_only(options.walk_only)
        return
    source = LinearMap(options.gib)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        for codec in options.codecs or PACKERS:
            dump = Path(directory) / "kdump"
            places = write_kdump(dump, source, codec)
            yardstick = unpack_all(dump, codec, places)
            walk, processor, peak, rows = figures_of(__file__, dump)
            print(
                f"{codec}: walk {walk} s, {processor} s of CPU time, peak {peak} MiB, {rows} rows; "
                f"decompressing alone {yardstick:.3f} s; ratio {float(walk) / yardstick:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
