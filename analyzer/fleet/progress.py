"""A progress bar for people: rate and time left; nothing where nobody looks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from analyzer.fleet.find import find_bundles

if TYPE_CHECKING:
    from types import TracebackType

    from analyzer.fleet.unit import BundleResult

__all__ = ["Progress"]


class Progress:
    """Counts results as they come."""

    def __init__(self, paths: Iterable[str], *, show: bool) -> None:
        self.bar: Any = None
        if show:
            from rich.console import Console  # noqa: PLC0415 only where a person is looking
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
            from rich.progress import Progress as Bar  # noqa: PLC0415

            rate = TextColumn("{task.speed:.1f}/s", justify="right")
            self.bar = Bar(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn(),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self.task = self.bar.add_task("bundles", total=sum(1 for _ in find_bundles(paths)))

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, result: BundleResult) -> None:
        """One more result."""
        if self.bar is not None:
            self.bar.update(self.task, advance=1, description=result["bundle"].rsplit("/", 1)[-1][:32])
