"""A training's progress as lines of text: steps, losses, and when it will be over.

For terminals and files alike; a line every now and then, so that a log stays readable.
"""

import time
from collections.abc import Callable

from model.meta.progress import Progress

EVERY_S = 10.0
"""Seconds between two lines."""
SHOWN = {"outer_loss": "loss", "validation_loss": "validation loss", "validation_r_at_1": "R@1"}
"""Figures of a row of history that a line has, and what it calls them."""


def lines_of(
    say: Callable[[str], None],
    every_s: float = EVERY_S,
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[Progress], None]:
    """Return a function to call after every step, which says a line when `every_s` seconds have
    passed since the last, and at the end."""
    begun = said = clock()
    first, name = 0, ""

    def on_step(progress: Progress) -> None:
        nonlocal begun, said, first, name
        if progress.name != name:  # another training; what a checkpoint had done took no time now
            name, first = progress.name, progress.step
            begun = said = clock()
        now = clock()
        if now - said < every_s and progress.ended is None:
            return
        said = now
        say(line_of(progress, now - begun, progress.step - first))

    return on_step


def line_of(progress: Progress, elapsed_s: float, done: int) -> str:
    """Return one line about a training, of which `done` steps took `elapsed_s` seconds."""
    parts = [f"{progress.name}: step {progress.step:,} of {progress.steps:,}"]
    parts += [f"{label} {figure:.3f}" for label, figure in shown_figures(progress).items()]
    if progress.ended is not None:
        parts.append(f"ended by {progress.ended} after {duration(elapsed_s)}")
    elif done:
        left_s = elapsed_s / done * (progress.steps - progress.step)
        parts.append(f"{duration(elapsed_s)} so far, at most {duration(left_s)} to go")
    return ", ".join(parts)


def shown_figures(progress: Progress) -> dict[str, float]:
    """Return the newest figures that are shown, by what a line calls them."""
    found: dict[str, float] = {}
    for row in progress.history[-2:]:  # the newest may have been closed without a step in it
        found |= {label: row[name] for name, label in SHOWN.items() if name in row}
    return found


def duration(seconds: float) -> str:
    """Return a length of time as people read it: 40 s, 12 min, 1 h 5 min."""
    minutes = round(seconds / 60.0)
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
