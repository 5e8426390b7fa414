"""What a run tells after every step, and a bar of it on terminals."""

import time
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
    ecg_per_s: float  # windows a second, of steps alone
    wall_ecg_per_s: float = 0.0  # since this process began to train, pauses included
    terms: Mapping[str, float] = field(default_factory=dict)  # further losses of the objective
    held_out: "HeldOut | None" = None  # if it was measured after this step
    probed: Mapping[str, float] = field(default_factory=dict)  # likewise, on rank 0; names: probes.COLUMNS


@dataclass
class _Clock:
    """Seconds and windows since the last line of metrics.csv, or since this process began to train."""

    waited_s: float = 0.0
    spent_s: float = 0.0  # on steps alone
    ecgs: int = 0
    begun_s: float = field(default_factory=time.perf_counter)

    @property
    def ecg_per_s(self) -> float:
        return self.ecgs / self.spent_s if self.spent_s else 0.0

    @property
    def wall_ecg_per_s(self) -> float:
        """With all pauses: measuring, checkpoints, curves."""
        return self.ecgs / (time.perf_counter() - self.begun_s)

    @property
    def wait_share(self) -> float:
        return self.waited_s / self.spent_s if self.spent_s else 0.0


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
