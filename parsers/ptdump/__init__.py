"""arm64 ``kernel_page_tables`` text: reading it in bulk, recognising what it is not, writing it.

The text comes from arch/arm64/mm/ptdump.c (dump.c before 5.10) and mm/ptdump.c, read in 4.14, 5.4,
5.10, 6.1 and 6.12.  Each trait of a dump (holes printed or not, inclusive ends, columns) is found
in the dump itself and never concluded from a version.

>>> text = b'''---[ vmemmap start ]---
... 0xfffffdffc0000000-0xfffffdffc1000000          16M PMD       RW NX SHD AF        BLK UXN    MEM/NORMAL
... 0xfffffdffc1000000-0xfffffe0000000000        1008M PMD
... '''
>>> dump = parse(text, "kernel_page_tables")
>>> [hex(size) for size in dump.size], dump.attrs.tolist()
(['0x1000000', '0x3f000000'], [1651, 0])
>>> dump.markers
(Marker(name='vmemmap start', row=0, line=1),)
>>> dump.quote(1)
'0xfffffdffc1000000-0xfffffe0000000000        1008M PMD'
"""

from parsers.ptdump.foreign import looks_like
from parsers.ptdump.read import parse, parse_file
from parsers.ptdump.render import AttributeColumns, render
from parsers.ptdump.table import PageTableDump, UnknownWord, WxLine

__all__ = ["AttributeColumns", "PageTableDump", "UnknownWord", "WxLine", "looks_like", "parse", "parse_file", "render"]
