"""Whether /proc/iomem lists all that the linear map has: else no rule passes on what the file lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rules.rule import UndecidedError

if TYPE_CHECKING:
    from rules.model.memory.regions import LinearMap
    from rules.model.memory.resources import Resources

__all__ = ["need_all_listed"]


def need_all_listed(linear: LinearMap, resources: Resources) -> None:
    """UndecidedError where the linear map has pages of no resource: lines of /proc/iomem may be missing (or LIN-01)."""
    unlisted = linear.pfns(linear.pages_mapped) - resources.pfns(resources.everything, linear.layout.page_size)
    if unlisted:
        message = f"the linear map has {unlisted.total} pages that /proc/iomem does not list: it may be cut"
        raise UndecidedError(message, "iomem")
