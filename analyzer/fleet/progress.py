"""A progress bar for people: rate and time left; nothing without a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

    from analyzer.fleet.unit import BundleResult

__all__ = ["Progress"]


class Progress:
    """Counts results as they come."""

    def __init__(self, *, show: bool) -> None:
        self.bar: Any = None
        if show:
            from rich.console import Console  # noqa: PLC0415 only where a person is looking
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
            from rich.progress import Progress as Bar  # noqa: PLC0415

            self.bar = Bar(
                TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[rate]:.1f}/s"), TimeRemainingColumn(),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self.task = self.bar.add_task("bundles", total=None, rate=0.0)

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, total: int, result: BundleResult) -> None:
        """One more result of so many."""
        if self.bar is not None:
            name = ascii(result["bundle"].rsplit("/", 1)[-1])[1:33]
            rate = self.bar.tasks[self.task].speed or 0.0
            self.bar.update(self.task, advance=1, total=total, description=name, rate=rate)
