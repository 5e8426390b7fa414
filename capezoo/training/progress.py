"""A bar on terminals, nothing elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def bar(name: str, total: int, done: int = 0) -> Iterator[Callable[[int, str], None]]:
    """Yield a function that takes the number of steps done and a few words. Drawn only if standard error is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step, words: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(name, total=total, completed=done, words="")
        yield lambda step, words: progress.update(task, completed=step, words=words)
