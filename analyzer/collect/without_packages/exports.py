"""Variables that kallsyms does not name without CONFIG_KALLSYMS_ALL, by the standard library alone.

As `parsers.vmcore.exports` and `parsers.vmcore.kernfs` find them: an audit of the core searches the same way.
"""

import re
from array import array
from typing import Dict, Iterator, List, Set, Tuple

from analyzer.collect.without_packages.kernel import MASK, CannotReadError, Kernel

EXPORTED = ("iomem_resource", "node_data", "contig_page_data", "kernel_kobj")
SEARCHED = 1 << 20  # bytes at a time
MAX_IMAGE = 512 << 20
MAX_CHILDREN = 1 << 21
MAX_BANNER = 1 << 10


class Exports(Kernel):
    """A kernel whose exported variables are known, and what its directories of sysfs lead to."""

    def read_exports(self) -> None:
        """Look exported variables up in __ksymtab where the symbols are those of functions only, or none."""
        if "iomem_resource" in self.symbols:
            return
        start, places = self.image[0], {}
        for offset, data in self.pieces():
            for name in EXPORTED:
                wanted = b"\0" + name.encode() + b"\0"
                at = data.find(wanted)
                while at >= 0:
                    places[offset + at + 1] = name
                    at = data.find(wanted, at + 1)
        found: Dict[str, Set[Tuple[int, int, int]]] = {}
        for offset, data in self.pieces() if places else []:
            words = array("i", data)
            for number, name_at in [
                (number, word + offset + 4 * number)
                for number, word in enumerate(words)
                if word + offset + 4 * number in places
            ]:
                variable = words[number - 1] + offset + 4 * (number - 1)
                if number and self.swapper < start + variable < self.image[1] and (start + variable) % 8 == 0:
                    found.setdefault(places[name_at], set()).add((variable, offset + 4 * (number - 1), name_at))
        for name, entries in found.items():
            if len(entries) == 1 and name not in self.symbols:
                variable, entry, name_at = entries.pop()
                self.read(start + entry, 8)
                self.read(start + name_at - 1, len(name) + 2)  # with the zeros before and after it
                self.symbols[name] = start + variable

    def pieces(self) -> Iterator[Tuple[int, bytes]]:
        """The image up to its page tables: offsets from its start, and bytes; each begins with the last page before."""
        end = min(self.swapper - self.image[0], MAX_IMAGE)
        for offset in range(0, end, SEARCHED - self.page):
            yield offset, self.searched(self.image[0] + offset, min(SEARCHED, end - offset))

    def find_banner(self) -> None:
        """Keep the banner that names the build, which stands among the read-only data (init/version.c)."""
        release = re.search(rb"^OSRELEASE=([^\n]+)", self.memory.info, re.MULTILINE)
        wanted = b"Linux version " + (release.group(1) if release else b"") + b" "
        for offset, data in self.pieces():
            place = data.find(wanted)
            while place >= 0:
                end = data.find(b"\n", place, place + MAX_BANNER)
                if end > 0 and b"\0" not in data[place:end] and b"#" in data[place:end]:
                    self.read(self.image[0] + offset + place, end + 1 - place)
                    return
                place = data.find(wanted, place + 1)

    def kobjects_in(self, *names: bytes) -> List[int]:
        """Addresses of the kobjects of all directories in a directory of sysfs."""
        parent = "parent" if self.types is not None and self.types.member("kernfs_node", "parent") else "__parent"
        own = self.field(self.number(self.symbol("kernel_kobj")), "kobject", "sd")
        directory = self.field(own, "kernfs_node", parent)
        for name in names:
            for node in self.children_of(directory):
                if self.string(self.field(node, "kernfs_node", "name")) == name:
                    directory = node
                    break
            else:
                raise CannotReadError(f"no directory {name.decode()} in sysfs")
        inside = [one for one in self.children_of(directory) if self.field(one, "kernfs_node", "flags") & 15 == 1]
        objects = [self.field(one, "kernfs_node", "priv") for one in inside]
        of_directory = self.field(directory, "kernfs_node", "priv")
        return [one for one in objects if one != of_directory]

    def children_of(self, directory: int) -> List[int]:
        """Addresses of the nodes in a directory: a red-black tree, level by level."""
        node_at = self.member("kernfs_node", "rb")[0]
        sides = [self.member("rb_node", side)[0] for side in ("rb_left", "rb_right")]
        root = (("kernfs_node", "dir"), ("kernfs_elem_dir", "children"), ("rb_root", "rb_node"))
        level, found = [self.number(directory + sum(self.member(*one)[0] for one in root))], []
        while level:
            level = [at for at in level if at]
            found += [at - node_at & MASK for at in level]
            if len(found) > MAX_CHILDREN:
                raise CannotReadError("a directory of sysfs has too many entries")
            level = [self.number(at + side) for at in level for side in sides]
        return found
