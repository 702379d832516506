"""A guest without QEMU for tests of the explorer: a toy of a kernel that can have a planted bug."""

from __future__ import annotations

import json

from fixtures.lab.explore.auditor import Found, Seen
from fixtures.lab.explore.guest import DeadError, Result

BLOCK = 128 << 20
FIRST = 0x80000000


class ToyGuest:
    """Namespaces, DIMMs and memory blocks.

    Its bug: disabling a namespace tears the struct pages of the one behind it, if that is active; disabling that one
    then ends the guest.
    """

    def __init__(self, *, has_bug=True):
        self.has_bug = has_bug
        self.blocks = {8: "online", 9: "online"}
        self.namespaces = {}
        self.torn = set()
        self.log = ["[    0.000000] Linux version 7.3.4"]
        self.made = 0
        self.closed = False

    def perform(self, operation, world):
        return getattr(self, f"_{operation.verb}", self._other)(operation, world)

    def _other(self, _operation, _world):
        return Result("", {})

    def _plug(self, operation, world):
        first = operation.address // BLOCK
        self.blocks |= {first + number: "offline" for number in range(operation.size // BLOCK)}
        world.dimms[operation.what] = (operation.address, operation.size)
        return Result("", {})

    def _state(self, operation, state):
        done = {}
        for number in map(int, operation.what.split()):
            there = number in self.blocks
            if there:
                self.blocks[number] = state
            done[f"{operation.verb}:memory{number}"] = there
        return Result("", done)

    def _online(self, operation, _world):
        return self._state(operation, "online")

    def _offline(self, operation, _world):
        return self._state(operation, "offline")

    def _create(self, operation, _world):
        name = f"namespace0.{len(self.namespaces)}"
        self.made += operation.size
        self.namespaces[name] = [True, FIRST + self.made - operation.size, FIRST + self.made]
        return Result("", {f"create:{operation.size}": True})

    def _disable(self, operation, _world):
        name = operation.what
        if not self.namespaces.get(name, [False])[0]:
            return Result("", {f"disable:{name}": False})
        if name in self.torn:
            self.log.append("[   20.000000] Unable to handle kernel paging request at virtual address 0")
            raise DeadError("the toy died")
        self.namespaces[name][0] = False
        names = list(self.namespaces)
        behind = names[names.index(name) + 1 :][:1]
        if self.has_bug and behind and self.namespaces[behind[0]][0]:
            self.torn.add(behind[0])
        return Result("", {f"disable:{name}": True})

    def capture(self, into):
        into.mkdir(parents=True, exist_ok=True)
        text = "block_size_bytes:8000000\n" + "".join(f"memory{n}/state:{s}\n" for n, s in self.blocks.items())
        (into / "memory_blocks").write_text(text)
        (into / "kernel_page_tables").write_text("")
        (into / "dmesg").write_text("\n".join(self.log) + "\n")
        listed = [
            {"dev": name, "mode": "devdax", "size": high - low, **({} if active else {"state": "disabled"})}
            for name, (active, low, high) in self.namespaces.items()
        ]
        (into / "ndctl.json").write_text(json.dumps([{"dev": "region0", "namespaces": listed}]))
        (into / "torn.json").write_text(json.dumps([self.namespaces[name][1:] for name in sorted(self.torn)]))

    def dump(self, into):
        into.write_bytes(b"dump")

    def console(self):
        return "\n".join(self.log)

    def close(self):
        self.closed = True


class ToyAuditor:
    """Sees what is torn; predicts that everything is safe."""

    def look(self, *paths):
        torn = paths[0] / "torn.json"
        if not torn.exists():
            return Seen()
        ranges = json.loads(torn.read_text())
        namespaces = json.loads((paths[0] / "ndctl.json").read_text())[0]["namespaces"]
        pfns = tuple((low >> 12, high >> 12) for low, high in ranges)
        found = (Found("VMM-02", "critical", "proven", "Struct pages are gone", "", pfns),) if ranges else ()
        states = tuple((n << 15, (n + 1) << 15, "valid") for n in range(len(namespaces)))
        return Seen(findings=found, states=states)

    def predict(self, _capture, operations):
        return [{"operation": one, "answer": "safe", "why": "", "breaks": [], "notes": []} for one in operations]

    def distill(self, dump, into):
        into.write_bytes(dump.read_bytes())

    def close(self):
        """Nothing to end."""


__all__ = ["BLOCK", "FIRST", "ToyAuditor", "ToyGuest"]
