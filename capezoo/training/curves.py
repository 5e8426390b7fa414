"""curves.png: metrics.csv as six pictures for a person. Needs matplotlib; without it nothing is drawn."""

import csv
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.io.durable import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES, DPI = (13.0, 7.0), 110
FAINT = "#8a8f98"

Table = dict[str, NDArray[np.float64]]


def draw(metrics: Path, out: Path, title: str) -> bool:
    """Draw a run's metrics.csv, all or nothing. Returns False, and does nothing, if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure

    table = read(metrics)
    figure = Figure(SIZE_INCHES, dpi=DPI, layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(2, 3)
    _losses(axes[0, 0], table)
    _held_out(axes[0, 1], table)
    _shares(axes[0, 2], table)
    _age(axes[1, 0], table)
    _gradient(axes[1, 1], table)
    _collapse(axes[1, 2], table)
    for axis in axes.flat:
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_file(out, picture.getvalue())
    return True


def read(metrics: Path) -> Table:
    """Column -> numbers, NaN where a row says nothing. Text columns are left out."""
    with metrics.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else {}) if name != "cohort"]
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}


def _losses(axis: "Axes", table: Table) -> None:
    axis.set_title("training loss, running mean")
    _line(axis, table, "loss", "all batches", color=FAINT, alpha=0.4)
    for name in _starting(table, "loss_"):
        _line(axis, table, name, name.removeprefix("loss_"))


def _held_out(axis: "Axes", table: Table) -> None:
    axis.set_title("loss of held-out patients")
    _line(axis, table, "val_untrained", "untrained", color=FAINT, linestyle="--")
    cohorts = _starting(table, "val_loss_")
    for name in cohorts if len(cohorts) > 1 else ():
        _line(axis, table, name, name.removeprefix("val_loss_"), linewidth=1)
    _line(axis, table, "val_loss", "all", color="black")


def _shares(axis: "Axes", table: Table) -> None:
    axis.set_title("probes: cohort and sex (dashed: chance)")
    labels = {"cohort_auc": "cohort, AUC", "knn_cohort": "cohort, share of neighbours", "sex_auc": "sex, AUC"}
    _with_chance(axis, table, labels)


def _age(axis: "Axes", table: Table) -> None:
    axis.set_title("probe: age, error in years (dashed: chance)")
    _with_chance(axis, table, {"age_mae": "age"})


def _gradient(axis: "Axes", table: Table) -> None:
    axis.set_title("gradient norm, learning rate")
    _line(axis, table, "grad_norm", "gradient norm", linewidth=1)
    _line(axis, table, "lr", "learning rate")
    axis.set_yscale("log")


def _collapse(axis: "Axes", table: Table) -> None:
    axis.set_title("embeddings of held-out patients")
    _line(axis, table, "effective_rank", "effective rank")
    _line(axis, table, "dead_units", "dead units")
    axis.set_ylim(bottom=0)


def _with_chance(axis: "Axes", table: Table, labels: dict[str, str]) -> None:
    for place, (name, label) in enumerate(labels.items()):
        _line(axis, table, name, label, color=f"C{place}")
        _line(axis, table, f"{name}_chance", "", color=f"C{place}", linestyle="--", linewidth=1)


def _line(axis: "Axes", table: Table, name: str, label: str, **style: str | float) -> None:
    """A line through the rows that have a number. A logarithmic axis leaves zeros away by itself."""
    y = table.get(name, np.zeros(0))
    known = np.isfinite(y)
    if known.any():
        alone = "o" if known.sum() == 1 else ""
        axis.plot(table["step"][known], y[known], label=label or "_", marker=alone, **style)  # type: ignore[arg-type]


def _starting(table: Table, prefix: str) -> Sequence[str]:
    return [name for name in table if name.startswith(prefix)]
