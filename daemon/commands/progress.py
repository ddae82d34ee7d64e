"""Progress of what takes long: bars on a terminal, lines of text elsewhere, both with the time to
go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from model.meta.progress import Progress


@contextmanager
def showing_progress(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Show trainings while the context lasts; yield the function to call after every step."""
    from model.meta.progress_lines import lines_of

    if not console.is_terminal:
        yield lines_of(lambda line: console.print(line, highlight=False, soft_wrap=True))
        return
    with _bars(console) as on_step:
        yield on_step


@contextmanager
def _bars(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Show a bar for each training, from its first step on."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    from model.meta.progress_lines import shown_figures

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        lines: dict[str, TaskID] = {}

        def on_step(progress: Progress) -> None:
            name = progress.name
            if name not in lines:
                lines[name] = bars.add_task(name, total=progress.steps, figures="")
            shown = shown_figures(progress).items()
            figures = "  ".join(f"{label} {figure:.3f}" for label, figure in shown)
            bars.update(lines[name], completed=progress.step, figures=figures)

        yield on_step
