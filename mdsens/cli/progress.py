"""What a command shows while it computes, and the course of a relaxation that remains of it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from mdsens.relaxation.walk import RelaxationProgress


class LiveLine:
    """A line that is rewritten while work goes on; nothing where output is no terminal.

    Use as a context; call it with a text, or give `relaxation` to `relax` as its progress.

    Attributes:
        course: what the relaxation reported, in order.
    """

    def __init__(self, console: Console, text: str):
        self.course: list[RelaxationProgress] = []
        self._status = console.status(text)

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._status.stop()

    def __call__(self, text: str) -> None:
        """Show another text."""
        self._status.update(text)

    @property
    def relaxation(self) -> "Callable[[RelaxationProgress], None]":
        """Callback that shows and keeps the course of a relaxation."""

        def show(progress: "RelaxationProgress") -> None:
            self.course.append(progress)
            self(
                f"step {progress.steps}   energy {progress.energy:.6f} eV   largest force "
                f"{progress.fmax:.1e} eV/Å"
            )

        return show


def counting_bar(console: Console) -> Progress:
    """A bar that counts what is done of many, and says how long the others will take."""
    return Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
