"""Page tables and memory hotplug of arm64 Linux kernels as tables: the library.

.. code-block:: python

    import ptaudit

    host = ptaudit.open("captured-host/")       # or a crash dump, a trace, an archive, "live", a drgn.Program
    host.sections()                             # pandas DataFrames
    host.findings().query("severity >= 'high'")
    host.audit()                                # the report that ``ptaudit audit`` prints
    host.where("0xfffffdffc2100008")

This package holds no logic: `analyzer` does the work.  Nothing heavy is imported before :func:`open` is called, and
pandas not before the first table is made.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parsers.errors import PtauditError as PtauditError
    from ptaudit.evidence import Evidence as Evidence
    from ptaudit.evidence import open_evidence as open  # noqa: A004 the name that the design gives it

__all__ = ["Evidence", "PtauditError", "open"]

_HOMES = {
    "Evidence": ("ptaudit.evidence", "Evidence"),
    "PtauditError": ("parsers.errors", "PtauditError"),
    "open": ("ptaudit.evidence", "open_evidence"),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 module attributes
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home, original = _HOMES[name]
    value = getattr(import_module(home), original)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
