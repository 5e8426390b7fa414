"""What a run tells after every step, and a bar of it on terminals."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from capezoo.training.monitor import HeldOut


@dataclass(frozen=True)
class Report:
    """What a progress callback is told after every step."""

    step: int  # steps done
    total_steps: int
    loss: float
    lr: float
    ecg_per_s: float  # windows a second
    terms: Mapping[str, float] = field(default_factory=dict)  # further losses of the objective
    held_out: "HeldOut | None" = None  # if it was measured after this step
    probed: Mapping[str, float] = field(default_factory=dict)  # likewise, on rank 0; names: probes.COLUMNS


@contextmanager
def bar(name: str, total: int, done: int, shown: bool) -> Iterator[Callable[[Report], None]]:
    """Yield a function that takes a report after every step. Drawn if `shown` and standard error is a terminal."""
    console = Console(stderr=True)
    # In the log of a job every redrawing would be a line of its own.
    if not (shown and console.is_terminal):
        yield lambda report: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(name, total=total, completed=done, words="")

        def show(report: Report) -> None:
            words = f"loss {report.loss:.3f}  {report.ecg_per_s:.0f} ECG/s"
            progress.update(task, completed=report.step, words=words)

        yield show
