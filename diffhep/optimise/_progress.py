"""Progress of long steps: a bar in a terminal, a line now and then elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


Advance = Callable[[str], None]
"""Takes one step; the text is shown beside the bar."""

_INTERVAL = 10.0  # seconds between two lines where there is no terminal


@contextlib.contextmanager
def progress_bar(
    description: str | None,
    *,
    total: int,
    completed: int = 0,
    console: Console | None = None,
) -> Iterator[Advance]:
    """Shows the progress of a loop on the standard error stream.

    Args:
        description: What is going on; None shows nothing.
        total: Number of steps.
        completed: How many are done already.
        console: Where to write, instead.

    Yields:
        A function to call after each step, with a short text on how it went.
    """
    if description is None:
        yield lambda note: None
        return
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console, description, total=total, completed=completed)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total, completed=completed, note="")
        yield lambda note: bar.update(task, advance=1, note=note)


def _lines(
    console: Console, description: str, *, total: int, completed: int
) -> Advance:
    done = completed
    start = last = time.monotonic()

    def advance(note: str) -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if now - last < _INTERVAL and done < total:
            return
        last = now
        rate = (done - completed) / max(now - start, 1e-9)
        text = f"{description}: {done}/{total}, {rate:.3g}/s {note}".rstrip()
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    return advance
