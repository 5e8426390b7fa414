"""What a run writes down every few steps: one row of metrics.csv, and the same for TensorBoard.

Every measure of a probe has a column beside it with what chance gives, `..._chance`.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from capezoo.training import probes
from ecgcohorts.errors import SpecError, install_line
from ecgcohorts.io.durable import write_file


def columns(cohorts: Sequence[str], terms: Sequence[str] = ()) -> list[str]:
    """Columns of metrics.csv. terms: those of the objective, in training and on held-out patients."""
    fixed = ["step", "epoch", "lr", "loss", "grad_norm", "cohort", "ecg_per_s", "wait_share", "wall_ecg_per_s"]
    fixed += ["val_loss", "val_untrained", "alignment", "uniformity", "effective_rank", "dead_units", *probes.COLUMNS]
    fixed += [f"loss_{name}" for name in cohorts] + [f"val_loss_{name}" for name in cohorts]
    return [*fixed, *terms, *(f"val_{name}" for name in terms)]


class MetricsFile:
    """metrics.csv: appended while running, cut back to the checkpoint on resume. Unknown values are empty."""

    def __init__(self, path: Path, columns: Sequence[str], after_step: int) -> None:
        self._path, self._columns = path, list(columns)
        kept: list[dict[str, str]] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in csv.DictReader(file) if _step(row) is not None]
        text = io.StringIO()
        # Columns that an earlier version wrote and this one does not are left out: its run can still go on.
        writer = csv.DictWriter(text, self._columns, extrasaction="ignore", restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in kept if (_step(row) or 0) <= after_step)
        write_file(path, text.getvalue().encode())

    def append(self, row: Mapping[str, object]) -> None:
        """Add one row. Raises ValueError for a column that was not announced."""
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, restval="", lineterminator="\n")
            writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})


def _step(row: Mapping[str, str]) -> int | None:
    """None for a line that a kill cut short."""
    step = row.get("step") or ""
    return int(step) if step.isdigit() and None not in row.values() else None


class TensorBoard:
    """The numbers of metrics.csv as TensorBoard's scalars, in a folder of their own. A context manager."""

    def __init__(self, folder: Path, after_step: int) -> None:
        """Rows of later steps, left by a killed run, are hidden. Raises SpecError if tensorboard is not installed."""
        try:
            writer = import_module("torch.utils.tensorboard").SummaryWriter
        except ImportError:
            raise SpecError(
                "found tensorboard=true, but it is not installed. metrics.csv holds the same numbers: leave it away, or "
                f"run: {install_line('tensorboard')}"
            ) from None
        self._writer = writer(str(folder), purge_step=after_step + 1)

    def append(self, row: Mapping[str, object]) -> None:
        for name, value in row.items():
            if name not in ("step", "epoch") and isinstance(value, int | float):
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
