"""Bundles of a made-up fleet: variants of the captures, some damaged, some broken.

    python benchmarks/make_bundles.py bundles/ [--count 2000] [--seed 0]

Every bundle is a capture under another host name and on another machine; two fifths report a release that is not the
capture's.  5 % are damaged (a file cut short, missing, or with lines overwritten), 1 % are broken (empty,
noise).  The same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import random
import re
from pathlib import Path

CAPTURES = Path(__file__).parents[1] / "fixtures" / "captures"
RELEASES = ("6.12.15", "6.12.43", "6.6.80", "6.1.120", "5.10.230", "5.14.0-427.el9.aarch64", "6.8.0-45-generic")
MACHINES = ("Ampere Altra Rev A1", "HPE ProLiant RL300 Gen11", "Gigabyte R152-P31", "QEMU QEMU Virtual Machine")
DAMAGED, BROKEN = 0.05, 0.01


def moments() -> list[dict[str, bytes]]:
    """Files of every capture, in order."""
    homes = sorted(path.parent for path in CAPTURES.glob("*/*/kernel_page_tables"))
    return [{path.name: path.read_bytes() for path in sorted(home.iterdir()) if path.is_file()} for home in homes]


def variant(files: dict[str, bytes], host: str, chance: random.Random) -> dict[str, bytes]:
    """The capture as if it were of another host."""
    made = dict(files)
    if chance.random() < 0.4:
        release = chance.choice(RELEASES).encode()
        captured = made["uname"].split()[2]
        for name in {"uname", "dmesg"} & made.keys():
            made[name] = made[name].replace(captured, release)
    made["uname"] = re.sub(rb"^Linux \S+", b"Linux " + host.encode(), made["uname"])
    model = f"[    0.000000] DMI: {chance.choice(MACHINES)}, BIOS 1.{chance.randrange(40)} 01/01/2025\n"
    made["dmesg"] = made.get("dmesg", b"") + model.encode()
    return made


def damage(files: dict[str, bytes], chance: random.Random) -> dict[str, bytes]:
    """One file cut short, missing, or overwritten in part."""
    made = dict(files)
    name = chance.choice(sorted(made))
    data = made[name]
    how = chance.randrange(3)
    if how == 0:
        made[name] = data[: chance.randrange(len(data) or 1)]
    elif how == 1:
        del made[name]
    else:
        start = chance.randrange(len(data) or 1)
        made[name] = data[:start] + chance.randbytes(200) + data[start + 200 :]
    return made


def broken(chance: random.Random) -> dict[str, bytes]:
    """Nothing that can be read."""
    return chance.choice(
        ({"kernel_page_tables": b""}, {"kernel_page_tables": chance.randbytes(4096)}, {"iomem": b"\0" * 512})
    )


def make_bundles(folder: Path, count: int, seed: int = 0) -> None:
    captures = moments()
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")
        host = f"host{number:06d}"
        files = variant(captures[number % len(captures)], host, chance)
        fate = chance.random()
        if fate < BROKEN:
            files = broken(chance)
        elif fate < BROKEN + DAMAGED:
            files = damage(files, chance)
        home = folder / host
        home.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (home / name).write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make_bundles(arguments.folder, arguments.count, arguments.seed)


if __name__ == "__main__":
    main()
